"""A worker, without its supervisor, that dies where a test has left a mark in its state folder."""

from __future__ import annotations

import os
from pathlib import Path

import polars  # noqa: F401 - of which no process after the first has to wait

from serving import worker
from serving.assembly import assemble
from serving.settings_file import load
from tests.dying import die_where_marked


def main(config: str) -> int:
    die_where_marked(Path(load(Path(config), os.environ).state_dir).resolve())
    return worker.run(Path(config), assemble)
