"""A host of several workers, asked by a guest that runs FATE-Serving and signs its packets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from serving.peers.fate import UNARY_CALL
from serving.peers.signing import sign
from serving.transport import Channel
from tessera.compat import fate_proxy_pb2 as proxy
from tests.fate_models import GUEST, HOSTS, Recipe, make
from tests.nodes import PartyNode

HOST = HOSTS[0]
LR = make(3, Recipe("lr", plain=True))


def test_a_signed_packet_counts_once_at_all_workers(tmp_path: Path) -> None:
    settings = (
        f"workers = 2\nplaintext_caller = '{GUEST}'\n[peers.{GUEST}]\n[features.default]\npath = 'users.csv'\n"
        f"[fate.keys.key]\nparty = '{GUEST}'\nsecret_file = 'secret'\n"
    )
    host = PartyNode(tmp_path, HOST, settings)
    (host.folder / "secret").write_text("shared")
    (host.folder / "users.csv").write_text("id,h00,h01,h02,h03,h04\nu1,1,2,3,4,5\n")
    name = FateName(f"host#{HOST}#m", "lr")
    store_half(host.registry, LR.parts[f"host:{HOST}"], name, Site("host", HOST, (HOST,), Mode.STRICT_OFFLINE), GUEST)
    packet = proxy.Packet(
        header=proxy.Metadata(
            task=proxy.Task(model=proxy.Model(namespace=name.namespace, tableName=name.table)),
            src=proxy.Topic(partyId=GUEST),
            dst=proxy.Topic(partyId=HOST),
            command=proxy.Command(name="federatedInference"),
            operator="216",
        ),
        body=proxy.Data(value=b'{"sendToRemoteFeatureData":{"id":"u1"}}'),
    )

    async def ask(link: Channel) -> Any:
        reply = await link.unary(UNARY_CALL, packet.SerializeToString(), 10.0)
        return json.loads(proxy.Packet.FromString(reply).body.value)["retcode"]

    host.start()
    try:
        host.load("m", "lr")
        sign(packet, "key", b"shared", time.time())
        assert sorted(host.call("party", ask) for _ in range(12)) == [0, *[629] * 11]
    finally:
        host.stop()
