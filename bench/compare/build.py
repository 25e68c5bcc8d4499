"""Builds the C++ echo server, where a compiler and gRPC's C++ library are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE / "build"
BINARY = BUILD / "callback"
_PACKAGES = "apt-get install g++ pkg-config libgrpc++-dev protobuf-compiler protobuf-compiler-grpc"


class BuildError(RuntimeError):
    """The server cannot be built here. The message says what is missing."""


def callback_server() -> Path:
    """The binary, built when it is missing or older than its sources. Raises BuildError."""
    sources = (HERE / "callback.cc", HERE / "echo.proto")
    if BINARY.exists() and all(BINARY.stat().st_mtime > source.stat().st_mtime for source in sources):
        return BINARY
    plugin = shutil.which("grpc_cpp_plugin")
    missing = [name for name in ("g++", "pkg-config", "protoc", "grpc_cpp_plugin") if shutil.which(name) is None]
    if missing or plugin is None:
        raise BuildError(f"{', '.join(missing)} not found: {_PACKAGES}")
    BUILD.mkdir(exist_ok=True)
    outputs = (f"--cpp_out={BUILD}", f"--grpc_out={BUILD}", f"--plugin=protoc-gen-grpc={plugin}")
    _run("protoc", f"-I{HERE}", "-I/usr/include", *outputs, "echo.proto")
    flags = _run("pkg-config", "--cflags", "--libs", "grpc++", "protobuf").split()
    generated = (str(BUILD / "echo.pb.cc"), str(BUILD / "echo.grpc.pb.cc"))
    _run("g++", "-O2", "-std=c++17", f"-I{BUILD}", str(HERE / "callback.cc"), *generated, "-o", str(BINARY), *flags)
    return BINARY


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise BuildError(f"{command[0]} failed: {last} ({_PACKAGES})")
    return done.stdout
