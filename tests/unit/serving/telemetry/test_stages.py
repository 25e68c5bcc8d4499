from prometheus_client.metrics_core import Metric

from serving.telemetry.stages import Stages, stage_metrics


def test_each_stage_is_a_histogram_of_one_metric():
    stages = Stages()
    stages.peers.observe(0.002)
    stages.answered, stages.asking = 5, 2
    stages.finish.observe(0.5)
    stages.local_s, stages.reply_s = 0.375, 0.25
    seconds, finish, rows, asking = stage_metrics(stages)
    assert isinstance(seconds, Metric)
    counts = {one.labels["stage"]: one.value for one in seconds.samples if one.name == "tessera_stage_seconds_count"}
    assert counts == {"gather": 0, "prepare": 0, "shared": 0, "peers": 1, "long": 0, "finish": 1}
    assert [one.samples[0].value for one in (rows, asking)] == [5, 2]
    assert {one.labels["part"]: one.value for one in finish.samples} == {"local": 0.375, "merge": 0.125, "reply": 0.25}
