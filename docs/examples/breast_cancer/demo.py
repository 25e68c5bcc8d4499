"""The main job of Tessera on real data: two parties train, publish and serve one federated model.

`make demo` runs it. Everything lies in `demo-run/`, and every process listens on loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from make_parties import GUEST, HOST, MODEL, make_parties
from sklearn.metrics import roc_auc_score

from serving import transport
from tessera.v1 import inference_pb2 as wire
from tessera.v1 import inference_pb2_grpc
from training.tables import read_parquet

RUN = Path("demo-run")
TESSERA = str(Path(sys.executable).with_name("tessera"))
JOB, SERVICE = "1", "tumour-check"
LEVELS = {0: "computed", 1: "from L1", 2: "from L2", 3: "from L3"}
START_S = 30.0


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def tessera(*arguments: str) -> None:
    """Run a command of the public command line, as an operator would."""
    print("$ tessera " + " ".join(arguments), flush=True)
    if subprocess.run([TESSERA, *arguments], check=False).returncode:
        sys.exit("the demo stops: the command above failed")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def train() -> None:
    """Both parties run the same command, each with its own files; only the guest's output is shown."""
    commands = {
        party: [
            TESSERA,
            "train",
            "run",
            str(RUN / "job.json"),
            "--job",
            JOB,
            "--party",
            str(RUN / party / "party.toml"),
        ]
        for party in ("guest", "host")
    }
    print("$ " + " ".join(["tessera", *commands["guest"][1:]]) + "      (and the same at the host)", flush=True)
    with (RUN / "host" / "train.out").open("wb") as out:
        host = subprocess.Popen(commands["host"], stdout=out, stderr=out)
        guest = subprocess.run(commands["guest"], check=False)
        if guest.returncode or host.wait():
            sys.exit(f"training failed; the lines above and {RUN}/host/train.out say why")


def write_settings(party_port: int) -> None:
    """The settings of both serving nodes. Only the party port is fixed; the rest is told in state/ports.json."""
    ports = "[ports]\nservice = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\nhttp = '127.0.0.1:0'\nparty = '127.0.0.1:{}'\n"
    (RUN / "guest" / "serving.toml").write_text(
        f"party = '{GUEST}'\nstate_dir = 'state'\nregistry = 'registry'\n{ports.format(0)}"
        f"[peers.{HOST}]\naddress = '127.0.0.1:{party_port}'\n"
    )
    (RUN / "host" / "serving.toml").write_text(
        f"party = '{HOST}'\nstate_dir = 'state'\nregistry = 'registry'\nplaintext_caller = '{GUEST}'\n"
        f"{ports.format(party_port)}[peers.{GUEST}]\nmay_load = ['{MODEL}']\n"
        "[features.default]\npath = 'table.csv'\n"
    )


@dataclass
class Node:
    """A party's serving node: its supervisor process and where its service port is."""

    party: str
    process: subprocess.Popen[bytes]
    service: str

    @classmethod
    def start(cls, party: str) -> Node:
        folder = RUN / party
        ports = folder / "state" / "ports.json"
        command = [TESSERA, "serve", "--config", str(folder / "serving.toml")]
        print("$ " + " ".join(["tessera", *command[1:]]), flush=True)
        with (folder / "serving.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_S
        while not ports.exists():
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"the {party} did not start; {folder}/serving.log says why")
            time.sleep(0.05)
        return cls(party, process, json.loads(ports.read_text())["service"])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(START_S)


@contextlib.contextmanager
def both_nodes(keep: bool) -> Iterator[dict[str, Node]]:
    """The nodes of both parties; stopped at the end, unless kept and everything went well."""
    nodes: dict[str, Node] = {}
    try:
        for party in ("host", "guest"):
            nodes[party] = Node.start(party)
        yield nodes
    except BaseException:
        keep = False
        raise
    finally:
        for node in reversed(nodes.values()) if not keep else ():
            node.stop()


@dataclass(frozen=True)
class HeldOut:
    """A row that training never saw: the guest's features, the true label, the score that training computed."""

    user_id: str
    features: dict[str, float]
    label: float
    offline: float


def held_out_rows() -> list[HeldOut]:
    predicted = read_parquet(RUN / "guest" / "jobs" / JOB / "tasks" / "lr" / "prediction" / "table.parquet")
    raw = {row.pop("id"): row for row in pl.read_csv(RUN / "guest" / "table.csv").to_dicts()}
    return [
        HeldOut(user_id, raw[user_id], label=raw[user_id].pop("malignant"), offline=score)
        for user_id, score in zip(predicted.ids, predicted.features[:, 0].tolist(), strict=True)
    ]


async def ask(address: str, rows: Sequence[HeldOut], cases: str) -> list[wire.PredictReply]:
    """One real Predict call per row."""
    channel = transport.channel(transport.Transport.GRPCIO, address)
    stub = inference_pb2_grpc.InferenceStub(channel.stub_channel)
    try:
        return [
            await stub.Predict(
                wire.PredictRequest(
                    service=SERVICE, case_id=f"{cases}-{row.user_id}", user_id=row.user_id, numbers=row.features
                ),
                timeout=5,
            )
            for row in rows
        ]
    finally:
        await channel.close()


def show_scores(rows: Sequence[HeldOut], replies: Sequence[wire.PredictReply]) -> None:
    print(f"{'user':10}{'label':>8}{'online':>16}{'offline':>16}")
    for row, reply in list(zip(rows, replies, strict=True))[:8]:
        print(f"{row.user_id:10}{row.label:8.0f}{reply.score[0]:16.12f}{row.offline:16.12f}")
    labels = [row.label for row in rows]
    offline = roc_auc_score(labels, [row.offline for row in rows])
    online = roc_auc_score(labels, [reply.score[0] for reply in replies])
    worst = max(abs(reply.score[0] - row.offline) for row, reply in zip(rows, replies, strict=True))
    print(f"... {len(rows)} rows. AUC offline {offline:.6f}, online {online:.6f}; largest difference {worst:.1e}")
    if offline != online or worst > 1e-9:
        sys.exit("the demo stops: online scores are not the offline scores")


def show_level(what: str, reply: wire.PredictReply, expected: int) -> None:
    level = max(reply.cache, *(party.level for party in reply.parties))
    print(f"{what:52} {LEVELS[level]}")
    if level != expected:
        sys.exit(f"the demo stops: expected this answer {LEVELS[expected]}")


def show_caches(nodes: dict[str, Node], row: HeldOut) -> None:
    def one(cases: str) -> wire.PredictReply:
        return asyncio.run(ask(nodes["guest"].service, [row], cases))[0]

    show_level("the same case again", one("first"), 1)
    show_level("a new case of the same user", one("second"), 2)
    nodes["guest"].stop()
    nodes["guest"] = Node.start("guest")
    wait_until_ready(nodes["guest"], row)
    show_level("a new case after a restart of the guest", one("third"), 3)


def wait_until_ready(node: Node, row: HeldOut) -> None:
    """The ports open before the models are loaded; `tessera predict` tells when they are."""
    end = time.monotonic() + START_S
    config = str(RUN / node.party / "serving.toml")
    while not any(model["state"] == "READY" for model in listed(config)):
        if time.monotonic() > end:
            sys.exit(f"the {node.party} did not become ready; {RUN}/{node.party}/serving.log says why")


def listed(config: str) -> list[dict[str, str]]:
    command = [TESSERA, "model", "list", "--json", "--config", config]
    done = subprocess.run(command, capture_output=True, check=False)
    return json.loads(done.stdout)["models"] if done.returncode == 0 else []


def show_how_to_go_on(row: HeldOut, nodes: dict[str, Node]) -> None:
    case = RUN / "case.json"
    case.write_text(json.dumps(row.features, indent=2))
    say("The nodes keep running. Try:")
    config = f"--config {RUN}/guest/serving.toml"
    print(f"  .venv/bin/tessera predict --service {SERVICE} --user-id {row.user_id} --features {case} {config}")
    print(f"  .venv/bin/tessera model list {config}")
    print(f"  .venv/bin/tessera service list {config}")
    print(f"and to stop them: kill {' '.join(str(node.process.pid) for node in nodes.values())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the nodes running")
    keep = parser.parse_args().keep
    shutil.rmtree(RUN, ignore_errors=True)

    say("1. Two parties, each with a folder of its own: the bank has the label and 10 columns, the shop 20 others")
    guest_port, host_port, party_port = free_ports(3)
    make_parties(RUN, guest_port, host_port)
    write_settings(party_port)
    print(f"{RUN}/guest/table.csv and {RUN}/host/table.csv: other rows missing on each side, in another order")

    say("2. They train together over gRPC: intersection, scaling, logistic regression under encryption, evaluation")
    train()
    rows = held_out_rows()

    say("3. Each party has its half of the model in its own registry, bound to the other by digest")
    for half in sorted(RUN.glob(f"*/registry/{MODEL}/{JOB}/*")):
        print(half)

    say("4. Both parties serve. The guest loads the version everywhere, then puts it online")
    with both_nodes(keep) as nodes:
        tessera("model", "load", MODEL, JOB, "--config", str(RUN / "guest" / "serving.toml"))
        tessera("model", "online", SERVICE, f"{MODEL}:{JOB}", "--config", str(RUN / "guest" / "serving.toml"))

        say("5. Predict calls for rows that training never saw: the guest's features, the host asked by user id")
        show_scores(rows, asyncio.run(ask(nodes["guest"].service, rows, "first")))
        print()
        show_caches(nodes, rows[0])
        if keep:
            show_how_to_go_on(rows[0], nodes)
    if not keep:
        say("6. Everything is shut down")


if __name__ == "__main__":
    main()
