"""The compose set-up as far as it goes without an engine: its files agree with each other and with the program, and the
image's commands run with the very settings of the containers, at other addresses."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.settings import Settings
from serving.settings_file import load
from serving.transport import ChannelCredentials, ChannelOptions, Transport, channel
from tessera.v1 import inference_pb2, inference_pb2_grpc
from tests.artifacts import make_bound_pair
from tests.nodes import ROOT, free_port
from tests.redis_server import DURABLE, redis_server

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
NODES = ("guest", "guest-second", "host")
PARTIES = {"guest": "guest", "guest-second": "guest", "host": "host"}


def container_file(service: str, path: str) -> Path:
    """What lies at a path inside a container, in this tree."""
    for mount in SERVICES[service]["volumes"]:
        source, target, *_ = mount.split(":")
        if path == target or path.startswith(f"{target}/"):
            return ROOT / source / path.removeprefix(target).lstrip("/")
    raise AssertionError(f"{service} has nothing at {path}")


def settings_of(service: str) -> Settings:
    return load(container_file(service, "/etc/tessera/serving.toml"), {})


def test_every_file_that_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], mount


@pytest.mark.parametrize("name", NODES)
def test_a_nodes_settings_fit_its_surroundings(name: str) -> None:
    settings, service = settings_of(name), SERVICES[name]
    assert settings.party == PARTIES[name]
    assert service.get("hostname", name) == name
    assert not settings.insecure
    assert service["user"] == "10001"
    volumes = [mount.split(":")[1] for mount in service["volumes"]]
    for path in (settings.state_dir, settings.registry, settings.tls["default"].key):
        assert any(path.startswith(f"{volume}/") for volume in volumes), path
    for source in settings.features.values():
        assert container_file(name, source.path).is_file()
    for party, peer in settings.peers.items():
        if peer.address:
            host, _, port = peer.address.partition(":")
            assert host == party
            assert settings_of(party).ports.party.endswith(f":{port}")
    for published in service.get("ports", ()):
        address, _, inside = published.rpartition(":")
        assert address.startswith("127.0.0.1:")
        assert inside in {one.rpartition(":")[2] for one in (settings.ports.service, settings.ports.http)}
    grace_s = int(service["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.limits.drain_s + 5


def test_certificates_are_made_for_every_node_before_it_starts() -> None:
    command = SERVICES["certificates"]["command"]
    names = {word.partition("=")[0]: word.partition("=")[2].split(",") for word in command if "=" in word}
    for name, party in PARTIES.items():
        assert name in names[party]
        assert f"{party}-keys" in SERVICES[name]["depends_on"]


def mounted(service: str) -> dict[str, str]:
    """What lies where in a container."""
    return {target: source for source, target, *_ in (one.split(":") for one in SERVICES[service]["volumes"])}


def test_nobody_but_the_authority_has_its_key_or_anothers() -> None:
    holders = {name: mounted(name).get("/certificates") for name in SERVICES if "volumes" in SERVICES[name]}
    assert [name for name, volume in holders.items() if volume == "authority"] == ["certificates"]
    for name in ("prometheus", *NODES):
        assert holders[name] == f"{PARTIES.get(name, name)}-keys"
        assert "authority" not in mounted(name).values()


def options_of(service: str) -> dict[str, str]:
    """Of a Redis server."""
    program, *words = SERVICES[service]["command"]
    assert program == "redis-server"
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def test_replicas_share_what_they_must_and_nothing_else() -> None:
    replicas = [name for name, party in PARTIES.items() if party == "guest"]
    settings = settings_of("guest")
    server = settings.control.url.removeprefix("redis://").partition(":")[0]
    kept = {name: value for name, value in options_of(server).items() if name != "maxmemory"}
    assert kept == {**DURABLE, "save": ""}
    assert SERVICES[server]["volumes"] == ["control:/data"]
    assert settings.cache.url.removeprefix("redis://").partition(":")[0] != server
    states = set()
    for name in replicas:
        assert server in SERVICES[name]["depends_on"]
        volumes = mounted(name)
        assert volumes[settings.registry] == "guest-registry"
        states.add(volumes[str(Path(settings.state_dir).parent)])
    assert len(states) == len(replicas)
    assert settings.cache.secret_file in " ".join(SERVICES["guest-keys"]["command"])


def test_prometheus_scrapes_the_http_ports() -> None:
    jobs = yaml.safe_load(container_file("prometheus", "/etc/prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    wanted: dict[str, list[str]] = {}
    for name, party in PARTIES.items():
        wanted.setdefault(party, []).append(f"{name}:{settings_of(name).ports.http.rpartition(':')[2]}")
    assert targets == wanted
    assert all(job["scheme"] == "https" for job in jobs)


def test_the_image_has_no_root_and_starts_what_the_project_installs() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER 10001"
    assert 'ENTRYPOINT ["tessera"]' in lines
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
    health = next(line for line in lines if "HEALTHCHECK" in line)
    assert json.loads(health.partition("CMD ")[2])[:2] == ["tessera", "ready"]


class Containers:
    """All nodes as processes, with the settings of their containers but for addresses and folders."""

    def __init__(self, folder: Path, control_url: str) -> None:
        self.folder = folder
        self.control_url = control_url
        self.authority = folder / "authority"
        self.ports = {name: {port: free_port() for port in ("service", "party", "admin", "http")} for name in NODES}
        self.processes: list[subprocess.Popen[bytes]] = []

    def keys(self, holder: str) -> Path:
        return self.folder / "keys" / holder

    def make_keys(self, holder: str) -> None:
        """As the service that does it."""
        self.keys(holder).mkdir(parents=True)
        service, folders = (
            SERVICES[f"{holder}-keys"],
            {"/authority": self.authority, "/certificates": self.keys(holder)},
        )
        [script] = service["command"]
        for inside, folder in folders.items():
            script = script.replace(inside, str(folder))
        subprocess.run([*service["entrypoint"], script], check=True)

    def environment(self, name: str) -> dict[str, str]:
        party = PARTIES[name]
        keys = self.keys(party)
        changes = {
            "REPLICA": name,
            "STATE_DIR": str(self.folder / name / "state"),
            "REGISTRY": str(self.folder / party / "registry"),
            "TLS__DEFAULT__CERTIFICATE": str(keys / f"{party}.pem"),
            "TLS__DEFAULT__KEY": str(keys / f"{party}.key"),
            "TLS__DEFAULT__AUTHORITY": str(keys / "ca.pem"),
            **{f"PORTS__{port.upper()}": f"127.0.0.1:{number}" for port, number in self.ports[name].items()},
        }
        if party == "guest":
            changes |= {
                "PEERS__HOST__ADDRESS": f"127.0.0.1:{self.ports['host']['party']}",
                "CACHE__URL": "",
                "CACHE__EMBEDDED": "false",
                "CACHE__SECRET_FILE": str(keys / "guest.secret"),
                "CONTROL__URL": self.control_url,
            }
        else:
            changes["FEATURES__DEFAULT__PATH"] = str(container_file("host", "/etc/tessera/users.csv"))
        own = {f"TESSERA_{key}": value for key, value in changes.items()}
        return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto", **own}

    def tessera(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "serving", *words]
        return subprocess.run(
            command, env=self.environment(name), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    def start(self, name: str) -> None:
        config = str(container_file(name, "/etc/tessera/serving.toml"))
        command = [sys.executable, "-P", "-m", "serving", "serve", "--config", config]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(command, env=self.environment(name), cwd=ROOT, stdout=log, stderr=log)
            )


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    (tmp_path / "control").mkdir()
    with redis_server(tmp_path / "control", **options_of("control")) as url:
        made = Containers(tmp_path, url)
        yield made
        for process in made.processes:
            process.terminate()
            process.wait(20)


def test_the_nodes_of_the_containers_answer_together(containers: Containers) -> None:
    command = [word.replace("/certificates", str(containers.authority)) for word in SERVICES["certificates"]["command"]]
    assert containers.tessera("guest", *command).returncode == 0
    for holder in ("guest", "host", "prometheus"):
        containers.make_keys(holder)
    make_bound_pair(
        containers.folder / "guest" / "registry",
        containers.folder / "host" / "registry",
        model="m",
        version="1",
        guest="guest",
        host="host",
        guest_weights={"a": 1.0},
        host_weights={"x": 1.0, "y": -0.5},
        intercept=0.0,
    )
    config = ("--config", str(container_file("guest", "/etc/tessera/serving.toml")))
    assert containers.tessera("guest", "ready", *config).returncode == 1
    for name in NODES:
        containers.start(name)
    end = time.monotonic() + 30
    for name in NODES:
        probe = ("ready", "--config", str(container_file(name, "/etc/tessera/serving.toml")), "--timeout-s", "3")
        while containers.tessera(name, *probe).returncode:
            assert time.monotonic() < end, (containers.folder / f"{name}.log").read_text()
    for words in (("model", "load", "m", "1"), ("model", "online", "s", "m:1")):
        done = containers.tessera("guest", *words, *config)
        assert done.returncode == 0, done.stderr + done.stdout
    assert "2 of 2 READY" in containers.tessera("guest-second", "model", "list", *config).stdout

    credentials = ChannelCredentials(containers.keys("prometheus") / "ca.pem")

    async def ask(name: str) -> float:
        address = f"127.0.0.1:{containers.ports[name]['service']}"
        link = channel(Transport.NATIVE, address, ChannelOptions(credentials=credentials))
        try:
            request = inference_pb2.PredictRequest(service="s", user_id="0001", numbers={"a": 0.0})
            reply = await inference_pb2_grpc.InferenceStub(link.stub_channel).Predict(request, timeout=5)
            return float(reply.score[0])
        finally:
            await link.close()

    assert [asyncio.run(ask(name)) for name in ("guest", "guest-second")] == [0.5, 0.5]
