"""A worker, without its supervisor, that dies where a test has left a mark in its state folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from serving import worker
from serving.assembly import assemble
from serving.settings_file import load
from tests.dying import die_where_marked

if __name__ == "__main__":
    config = Path(sys.argv[1])
    die_where_marked(Path(load(config, os.environ).state_dir).resolve())
    sys.exit(worker.run(config, assemble))
