"""msgspec prepares a type at its first use; a thread that comes meanwhile sees it half-made: the process crashes."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from loaders.artifact import Manifest
from serving.control import State
from serving.reports import ReplicaModel, ReplicaReport
from tests.artifacts import linear_half
from tests.unit.serving.test_control import FULL

READ = """
import importlib, json, sys, threading, time

import msgspec

module, name = sys.argv[1:]
kind, document = getattr(importlib.import_module(module), name), json.load(sys.stdin)
sys.addaudithook(lambda *_: time.sleep(1e-4))  # what prepares a type takes its time
threads = [threading.Thread(target=msgspec.convert, args=(document, kind)) for _ in range(60)]
for thread in threads:
    thread.start()
    time.sleep(5e-4)
for thread in threads:
    thread.join()
"""
REPORT = ReplicaReport(replica="b/0", revision=1, models={"m/1": ReplicaModel("READY", "", "00ff")})
DOCUMENTS = {Manifest: linear_half("m", "1", "guest", "bank", {"x": 1.0}, 0.0)[0], State: FULL, ReplicaReport: REPORT}


@pytest.mark.parametrize("kind", DOCUMENTS, ids=lambda kind: kind.__name__)
def test_types_that_threads_read_are_prepared_before(kind: type[msgspec.Struct]) -> None:
    document = msgspec.json.encode(DOCUMENTS[kind])
    command = [sys.executable, "-c", READ, kind.__module__, kind.__name__]
    assert subprocess.run(command, input=document, check=False).returncode == 0
