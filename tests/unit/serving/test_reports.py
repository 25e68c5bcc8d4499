from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving.reports import REPORT_TTL_S, FileReports, ReplicaReport
from tests.clock import Clock

SAY = """
import sys, time
from pathlib import Path
from serving.reports import FileReports, ReplicaReport

reports = FileReports(Path(sys.argv[1]), time.time)
reports.report(ReplicaReport(replica="here", generation="1", revision=0))
print("said", flush=True)
sys.stdin.read()
"""


def generations(reports: FileReports) -> list[str]:
    return [report.generation for report in reports.reports()]


def test_what_is_left_behind_does_not_pile_up(tmp_path: Path) -> None:
    now = Clock()
    reports = FileReports(tmp_path, now)
    reports.report(ReplicaReport(replica="here", generation="1", revision=0))
    (tmp_path / "here@0.draft").write_bytes(b"{")
    os.utime(tmp_path / "here@0.draft", (now(), now()))
    now.tick(REPORT_TTL_S)
    assert generations(reports) == []
    now.tick(3_600)
    reports.report(ReplicaReport(replica="here", generation="2", revision=0))
    assert generations(reports) == ["2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here%402.alive", "here%402.json"]
    reports.withdraw(ReplicaReport(replica="here", generation="2", revision=0))
    assert list(tmp_path.iterdir()) == []
    reports.close()


def test_a_process_that_was_killed_counts_no_more_at_once(tmp_path: Path) -> None:
    reports = FileReports(tmp_path, lambda: (tmp_path / "here%401.json").stat().st_mtime)
    process = subprocess.Popen(
        [sys.executable, "-c", SAY, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "said\n"
        assert generations(reports) == ["1"]
        process.kill()
        process.wait()
        assert reports.reports() == []
        assert list(tmp_path.iterdir()) == []


def test_who_lives_counts_also_where_somebody_cleared_the_folder(tmp_path: Path) -> None:
    reports = FileReports(tmp_path / "replicas", lambda: 0.0)
    said = ReplicaReport(replica="here", generation="1", revision=0)
    reports.report(said)
    for path in (tmp_path / "replicas").iterdir():
        path.unlink()
    reports.report(said)
    assert generations(reports) == ["1"]
    reports.close()
