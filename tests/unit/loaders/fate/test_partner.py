"""What a host's half writes for FATE-Serving, the guest's half of the same model reads back, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loaders.artifact import Artifact
from loaders.catalog import load_servable, loader_for
from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from loaders.fate.partner import PartnerError, partner_half, payload_reader
from loaders.registry import open_half
from loaders.signature import Batch, Signature
from tests.fate_models import GUEST, HOSTS, FateModel, Recipe, make

ROWS = 7
RECIPES = {
    "lr": Recipe("lr"),
    "linr": Recipe("linr"),
    "poisson": Recipe("poisson"),
    "scorecard": Recipe("scorecard"),
    "fm": Recipe("fm"),
    "trees": Recipe("trees"),
    "layered": Recipe("trees", strategy="layered"),
    "classes": Recipe("trees", classes=3),
    "regression": Recipe("trees", classes=0, zero_as_missing=True),
    "lr of two hosts": Recipe("lr", hosts=2),
    "trees of two hosts": Recipe("trees", hosts=2),
}


def halves(root: Path, model: FateModel) -> dict[str, Artifact]:
    stored = {}
    for role, party in (("guest", GUEST), *(("host", host) for host in model.hosts)):
        site = Site(role, party, model.hosts, Mode.STRICT_OFFLINE)
        store_half(root / party, model.parts[site.name], FateName(f"{role}#{party}#m", "1"), site, GUEST)
        stored[party] = open_half(root / party, "m", "1", party)
    return stored


def batch(signature: Signature, seed: int) -> Batch:
    source = np.random.default_rng(seed)
    numbers = source.uniform(-2, 2, (ROWS, len(signature.numbers))).round(1)
    return Batch(numbers, np.full((ROWS, len(signature.texts)), "red", dtype=np.object_))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", list(RECIPES))
def test_what_a_host_writes_its_guest_reads(tmp_path: Path, kind: str, seed: int) -> None:
    model = make(seed, RECIPES[kind])
    stored = halves(tmp_path, model)
    guest = load_servable(loader_for(stored[GUEST]))
    for place, host in enumerate(model.hosts):
        servable = load_servable(loader_for(stored[host]))
        values = servable.predict(batch(servable.signature, seed))[servable.signature.outputs[0].name]
        half, reader = partner_half(stored[host]), payload_reader(stored[GUEST], host)
        assert reader.spec == guest.wanted(place)
        sent = json.loads(json.dumps([{half.component: payload} for payload in half.payloads(values)]))
        read = np.concatenate([reader.partial(row) for row in sent])
        assert read.dtype == values.dtype
        assert read.tolist() == values.tolist()
        flat = [{**one[half.component], "retcode": 0} for one in sent]
        assert np.concatenate([reader.partial(row) for row in flat]).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("recipe", "text"),
    [(Recipe("ovr", classes=3, plain=True), "one-vs-rest"), (Recipe("trees", strategy="mix", plain=True), "alone")],
)
def test_what_the_protocol_has_no_words_for_is_refused_on_both_sides(tmp_path: Path, recipe: Recipe, text: str) -> None:
    stored = halves(tmp_path, make(5, recipe))
    with pytest.raises(PartnerError, match=text):
        partner_half(stored[HOSTS[0]])
    with pytest.raises(PartnerError, match=text):
        payload_reader(stored[GUEST], HOSTS[0])


def test_payloads_that_lack_something_are_told_from_good_ones(tmp_path: Path) -> None:
    reader = payload_reader(halves(tmp_path, make(4, Recipe("trees", plain=True)))[GUEST], HOSTS[0])
    good = {branch.tree: dict.fromkeys(branch.nodes, True) for branch in reader.branches}
    assert reader.partial({reader.component: good}).any()
    first = next(branch for branch in reader.branches if branch.nodes)
    without_tree = {tree: nodes for tree, nodes in good.items() if tree != first.tree}
    numbered = {**good, first.tree: dict.fromkeys(first.nodes, 1)}
    for payload in (None, 7, [], {}, without_tree, {**good, first.tree: {}}, {**good, first.tree: None}, numbered):
        for answered in ({reader.component: payload}, payload if isinstance(payload, dict) else {}):
            with pytest.raises(PartnerError, match="directions"):
                reader.partial(answered)
