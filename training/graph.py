"""A job checked against the components that it names: tasks in an order in which their inputs exist."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from training import catalog
from training.component import Component, Role
from training.dsl import Given, Job, JobError, Problem, hint, plain


@dataclass(frozen=True, slots=True)
class Task:
    """One node of the graph. `inputs`: port to (task, port)."""

    name: str
    module: str
    component: type[Component]
    inputs: Mapping[str, tuple[str, str]]

    def concerns(self, role: Role) -> bool:
        return role in self.component.roles


@dataclass(frozen=True, slots=True)
class Graph:
    """A job that can run. `parameters`: by party and task."""

    job: Job
    tasks: tuple[Task, ...]
    parameters: Mapping[tuple[str, str], msgspec.Struct]


def check(job: Job, problems: Iterable[Problem] = ()) -> Graph:
    """Raises JobError with `problems` and everything else that is wrong."""
    found = list(problems)
    components: dict[str, type[Component]] = {}
    for name, node in job.components.items():
        try:
            components[name] = catalog.component(node.module)
        except catalog.CatalogError as error:
            found.append(Problem(f"$.components.{name}.module", "", str(error)))
    sources: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in job.components}
    for name, component in components.items():
        found += _wire(job, name, component, components, sources)
    parameters: dict[tuple[str, str], msgspec.Struct] = {}
    for name, component in components.items():
        found += _fit(job, name, component, parameters)
        found += _unequal(job, name, component, parameters)
    order, cycles = _order(sources)
    found += cycles
    if found:
        raise JobError(found)
    tasks = (Task(name, job.components[name].module, components[name], sources[name]) for name in order)
    return Graph(job, tuple(tasks), parameters)


def _wire(
    job: Job,
    name: str,
    component: type[Component],
    components: Mapping[str, type[Component]],
    sources: Mapping[str, dict[str, tuple[str, str]]],
) -> Iterable[Problem]:
    """Fill in `sources[name]`; tells which ports are unknown, missing or of the wrong kind."""
    path = f"$.components.{name}.input"
    given = job.components[name].input
    for port in component.inputs.keys() - component.optional_inputs - given.keys():
        yield Problem(f"{path}.{port}", "", "is missing: wire it to the output of a task, as task.port")
    for port, source in given.items():
        task, dot, output = source.partition(".")
        if port not in component.inputs:
            yield Problem(f"{path}.{port}", "", f"is not an input; {hint(port, component.inputs)}")
        elif not (dot and task and output):
            yield Problem(f"{path}.{port}", "", f"{source!r} must read task.port")
        elif task not in job.components:
            yield Problem(f"{path}.{port}", "", f"there is no task {task!r}; {hint(task, job.components)}")
        else:
            sources[name][port] = (task, output)
            if task in components:
                yield from _mismatch(f"{path}.{port}", component.inputs[port].value, components[task], output)


def _mismatch(path: str, wanted: str, source: type[Component], output: str) -> Iterable[Problem]:
    if output not in source.outputs:
        yield Problem(path, "", f"that task has no output {output!r}; {hint(output, source.outputs)}")
    elif source.outputs[output].value != wanted:
        yield Problem(path, "", f"takes {wanted}, but {output!r} there is {source.outputs[output].value}")


def _fit(
    job: Job, name: str, component: type[Component], parameters: dict[tuple[str, str], msgspec.Struct]
) -> Iterable[Problem]:
    """Fill in `parameters` for every party that the task concerns."""
    for party in job.parties:
        if job.role(party) not in component.roles:
            yield from _misplaced(job, name, party)
            continue
        problems = list(_misfits(job.given(party), name, component.Parameters, party))
        if not problems:
            merged = {key: value for _, section in job.given(party) for key, value in section.get(name, {}).items()}
            try:
                parameters[party, name] = msgspec.convert(merged, component.Parameters)
            except msgspec.ValidationError as error:  # a rule that concerns several parameters
                problems = [Problem(f"$.parameters.common.{name}", party, plain(error))]
        yield from problems


def _misplaced(job: Job, task: str, party: str) -> Iterable[Problem]:
    where, section = job.given(party)[-1]
    if task in section:
        yield Problem(f"{where}.{task}", party, f"that task does not run at a {job.role(party).value}")


def _unequal(
    job: Job, task: str, component: type[Component], parameters: Mapping[tuple[str, str], msgspec.Struct]
) -> Iterable[Problem]:
    """Only a party's own section can make its parameters differ from another's."""
    if not component.equal_parameters:
        return
    fitted = {party: parameters[party, task] for party in job.parties if (party, task) in parameters}
    for party, own in fitted.items():
        where, section = job.given(party)[-1]
        for key in section.get(task, {}):
            if any(getattr(own, key) != getattr(other, key) for other in fitted.values()):
                yield Problem(f"{where}.{task}.{key}", party, "must be equal at every party: give it under common")


def _misfits(
    sections: tuple[tuple[str, Given], ...], task: str, kind: type[msgspec.Struct], party: str
) -> Iterable[Problem]:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    for where, section in sections:
        whose = "" if where.endswith(".common") else party
        for key, value in section.get(task, {}).items():
            path = f"{where}.{task}.{key}"
            if key not in fields:
                yield Problem(path, whose, f"is not a parameter; {hint(key, fields)}")
                continue
            try:
                msgspec.convert(value, hints[key])
            except msgspec.ValidationError as error:
                yield Problem(path, whose, plain(error))
    for key, field in fields.items():
        if field.required and not any(key in section.get(task, {}) for _, section in sections):
            yield Problem(f"{sections[-1][0]}.{task}.{key}", party, "is missing")


def _order(sources: Mapping[str, Mapping[str, tuple[str, str]]]) -> tuple[list[str], list[Problem]]:
    sorter = graphlib.TopologicalSorter({name: [task for task, _ in wired.values()] for name, wired in sources.items()})
    try:
        return list(sorter.static_order()), []
    except graphlib.CycleError as error:
        cycle: list[str] = error.args[1]
        return [], [Problem(f"$.components.{cycle[0]}", "", f"the tasks form a cycle: {' -> '.join(cycle)}")]
