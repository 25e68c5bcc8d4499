from typing import Any

import pytest

from tests.unit.training.jobs import good, spoilt
from training import dsl, graph
from training.component import Role


def problems(document: object) -> list[str]:
    with pytest.raises(dsl.JobError) as caught:
        graph.check(*dsl.parse(document))
    return [str(problem) for problem in caught.value.problems]


def test_a_good_job() -> None:
    checked = graph.check(*dsl.parse(good()))
    assert [task.name for task in checked.tasks] == ["reader_0", "psi_0", "lr_0", "evaluate_0"]
    assert checked.tasks[2].inputs == {"train": ("psi_0", "data"), "test": ("psi_0", "data")}
    assert not checked.tasks[3].concerns(Role.HOST) and checked.tasks[3].concerns(Role.GUEST)


def test_a_partys_own_parameters_win() -> None:
    parameters: Any = graph.check(*dsl.parse(good())).parameters
    assert parameters["bank", "reader_0"].table == "people"
    assert parameters["shop", "reader_0"].table == "baskets"
    assert parameters["shop", "lr_0"].epochs == 3
    assert ("shop", "evaluate_0") not in parameters


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("rolse",), 1, "$.rolse: is not a key here; did you mean roles?"),
        (("roles",), ..., "$.roles: is missing"),
        (("roles", "hosts"), [], "$.roles.hosts: must name at least one party"),
        (("roles", "hosts"), ["shop", "bank"], "$.roles.hosts[1]: party bank: is named twice"),
        (("roles", "guest"), 7, "$.roles.guest: must be str, got int"),
        (("job",), "a/b", "$.job: must be up to 64"),
        (
            ("components", "psi_0", "module"),
            "pis",
            "$.components.psi_0.module: unknown module 'pis'; did you mean psi?",
        ),
        (("components", "psi_0", "inputs"), {}, "$.components.psi_0.inputs: is not a key here; did you mean input?"),
        (("components", "psi_0", "input"), {}, "$.components.psi_0.input.data: is missing"),
        (("components", "psi_0", "input", "x"), "reader_0.data", "$.components.psi_0.input.x: is not an input"),
        (("components", "psi_0", "input", "data"), "reader_0", "'reader_0' must read task.port"),
        (("components", "psi_0", "input", "data"), "reader.data", "no task 'reader'; did you mean reader_0?"),
        (("components", "psi_0", "input", "data"), "reader_0.date", "no output 'date'; did you mean data?"),
        (("components", "evaluate_0", "input", "data"), "lr_0.model", "takes data, but 'model' there is model"),
        (("components", "psi_0", "input", "data"), "psi_0.data", "the tasks form a cycle: psi_0 -> psi_0"),
        (("components", "a b"), {"module": "reader"}, "$.components.a b: a task's name is"),
        (("components",), {}, "$.components: must hold at least one task"),
        (("components",), [], "$.components: must be an object"),
        (("parameters", "common", "lr_0", "epochs"), 0, "$.parameters.common.lr_0.epochs: must be int >= 1"),
        (("parameters", "guest", "lr_0"), {"epoch": 1}, "$.parameters.guest.lr_0.epoch: party bank: is not a para"),
        (("parameters", "common", "reader_0"), {}, "$.parameters.guest.reader_0.table: party bank: is missing"),
        (("parameters", "common", "lr_0", "seed"), 2**60, "$: has no canonical JSON (RFC 8785)"),
        (("parameters", "common", "lr_1"), {}, "$.parameters.common.lr_1: there is no such task; did you mean lr_0?"),
        (
            ("parameters", "hosts", "shop", "evaluate_0"),
            {"threshold": 0.1},
            "$.parameters.hosts.shop.evaluate_0: party shop: that task does not run at a host",
        ),
        (
            ("parameters", "hosts", "shop", "lr_0"),
            {"epochs": 4},
            "$.parameters.hosts.shop.lr_0.epochs: party shop: must be equal at every party",
        ),
        (
            ("parameters", "guest", "lr_0"),
            {"seed": 1},
            "$.parameters.guest.lr_0.seed: party bank: must be equal at every party",
        ),
        (("parameters", "hosts", "shopp"), {}, "$.parameters.hosts.shopp: is not a host here; did you mean shop?"),
    ],
)
def test_what_can_be_wrong(path: tuple[str, ...], value: Any, told: str) -> None:
    assert told in "\n".join(problems(spoilt(*path, value=value)))


def test_all_problems_at_once() -> None:
    document = spoilt("components", "psi_0", "module", value="pis")
    document["components"]["lr_0"]["input"] = {"train": "psi_0.data", "tset": "psi_0.data"}
    document["parameters"]["common"]["lr_0"] = {"epochs": "many", "l2": -1}
    document["roles"]["hosts"] = ["shop", "shop"]
    found = problems(document)
    assert len(found) == 5
    assert found == sorted(found)


def test_a_cycle_over_two_tasks() -> None:
    document = spoilt("components", "reader_0", value={"module": "psi", "input": {"data": "psi_0.data"}})
    assert any("form a cycle: " in line and "psi_0 -> reader_0" in line for line in problems(document))


def test_the_digest_sees_what_is_said_not_how() -> None:
    job, _ = dsl.parse(good())
    turned, _ = dsl.parse(dict(reversed(list(good().items()))))
    other, _ = dsl.parse(spoilt("parameters", "common", "lr_0", "epochs", value=4))
    assert job.digest == turned.digest != other.digest


def test_a_job_without_an_id_is_named_after_its_digest() -> None:
    first, _ = dsl.parse(spoilt("job", value=...))
    again, _ = dsl.parse(spoilt("job", value=...))
    assert first.job == again.job and first.job.startswith("job-")
    assert dsl.parse(good())[0].job == "spring"


def test_files(tmp_path: Any) -> None:
    path = tmp_path / "job.json"
    with pytest.raises(dsl.JobError, match="cannot be read"):
        dsl.read(path)
    path.write_text("{")
    with pytest.raises(dsl.JobError, match="is not JSON"):
        dsl.read(path)
    path.write_text('{"roles": {"guest": "a", "hosts": ["b"]}, "components": {"r": {"module": "reader"}}}')
    assert dsl.read(path, "mine")[0].job == "mine"


def test_equal_values_may_be_given_twice() -> None:
    document = spoilt("parameters", "hosts", "shop", "lr_0", value={"epochs": 3})
    parameters: Any = graph.check(*dsl.parse(document)).parameters
    assert parameters["shop", "lr_0"] == parameters["bank", "lr_0"]
