"""The job file: its shape, and every problem that can be seen without knowing the components.

    {"job": "optional id", "roles": {"guest": "bank", "hosts": ["shop"]},
     "components": {"psi_0": {"module": "psi", "input": {"data": "reader_0.data"}}},
     "parameters": {"common": {"task": {...}}, "guest": {...}, "hosts": {"shop": {...}}}}

The digest of a job is the SHA-256 of its RFC 8785 JSON; it is the same for files that say the same.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import rfc8785

from training.component import Role

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
PARTY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Problem(msgspec.Struct, frozen=True, order=True):
    """`path` is a JSON path; `party` is empty where it concerns all."""

    path: str
    party: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {f'party {self.party}: ' if self.party else ''}{self.text}"


class JobError(Exception):
    """The job cannot run; all problems at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


class Roles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    guest: str
    hosts: tuple[str, ...]


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`input`: port to `task.port`."""

    module: str
    input: dict[str, str] = {}


Given = dict[str, dict[str, Any]]
"""Task to parameter to value."""


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A party's own win over those of its role's section, and these over `common`."""

    common: Given = {}
    guest: Given = {}
    hosts: dict[str, Given] = {}


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    roles: Roles
    components: dict[str, Node]
    parameters: Parameters = Parameters()
    job: str = ""

    @property
    def parties(self) -> tuple[str, ...]:
        return (self.roles.guest, *self.roles.hosts)

    def role(self, party: str) -> Role:
        return Role.GUEST if party == self.roles.guest else Role.HOST

    def given(self, party: str) -> tuple[tuple[str, Given], ...]:
        """Sections of parameters that concern the party, with their JSON paths; later ones win."""
        own = "guest" if self.role(party) is Role.GUEST else f"hosts.{party}"
        section = self.parameters.guest if own == "guest" else self.parameters.hosts.get(party, {})
        return (("$.parameters.common", self.parameters.common), (f"$.parameters.{own}", section))

    @property
    def digest(self) -> str:
        return hashlib.sha256(rfc8785.dumps(msgspec.to_builtins(self))).hexdigest()


def read(path: Path, job: str = "") -> tuple[Job, list[Problem]]:
    """The job file, with the id `job` if that is given. See `parse`."""
    try:
        document: object = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise JobError([Problem(str(path), "", f"cannot be read: {error.strerror}")]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobError([Problem(str(path), "", f"is not JSON: {error}")]) from None
    if job and isinstance(document, dict):
        document = {**document, "job": job}
    return parse(document)


def parse(document: object) -> tuple[Job, list[Problem]]:
    """The job and the problems of its values. Raises JobError where its shape is such that nothing more can be said.
    A job without an id is named after its digest, so that all parties give it the same."""
    problems = list(_misshapen(document, Job, "$"))
    if problems:
        raise JobError(problems)
    job = msgspec.convert(document, Job)
    problems = [*_wrong_names(job), *_wrong_sections(job)]
    try:
        job.digest  # noqa: B018 - its numbers must have a canonical form
    except rfc8785.CanonicalizationError as error:
        raise JobError([*problems, Problem("$", "", f"has no canonical JSON (RFC 8785): {error}")]) from None
    return (job if job.job else msgspec.structs.replace(job, job=f"job-{job.digest[:16]}")), problems


def hint(name: str, known: Iterable[str]) -> str:
    """What may have been meant."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(choices)}" if choices else "none is known here"


def _misshapen(value: object, kind: Any, path: str) -> Iterable[Problem]:
    """Problems of the whole tree, not only the first."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _misshapen_struct(value, kind, path)
    elif getattr(kind, "__origin__", None) is dict:
        if not isinstance(value, dict):
            yield Problem(path, "", "must be an object")
            return
        for name, entry in value.items():
            yield from _misshapen(entry, kind.__args__[1], f"{path}.{name}")
    else:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            yield Problem(path, "", plain(error))


def _misshapen_struct(value: object, kind: type[msgspec.Struct], path: str) -> Iterable[Problem]:
    if not isinstance(value, dict):
        yield Problem(path, "", "must be an object")
        return
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name in value.keys() - fields.keys():
        yield Problem(f"{path}.{name}", "", f"is not a key here; {hint(str(name), fields)}")
    for name, field in fields.items():
        if name in value:
            yield from _misshapen(value[name], field.type, f"{path}.{name}")
        elif field.required:
            yield Problem(f"{path}.{name}", "", "is missing")


def plain(error: msgspec.ValidationError) -> str:
    return str(error).replace("Expected", "must be").replace("`", "").replace(" - at $", " at $")


def _wrong_names(job: Job) -> Iterable[Problem]:
    if job.job and not PARTY.fullmatch(job.job):
        yield Problem("$.job", "", "must be up to 64 letters, digits, '.', '_' and '-'")
    if not job.roles.hosts:
        yield Problem("$.roles.hosts", "", "must name at least one party")
    for position, party in enumerate(job.parties):
        path = f"$.roles.hosts[{position - 1}]" if position else "$.roles.guest"
        if not PARTY.fullmatch(party):
            yield Problem(path, "", "must be up to 64 letters, digits, '.', '_' and '-'")
        if party in job.parties[:position]:
            yield Problem(path, party, "is named twice; a party has one role in a job")
    if not job.components:
        yield Problem("$.components", "", "must hold at least one task")
    for name in job.components:
        if not NAME.fullmatch(name):
            yield Problem(f"$.components.{name}", "", "a task's name is up to 64 letters, digits, '_' and '-'")


def _wrong_sections(job: Job) -> Iterable[Problem]:
    sections: dict[str, Given] = {"common": job.parameters.common, "guest": job.parameters.guest}
    for party, section in job.parameters.hosts.items():
        sections[f"hosts.{party}"] = section
        if party not in job.roles.hosts:
            yield Problem(f"$.parameters.hosts.{party}", "", f"is not a host here; {hint(party, job.roles.hosts)}")
    for where, section in sections.items():
        for task in section.keys() - job.components.keys():
            yield Problem(f"$.parameters.{where}.{task}", "", f"there is no such task; {hint(task, job.components)}")
