from prometheus_client.metrics_core import Metric

from serving.telemetry.stages import Stages, stage_metrics


def test_each_stage_is_a_histogram_of_one_metric():
    stages = Stages()
    stages.peers.observe(0.002)
    stages.answered, stages.asking = 5, 2
    seconds, rows, asking = stage_metrics(stages)
    assert isinstance(seconds, Metric)
    counts = {one.labels["stage"]: one.value for one in seconds.samples if one.name == "tessera_stage_seconds_count"}
    assert counts == {"gather": 0, "prepare": 0, "shared": 0, "peers": 1, "long": 0, "finish": 0}
    assert [one.samples[0].value for one in (rows, asking)] == [5, 2]
