"""Real parties on this machine: a guest and its hosts as nodes in processes of their own, with a model online."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.harness.population import (
    GUEST,
    MODEL,
    SERVICE,
    VERSION,
    host_name,
    write_model,
    write_users,
)
from loaders.signature import Signature
from serving.transport import Transport
from tests.nodes import PartyNode, free_port

_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Parties:
    """Running nodes. `signature` is of the guest's half."""

    guest: PartyNode
    hosts: tuple[PartyNode, ...]
    signature: Signature

    @property
    def address(self) -> str:
        """Of the guest's service port."""
        return self.guest.address("service")

    @property
    def nodes(self) -> tuple[PartyNode, ...]:
        return (self.guest, *self.hosts)

    def processes(self) -> dict[str, psutil.Process]:
        """By what each is: `bank worker`, `bank supervisor`, `bank cache`, and so on."""
        found: dict[str, psutil.Process] = {}
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                supervisor = psutil.Process(node.process.pid)
                found[f"{node.party} supervisor"] = supervisor
                for child in supervisor.children():
                    kind = "worker" if "--worker" in child.cmdline() else "cache"
                    found[f"{node.party} {kind}"] = child
        return found


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    transport: Transport,
    hosts: int,
    users: int,
    guest: str = "",
    table: str = "users.parquet",
) -> Iterator[Parties]:
    """A guest and `hosts` hosts that know `users` users each, from the file `table`; the linear model of population.py
    answers service `s`. `guest` has further settings, as TOML tables."""
    ports = [free_port() for _ in range(hosts)]
    peers = "".join(f"[peers.{host_name(index)}]\naddress = '127.0.0.1:{port}'\n" for index, port in enumerate(ports))
    chosen = f"transport = '{transport.value}'\nlog_level = 'warning'\n"
    asker = PartyNode(folder, GUEST, f"{chosen}{peers}{guest}")
    answering = f"plaintext_caller = '{GUEST}'\n[peers.{GUEST}]\nmay_load = ['*']\n"
    features = f"[features.default]\npath = '{table}'\n"
    others = [
        PartyNode(folder, host_name(index), f"{chosen}{answering}{features}", port) for index, port in enumerate(ports)
    ]
    for index, node in enumerate(others):
        write_users(node.folder / table, index, users)
    signature = write_model(asker.registry, [node.registry for node in others])
    parties = Parties(asker, tuple(others), signature)
    with contextlib.ExitStack() as stack:
        for node in (*others, asker):
            stack.callback(node.stop)
            node.start(_START_S)
        asker.load(MODEL, VERSION)
        asker.online(SERVICE, MODEL, VERSION)
        yield parties
