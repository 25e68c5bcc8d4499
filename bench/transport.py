"""Echo of 300 bytes, unary: grpc.aio on uvloop against the native transport, servers in turn, load from our own client.

The server runs in a child process; requests per second and the server's CPU seconds per 1 000 calls are reported.
Run with `python -m bench.transport`; writes bench/results/transport.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import psutil
import uvloop

from serving.transport import Call, ChannelOptions, Transport, channel, server

ECHO = "/bench.Echo/Echo"
BODY = os.urandom(300)
SHAPES = ((1, 1), (32, 1), (8, 8), (4, 32))
RESULTS = Path(__file__).parent / "results" / "transport.json"


def echo(payload: bytes, call: Call) -> bytes:
    return payload


async def serve(kind: Transport) -> None:
    made = server(kind)
    made.add_bytes_handler(ECHO, echo)
    port = made.add_port("127.0.0.1:0")
    await made.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent is gone
    await made.stop(0)


async def load(port: int, connections: int, streams: int, seconds: float, varying: bool) -> tuple[list[float], float]:
    """Latencies in seconds of all answered calls, and the time they took."""
    channels = [channel(Transport.NATIVE, f"127.0.0.1:{port}", ChannelOptions()) for _ in range(connections)]
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        client = channels[number % connections]
        while (begun := time.perf_counter()) < end:
            metadata = (("traceparent", f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"),) if varying else ()
            reply = await client.unary(ECHO, BODY, 5 + begun % 1 if varying else None, metadata)
            if reply != BODY:
                raise ValueError("a reply differs from its request")
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(connections * streams)))
    took_s = time.perf_counter() - begun
    for client in channels:
        await client.close()
    return latencies, took_s


@contextlib.contextmanager
def child(kind: Transport):
    command = [sys.executable, "-m", "bench.transport", "--serve", kind.value]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield psutil.Process(process.pid), int(process.stdout.readline())
    finally:
        process.communicate(timeout=10)


def h2load(port: int, connections: int, streams: int, seconds: float) -> float | None:
    """Requests per second as h2load counts them, with identical headers; None where it is not installed."""
    body = Path("/dev/shm/bench-transport.body")  # noqa: S108 - a fixed body of our own
    body.write_bytes(b"\x00" + len(BODY).to_bytes(4, "big") + BODY)
    command = ["h2load", f"-c{connections}", f"-m{streams}", f"-D{seconds:.0f}", "-d", str(body), "-H", "te: trailers"]
    command += ["-H", "content-type: application/grpc", f"http://127.0.0.1:{port}{ECHO}"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        return None
    succeeded = int(re.search(r"(\d+) succeeded", printed)[1])
    replied_bytes = int(re.search(r"\((\d+)\) data", printed)[1])
    if not 0.98 < replied_bytes / (succeeded * (len(BODY) + 5)) < 1.02:  # h2load counts gRPC errors as success
        raise ValueError(f"{replied_bytes} bytes in {succeeded} replies")
    return float(re.search(r"([\d.]+) req/s", printed)[1])


def measure(process: psutil.Process, port: int, shape: tuple[int, int], seconds: float, varying: bool) -> dict:
    before = process.cpu_times()
    latencies, took_s = uvloop.run(load(port, *shape, seconds, varying))
    after = process.cpu_times()
    latencies.sort()
    cpu_s = after.user + after.system - before.user - before.system
    return {
        "connections": shape[0],
        "streams": shape[1],
        "headers": "varying" if varying else "identical",
        "requests_per_s": round(len(latencies) / took_s),
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 3),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1000, 3),
        "cpu_s_per_1000": round(cpu_s / len(latencies) * 1000, 4),
        "h2load_requests_per_s": None if varying else h2load(port, *shape, seconds),
    }


@click.command()
@click.option("--serve", "served", type=click.Choice([kind.value for kind in Transport]), hidden=True)
@click.option("--seconds", default=3.0, show_default=True, help="length of each measurement")
def main(served: str | None, seconds: float) -> None:
    if served:
        uvloop.run(serve(Transport(served)))
        return
    results: dict[str, list[dict]] = {}
    for kind in Transport:
        with child(kind) as (process, port):
            results[kind.value] = [
                measure(process, port, shape, seconds, varying) for shape in SHAPES for varying in (False, True)
            ]
    for reference, own in zip(results["grpcio"], results["native"], strict=True):
        loaded, by = own["h2load_requests_per_s"], reference["h2load_requests_per_s"]
        ratios = [own["requests_per_s"] / reference["requests_per_s"], loaded / by if loaded and by else float("nan")]
        ratios.append(reference["cpu_s_per_1000"] / own["cpu_s_per_1000"])
        shape = f"({own['connections']},{own['streams']}) {own['headers']}"
        click.echo(f"{shape:20} native {own['requests_per_s']:>7} grpcio {reference['requests_per_s']:>6} requests/s")
        click.echo("{:20} own client x{:.1f}, h2load x{:.1f}, server CPU per call /{:.1f}".format("", *ratios))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
