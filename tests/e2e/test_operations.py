"""docs/operations.md, block by block, as its readers run it: real processes on loopback, one shell per folder.

What differs from the page: its ports, so that several runs get along on one machine, and that pip and packages come
from this environment instead of a registry.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from serving.cache.embedded import find_server
from tests.nodes import ROOT, free_port

PAGE = ROOT / "docs" / "operations.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADER = re.compile(r"# ([a-z ]+?)(?:: (\S+))?\n")
PORT = re.compile(r"\b87\d\d\b")
DONE = "-- block done"
GET = f"""#!{sys.executable}
import ssl, sys, urllib.request
tls = ssl.create_default_context(cafile=sys.argv[sys.argv.index("--cacert") + 1])
sys.stdout.write(urllib.request.urlopen(sys.argv[-1], context=tls).read().decode())
"""
"""For machines without curl."""
BASE = getattr(sys, "_base_executable", sys.executable)
PYTHON = f"""#!/bin/sh
[ "$*" = "-m venv .venv" ] || exec {BASE} "$@"
{BASE} -m venv --without-pip .venv
printf '#!/bin/sh\\nexec "${{0%%pip}}python" -m pip "$@"\\n' >.venv/bin/pip
chmod +x .venv/bin/pip
"""
"""Environments with the pip of this one: to bring its own takes 5 s."""


@dataclass(frozen=True)
class Block:
    """A fenced block of the page: `text` is the expected output of the `sh` before, `...` stands for anything."""

    kind: str
    text: str
    line: int

    @property
    def folders(self) -> list[str]:
        return [name.replace(" ", "-") for name in self._header[1].split(" and ")]

    @property
    def file(self) -> str | None:
        return self._header[2]

    @property
    def body(self) -> str:
        return self.text[self._header.end() :]

    @property
    def _header(self) -> re.Match[str]:
        found = HEADER.match(self.text)
        assert found, f"{PAGE.name}, line {self.line}: the first line must say whose block it is"
        return found


def blocks(page: str) -> list[Block]:
    return [Block(one[1], one[2], page.count("\n", 0, one.start()) + 1) for one in FENCE.finditer(page)]


def matches(expected: str, output: str) -> bool:
    """Up to white space, and anything for `...`."""
    first, *others = [" ".join(part.split()) for part in expected.split("...")]
    said = " ".join(output.split())
    if not others:
        return said == first
    *between, last = others
    at, end = len(first), len(said) - len(last)
    if not said.startswith(first) or not said.endswith(last):
        return False
    for part in between:
        found = said.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


class Shell:
    """A terminal in a folder: what a block leaves behind (variables, jobs) is there for the next one."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        folder.mkdir()
        self.folder = folder
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            ["sh", "-eu"], cwd=folder, env=environ, text=True, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
        )

    def run(self, script: str) -> str:
        """What it says. Fails the test with that when one of its commands fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{script}\necho\necho '{DONE}'\n")
        self.process.stdin.flush()
        said = ""
        for line in self.process.stdout:
            if line.strip() == DONE:
                return said
            said += line
        raise AssertionError(f"in {self.folder.name}:\n{script}\nended with\n{said}\n{self._logs()}")

    def _logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))

    def nodes(self) -> list[psutil.Process]:
        """Everything that still runs under it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        left = self.nodes()
        self.process.kill()
        self.process.communicate()
        for one in left:
            one.terminate()
        _, deaf = psutil.wait_procs(left, 20)
        for one in deaf:
            one.kill()


class Machines:
    """The folders of the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[str, str] = {}
        self.shells: dict[str, Shell] = {}
        (folder / "tessera").symlink_to(ROOT)
        programs = folder / "programs"
        programs.mkdir()
        (programs / "python3").write_text(PYTHON)
        (programs / "python3").chmod(0o755)
        (programs / "redis-server").symlink_to(find_server() or "")
        if shutil.which("curl") is None:
            (programs / "curl").write_text(GET)
            (programs / "curl").chmod(0o755)
        self._environ = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "COLUMNS": "160",
            # pip builds the wheel with what is installed here, and the wheel finds its dependencies there.
            "PYTHONPATH": sysconfig.get_path("purelib"),
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the value of build_isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def shell(self, name: str) -> Shell:
        if name not in self.shells:
            self.shells[name] = Shell(self._folder / name, self._environ)
        return self.shells[name]

    def with_ports(self, text: str) -> str:
        return PORT.sub(lambda found: self._ports.setdefault(found[0], str(free_port())), text)

    def run(self, block: Block) -> str:
        return "".join(self.shell(name).run(self.with_ports(block.body)) for name in block.folders)

    def write(self, block: Block) -> None:
        assert block.file is not None
        for name in block.folders:
            (self.shell(name).folder / block.file).write_text(self.with_ports(block.body))


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    try:
        yield made
    finally:
        for shell in made.shells.values():
            shell.close()


@pytest.mark.timeout(420)
def test_every_command_of_the_page(machines: Machines) -> None:
    said = ""
    for block in blocks(PAGE.read_text()):
        where = f"{PAGE.name}, line {block.line}"
        match block.kind:
            case "sh":
                said = machines.run(block)
            case "toml":
                machines.write(block)
            case "text":
                assert matches(block.text, said), f"{where}: expected\n{block.text}\nthis was said:\n{said}"
            case other:
                raise AssertionError(f"{where}: what is a block of kind {other!r}?")
    assert not [left for shell in machines.shells.values() for left in shell.nodes()]


def test_the_page_has_every_step_of_a_release() -> None:
    """So that a block that no longer looks like one is noticed."""
    commands = "".join(block.body for block in blocks(PAGE.read_text()) if block.kind == "sh")
    for step in ("certificates", "doctor", "serve", "model load", "model online", "service show", "feedback"):
        assert f"tessera {step}" in commands
    assert "tessera model rollback" in commands
    assert "tessera model unload" in commands
    assert "kill -HUP" in commands


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("a b\n", " a  b\n", True),
        ("a ... c", "a b\nb c\n", True),
        ("a ... c", "a b\nb d\n", False),
        ("...b\n", "a\nb\n", True),
        ("b", "a b", False),
        ("a ... b", "ab", True),
        ("ab...ba", "aba", False),
        ("a...x...b", "a b", False),
        ("1.5", "1x5", False),
    ],
)
def test_outputs_are_compared(expected: str, output: str, same: bool) -> None:
    assert matches(expected, output) is same


def test_a_failed_command_is_told_with_what_it_said(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "guest", dict(os.environ))
    try:
        with pytest.raises(AssertionError, match="no such thing"):
            shell.run("echo no such thing\nfalse\necho not reached")
    finally:
        shell.process.communicate()
