"""The comparison of servers: a short run of it, and that it does not believe what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.transport.certificates import Certificate, make_certificate
from bench.transport.contenders import METHOD, Contender, Kind, apart, started
from bench.transport.h2load import H2load, H2loadError
from bench.transport.rounds import WrongReplyError, verify
from serving.transport import Transport, server
from tests.nodes import free_port

pytestmark = pytest.mark.usefixtures("untraced")

ROOT = Path(__file__).resolve().parents[3]
needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="apt-get install nghttp2-client")


def test_a_quick_run_writes_figures_and_tables(tmp_path: Path) -> None:
    output = tmp_path / "transport.json"
    servers = ("--server", "grpc_aio", "--server", "native")
    command = [sys.executable, "-m", "bench.transport", "--quick", *servers, "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    kinds = {(figure["kind"], figure["cell"]["headers"]) for figure in report["figures"]}
    assert len(kinds) == 6
    assert all(figure["requests_per_s"] > 100 and figure["cpu_s_per_1000"] > 0 for figure in report["figures"])
    assert {figure["kind"] for figure in report["idle"]} == {"grpc.aio", "native"}
    assert "CPU s per 1 000" in done.stdout
    assert "native : grpc.aio at (4, 32)" in done.stdout


@pytest.mark.parametrize("kind", [Kind.NATIVE, Kind.NATIVE_MESSAGE, Kind.GRPC_AIO_TLS], ids=lambda kind: kind.name)
def test_a_contender_echoes(kind: Kind, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with started(kind, certificate, apart()) as contender:
        verify(contender, certificate)
        assert contender.rss_bytes() > 1 << 20


async def deaf(payload: bytes, call: object) -> bytes:
    return payload[:-1]


async def test_a_server_that_does_not_echo_is_found_out(tmp_path: Path) -> None:
    made = server(Transport.NATIVE)
    made.add_bytes_handler(METHOD, deaf)
    contender = Contender(Kind.NATIVE, made.add_port("127.0.0.1:0"), psutil.Process(), apart(), Certificate(tmp_path))
    await made.start()
    try:
        with pytest.raises(WrongReplyError):
            await asyncio.to_thread(verify, contender, make_certificate(tmp_path))
    finally:
        await made.stop(0)


@needs_h2load
async def test_grpc_errors_are_no_success_though_h2load_counts_them(tmp_path: Path) -> None:
    made = server(Transport.NATIVE)
    port = made.add_port("127.0.0.1:0")  # and serves nothing: UNIMPLEMENTED is a HTTP 200
    await made.start()
    try:
        source = H2load(f"http://127.0.0.1:{port}{METHOD}", bytes(300), (), ())
        with pytest.raises(H2loadError):
            await asyncio.to_thread(source.run, 1, 1, 0.2, 0.0)
    finally:
        await made.stop(0)


@needs_h2load
def test_no_server_is_an_error() -> None:
    with pytest.raises((H2loadError, subprocess.CalledProcessError)):
        H2load(f"http://127.0.0.1:{free_port()}{METHOD}", bytes(300), (), ()).run(1, 1, 0.2, 0.0)
