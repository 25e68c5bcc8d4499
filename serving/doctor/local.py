"""What can be seen from the node's own machine: folders, models, ports, features. Nothing is changed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from apps.remote import kept_at
from apps.storage import AppSourceError, LocalFiles, read_app
from loaders.artifact import Artifact, ArtifactError, Manifest
from loaders.catalog import loader_for
from loaders.loader import LoadError
from loaders.registry import open_half
from serving import bindings, ports_file
from serving.cache.keys import SecretFileError, node_secret
from serving.control import State, WantedApp
from serving.doctor.finding import TIMEOUT_S, Finding, Findings, Level
from serving.features.catalog import make_source
from serving.features.source import FeatureSource, FeatureSourceError
from serving.peers.fallback import Fallbacks
from serving.pool import ModelId
from serving.security import split_address
from serving.settings import Settings
from serving.undeclared import undeclared


def folders(settings: Settings) -> Iterator[Finding]:
    registry, state_dir = settings.registry_folder, Path(settings.state_dir)
    if "://" in settings.registry:
        yield Finding(Level.OK, "registry", f"{settings.registry}, brought to {registry}")
    elif not registry.is_dir() or not os.access(registry, os.R_OK | os.X_OK):
        yield Finding(Level.ERROR, "registry", f"{registry} is no folder that can be read")
    else:
        yield Finding(Level.OK, "registry", str(registry))
    if not state_dir.is_dir():
        yield Finding(Level.WARNING, "state_dir", f"{state_dir} does not exist yet; the node makes it")
    elif not os.access(state_dir, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(Level.ERROR, "state_dir", f"{state_dir} cannot be written")
    else:
        yield Finding(Level.OK, "state_dir", str(state_dir))
    if settings.cache.secret_file:
        try:
            node_secret(settings.cache.secret_file, state_dir)
        except SecretFileError as error:
            yield Finding(Level.ERROR, "cache.secret_file", str(error))


async def models(settings: Settings, state: State, artifacts: dict[ModelId, Artifact]) -> Findings:
    """The halves that the node is to have loaded; those that are whole land in `artifacts`."""
    for model in sorted(bindings.wanted_models(state)):
        try:
            artifact = await asyncio.to_thread(
                open_half, settings.registry_folder, model.model, model.version, settings.party
            )
            await asyncio.to_thread(loader_for, artifact)
        except (ArtifactError, LoadError, OSError) as error:
            yield Finding(Level.ERROR, f"model {model}", str(error))
            continue
        artifacts[model] = artifact
        yield Finding(
            Level.OK, f"model {model}", f"binding {artifact.binding_digest[:16]}, role {artifact.manifest.role}"
        )


def fallbacks(settings: Settings, state: State, artifacts: Mapping[ModelId, Artifact]) -> Iterator[Finding]:
    def manifest_of(model: ModelId) -> Manifest | None:
        return artifacts[model].manifest if model in artifacts else None

    for service, text in undeclared(state, Fallbacks(settings.fallbacks), manifest_of):
        yield Finding(Level.WARNING, f"service {service}", text)


def apps(settings: Settings, state: State) -> Iterator[Finding]:
    """The apps that the node is to have loaded: whether they are there, unchanged and allowed. None of them is run."""
    for id_, wanted in sorted(bindings.wanted_apps(state).items()):
        problem = _app_problem(settings, wanted)
        yield Finding(Level.ERROR if problem else Level.OK, f"app {id_}", problem or f"digest {wanted.digest[:16]}")


def _app_problem(settings: Settings, wanted: WantedApp) -> str:
    """Of an app behind a URL what is kept here counts, as of a model."""
    if not settings.apps.root:
        return "apps.root is not set"
    root = Path(settings.apps.root)
    if "://" in settings.apps.root:
        root = kept_at(settings.apps_folder, wanted.name, wanted.version, wanted.digest)
        if not root.is_dir():
            return f"is not here yet; the node brings it from {settings.apps.root}"
    try:
        found = read_app(LocalFiles(root), wanted.name, wanted.version).digest
    except (AppSourceError, OSError) as error:
        return str(error)
    if found != wanted.digest:
        return f"has been changed: its digest is {found}, {wanted.digest} is wanted"
    return "" if found in settings.apps.allowed else f'its digest "{found}" is not in apps.allowed'


async def ports(settings: Settings) -> Findings:
    running = await asyncio.to_thread(ports_file.read, Path(settings.state_dir))
    for name, address in settings.ports.bound().items():
        subject = f"ports.{name}"
        if name in running:
            yield await _listening(subject, running[name])
        elif problem := _cannot_bind(address):
            yield Finding(Level.ERROR, subject, problem)
        else:
            yield Finding(Level.OK, subject, f"{address} is free; no node runs")


async def _listening(subject: str, address: str) -> Finding:
    host, port = split_address(address)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return Finding(Level.ERROR, subject, f"the node says it listens at {address}, and nothing answers there")
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return Finding(Level.OK, subject, f"{address} answers")


def _cannot_bind(address: str) -> str:
    host, port = split_address(address)
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return ""
    except OSError as error:
        return f"cannot bind {address}: {str(error.strerror).partition(' (while')[0]}"


async def features(settings: Settings, artifacts: Mapping[ModelId, Artifact]) -> Findings:
    for name, described in settings.features.items():
        subject = f"features.{name}"
        source: FeatureSource | None = None
        try:
            source = make_source(described)
            async with asyncio.timeout(TIMEOUT_S * 10):
                await source.open()
        except (FeatureSourceError, TimeoutError) as error:
            yield Finding(Level.ERROR, subject, str(error) or "did not open in time")
        else:
            yield Finding(Level.OK, subject, f"a source of kind {described.kind.value!r} opens")
        finally:
            if source is not None:
                await source.close()
    for model, artifact in artifacts.items():
        if artifact.manifest.role == "host" and not {model.model, "default"} & settings.features.keys():
            yield Finding(Level.ERROR, f"model {model}", f"has no features: set features.{model.model} or default")
