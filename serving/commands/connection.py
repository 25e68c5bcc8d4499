"""How a command reaches a node: the options that say where, and one call with its errors put into words."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from serving.transport import ChannelCredentials, ChannelOptions, Code, CredentialsError, RpcError, Transport, channel

if TYPE_CHECKING:
    from serving.client import Case, Prediction

T = TypeVar("T")
Ask = Callable[[str, Any], Awaitable[Any]]
"""Calls a method of a stub by its name."""
TOKEN_VARIABLE = "TESSERA_CLIENT_TOKEN"  # noqa: S105 - the name of a variable, not a token
CONFIG_VARIABLE = "TESSERA_CONFIG"
CONFIG = Path("serving.toml")
"""The settings of the node that is meant, where they lie in the working folder and nothing else says which."""
_HINTS = {
    Code.NOT_FOUND: "`tessera model list` and `tessera service list` show what the node knows",
    Code.DEADLINE_EXCEEDED: "give it longer with --timeout-s",
    Code.UNIMPLEMENTED: "this node does not offer that; is this the right port?",
    Code.INTERNAL: "the node's log says why",
    Code.UNAUTHENTICATED: f"put a token into {TOKEN_VARIABLE}, or give --certificate and --key",
}


_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Place:
    """A node's port. `origin`: what says that it is this one."""

    address: str
    origin: str
    credentials: ChannelCredentials | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A node's port, and how the answer is wanted."""

    place: Place
    timeout_s: float
    as_json: bool
    token: str = ""

    def ask(self, stub: Callable[[Any], Any], method: str, request: Any) -> Any:
        """One call of a generated stub's method. Raises ClickException."""
        try:
            return asyncio.run(self._ask(stub, method, request))
        except RpcError as error:
            raise click.ClickException(self._explain(error)) from None

    def converse(self, stub: Callable[[Any], Any], talk: Callable[[Ask], Awaitable[T]]) -> T:
        """Several calls over one channel. Raises ClickException."""
        try:
            return asyncio.run(self._converse(stub, talk))
        except RpcError as error:
            raise click.ClickException(self._explain(error)) from None

    def predict(self, case: Case, **named: str) -> Prediction:
        """One case, with retries within the timeout. Raises ClickException."""
        try:
            return asyncio.run(self._predict(case, named))
        except RpcError as error:
            raise click.ClickException(self._explain(error)) from None

    async def _predict(self, case: Case, named: dict[str, str]) -> Prediction:
        from serving.client import Client  # noqa: PLC0415 - keeps `tessera --help` quick

        given = {"credentials": self.place.credentials, "token": self.token, "timeout_s": self.timeout_s}
        async with Client(self.place.address, **given) as client:  # type: ignore[arg-type]
            return await client.predict(case, **named)

    async def _ask(self, stub: Callable[[Any], Any], method: str, request: Any) -> Any:
        return await self._converse(stub, lambda ask: ask(method, request))

    async def _converse(self, stub: Callable[[Any], Any], talk: Callable[[Ask], Awaitable[T]]) -> T:
        link = channel(Transport.NATIVE, self.place.address, ChannelOptions(credentials=self.place.credentials))
        metadata = (("authorization", f"Bearer {self.token}"),) if self.token else ()

        async def ask(method: str, request: Any) -> Any:
            return await getattr(stub(link.stub_channel), method)(request, timeout=self.timeout_s, metadata=metadata)

        try:
            return await talk(ask)
        finally:
            await link.close()

    def _explain(self, error: RpcError) -> str:
        if error.code is Code.UNAVAILABLE and "failed to connect" in error.details:
            where = f"{self.place.address} ({self.place.origin})"
            return f"UNAVAILABLE: no node answers at {where}; {_remedy('FILE')}"
        hint = _HINTS.get(error.code)
        return f"{error.code.name}: {error.details or 'no reason given'}" + (f" ({hint})" if hint else "")


def connected(port: str, default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options that say which node, and passes a Connection to its `port` as the first argument."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--admin", "--target", "address", metavar="HOST:PORT", help=f"The {port} port.  [{default}]")
        @click.option("--config", type=_FILE, help=f"Settings of a local node.  [{CONFIG_VARIABLE}, {CONFIG}]")
        @click.option("--authority", type=_FILE, help="TLS: who signs the node's certificate, as PEM.")
        @click.option("--certificate", type=_FILE, help="TLS: the own certificate, as PEM.")
        @click.option("--key", type=_FILE, help="TLS: its key, as PEM.")
        @click.option("--timeout-s", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True)
        @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        @functools.wraps(command)
        def run(address: str | None, config: Path | None, timeout_s: float, as_json: bool, **rest: Any) -> None:
            if address and config:
                raise click.UsageError("give HOST:PORT or --config, not both")
            given = [rest.pop(name) for name in ("authority", "certificate", "key")]
            try:
                place = Place(address, "as --admin says") if address else _settled(config, port, default)
                if any(given):
                    place = replace(place, credentials=ChannelCredentials(*given))
            except CredentialsError as error:
                raise click.ClickException(str(error)) from None
            command(Connection(place, timeout_s, as_json, os.environ.get(TOKEN_VARIABLE, "")), **rest)

        return run

    return decorate


def _settled(config: Path | None, port: str, default: str) -> Place:
    """Where no address is given: the node of the settings that are named or lie here. Raises CredentialsError."""
    named = os.environ.get(CONFIG_VARIABLE, "")
    if config:
        return _from_settings(config, "as --config says", port)
    if named:
        return _from_settings(Path(named), f"as {CONFIG_VARIABLE} says", port)
    if CONFIG.is_file():
        return _on_this_machine(_from_settings(CONFIG, "found here", port))
    return Place(default, f"the default: no --config, no {CONFIG_VARIABLE}, no {CONFIG} here")


def _on_this_machine(place: Place) -> Place:
    """Nobody named the settings that lie here: they are not to say who gets the operator's token."""
    from serving.security import is_loopback  # noqa: PLC0415 - keeps `tessera --help` quick

    if not is_loopback(place.address):
        raise click.ClickException(
            f"{place.address} ({place.origin}) is not on loopback; say --config {CONFIG} or --admin HOST:PORT"
        )
    return place


def _remedy(config: Path | str) -> str:
    return f"start one with `tessera serve --config {config}`, or name another with --admin HOST:PORT"


def _from_settings(config: Path, origin: str, port: str) -> Place:
    """Where the node of these settings listens, and its own certificate, with which an operator on its machine calls.
    Raises CredentialsError."""
    from serving import ports_file, security, settings_file  # noqa: PLC0415 - keeps `tessera --help` quick

    try:
        settings = settings_file.load(config, os.environ)
    except settings_file.SettingsError as error:
        raise click.ClickException(f"{error}\n(the settings {origin}; --admin HOST:PORT needs none)") from None
    state_dir = Path(settings.state_dir)
    address = ports_file.read(state_dir).get(port)
    if address is None:
        raise click.ClickException(f"no node runs on {state_dir} ({config}, {origin}); {_remedy(config)}")
    return Place(address, f"of {config}, {origin}", security.own_credentials(settings, port, settings.party))
