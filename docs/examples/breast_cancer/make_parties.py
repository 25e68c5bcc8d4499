"""Two parties out of the Wisconsin breast cancer data that ships inside scikit-learn.

The bank has the label and the ten "mean ..." columns, the shop the other twenty. Ids are texts; on either side 5 % are
missing, and the rows stand in another order.

    python make_parties.py FOLDER [GUEST_PORT HOST_PORT]
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from sklearn.datasets import load_breast_cancer

GUEST, HOST, MODEL = "bank", "shop", "tumour"
MISSING_BP = 500

JOB = {
    "roles": {"guest": GUEST, "hosts": [HOST]},
    "components": {
        "reader": {"module": "reader"},
        "psi": {"module": "psi", "input": {"data": "reader.data"}},
        "split": {"module": "split", "input": {"data": "psi.data"}},
        "scale": {"module": "scale", "input": {"train": "split.train", "test": "split.test"}},
        "lr": {"module": "hetero_lr", "input": {"train": "scale.train", "test": "scale.test"}},
        "evaluate": {"module": "evaluate", "input": {"data": "lr.prediction"}},
        "publish": {
            "module": "publish",
            "input": {"model": "lr.model", "scale": "scale.model", "figures": "evaluate.figures"},
        },
    },
    "parameters": {"common": {"reader": {"table": "patients"}, "publish": {"model": MODEL}}},
}


def make_parties(folder: Path, guest_port: int = 8710, host_port: int = 8711) -> None:
    """Write folder/job.json and, for each party, folder/{guest,host}/{table.csv,party.toml}."""
    data = load_breast_cancer()
    frame = pl.DataFrame(
        {
            "id": [f"P{row:06}" for row in range(1, len(data.target) + 1)],
            "malignant": [int(value == 0) for value in data.target],
            **dict(zip(map(str, data.feature_names), data.data.T.tolist(), strict=True)),
        }
    )
    own = [name for name in frame.columns if name.startswith("mean ")]
    others = [name for name in frame.columns if name not in ("id", "malignant", *own)]
    ports = {GUEST: guest_port, HOST: host_port}
    _write_party(folder / "guest", GUEST, ports, frame.select("id", "malignant", *own))
    _write_party(folder / "host", HOST, ports, frame.select("id", *others))
    (folder / "job.json").write_text(json.dumps(JOB, indent=2) + "\n")


def _write_party(folder: Path, party: str, ports: dict[str, int], frame: pl.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _some_rows(frame, party).write_csv(folder / "table.csv")
    peer = next(name for name in ports if name != party)
    label = '\nlabel_column = "malignant"' if "malignant" in frame.columns else ""
    (folder / "party.toml").write_text(
        f'''party = "{party}"
listen = "127.0.0.1:{ports[party]}"
registry = "registry"
work_dir = "jobs"

[tables.patients]
path = "table.csv"{label}

[peers.{peer}]
address = "127.0.0.1:{ports[peer]}"
consent = ["psi", "hetero_lr"]
'''
    )


def _some_rows(frame: pl.DataFrame, party: str) -> pl.DataFrame:
    """The party's rows in the party's order, the same every time."""
    numbers = _numbers(frame["id"].to_list(), party)
    shuffled = frame.with_columns(pl.Series("order", numbers)).filter(pl.col("order") % 10_000 >= MISSING_BP)
    return shuffled.sort("order").drop("order")


def _numbers(ids: Sequence[str], party: str) -> list[int]:
    return [int.from_bytes(hashlib.sha256(f"{party} {name}".encode()).digest()[:6], "big") for name in ids]


if __name__ == "__main__":
    make_parties(Path(sys.argv[1]), *map(int, sys.argv[2:]))
