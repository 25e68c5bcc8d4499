"""Outcomes of real answers, over workers and a restart."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tessera.v1 import admin_pb2
from tests.artifacts import make_bound_pair
from tests.nodes import PartyNode

pytestmark = pytest.mark.usefixtures("untraced")

CASE = {"a": 0.25, "b": -1.5}


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def kill(node: PartyNode) -> None:
    """Without a chance to write anything."""
    assert node.process is not None
    children = psutil.Process(node.process.pid).children(recursive=True)
    node.process.kill()
    node.process.wait()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children)
    node.process = None


def figures(node: PartyNode) -> admin_pb2.VariantFigures:
    [found] = node.admin("Figures", admin_pb2.FiguresRequest(service="s")).variants
    return found


def feedback(node: PartyNode, *outcomes: tuple[bytes, float]) -> admin_pb2.FeedbackReply:
    told = [admin_pb2.Outcome(attribution=attribution, label=label) for attribution, label in outcomes]
    return node.admin("Feedback", admin_pb2.FeedbackRequest(outcomes=told))


def test_answers_of_all_workers_are_counted_once_also_after_a_kill(tmp_path: Path) -> None:
    host = PartyNode(
        tmp_path,
        "shop",
        "plaintext_caller = 'bank'\n"
        "peers.bank.may_load = ['*']\nfeatures.default = {kind = 'file', path = 'users.csv'}",
    )
    (host.folder / "users.csv").write_text("id,x,y\n" + "".join(f"u{n},{n / 10},0\n" for n in range(20)))
    guest = PartyNode(tmp_path, "bank", f"workers = 2\npeers.shop.address = '127.0.0.1:{host.party_port}'")
    weights = {"guest_weights": {"a": 0.5, "b": -0.25}, "host_weights": {"x": 1.0, "y": 2.0}, "intercept": 0.125}
    make_bound_pair(guest.registry, host.registry, model="m", version="1", guest="bank", host="shop", **weights)
    try:
        host.start()
        guest.start()
        guest.load("m", "1")
        guest.online("s", "m", "1")
        replies = [
            guest.predict(service="s", user_id=f"u{n}", case_id=f"c{n}", numbers=CASE) for n in (*range(20), 0, 1)
        ]
        sent = [(reply.attribution, float(n >= 10)) for n, reply in enumerate(replies[:20])]
        assert len({attribution for attribution, _ in sent}) == 20
        assert feedback(guest, *sent[:15]).accepted == 15
        until(lambda: figures(guest).answers >= 20)  # what waits in the other worker's memory dies with it
        kill(guest)
        guest.start()
        again = feedback(guest, *sent)
        assert (again.accepted, again.known, list(again.refused)) == (5, 15, [])
        found = figures(guest)
        # A repetition counts once for each worker that did not have it in its own memory.
        assert 20 <= found.answers <= 22
        assert (found.positives, found.negatives, found.auc) == (10, 10, 1.0)
        shown = httpx.get(f"http://{guest.address('http')}/metrics").text
        assert re.search(r'^tessera_variant_auc{[^}]*variant="m:1"[^}]*} 1.0$', shown, re.MULTILINE)
        assert not feedback(host, *sent[:1]).accepted
    finally:
        guest.stop()
        host.stop()
