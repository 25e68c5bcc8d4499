from prometheus_client.metrics_core import Metric

from serving.telemetry.stages import STAGES, Stages, stage_metrics


def test_each_stage_is_a_histogram_of_one_metric():
    stages = Stages()
    stages.peers.observe(0.002)
    stages.answered, stages.asking = 5, 2
    stages.took(app_s=0.25, local_s=0.5, merge_s=0.125)
    stages.took(app_s=0.25, local_s=0.0, merge_s=0.125)
    seconds, rows, asking = stage_metrics(stages)
    assert isinstance(seconds, Metric)

    def by_stage(kind: str) -> dict[str, float]:
        name = f"tessera_stage_seconds_{kind}"
        return {one.labels["stage"]: one.value for one in seconds.samples if one.name == name}

    assert by_stage("count") == {**dict.fromkeys(STAGES, 0), "peers": 1, "app": 2, "local": 1, "merge": 2}
    assert by_stage("sum") == {**dict.fromkeys(STAGES, 0), "peers": 0.002, "app": 0.5, "local": 0.5, "merge": 0.25}
    assert [one.samples[0].value for one in (rows, asking)] == [5, 2]
