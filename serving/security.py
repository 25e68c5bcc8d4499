"""Who may listen where, and who is calling."""

from __future__ import annotations

import ipaddress

import msgspec

from serving.errors import NotAllowedError
from serving.settings import Settings
from serving.transport import Call


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of `host:port`. Raises ValueError."""
    host, separator, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not separator or not host or (":" in host) != bracketed or set(host) & set(" /[]"):
        raise ValueError(f"{address!r} is not host:port")
    if bracketed:
        ipaddress.IPv6Address(host)
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{address!r} has no port from 0 to 65535")
    return host, int(port)


def is_loopback(address: str) -> bool:
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_binds(settings: Settings) -> list[tuple[str, str]]:
    """(key, reason) of every port that would let anyone on the network in without TLS."""
    if settings.insecure:
        return []
    ports = settings.ports
    reason = "is reachable from other machines without TLS; bind 127.0.0.1 or set insecure = true"
    return [
        (
            f"ports.{name}",
            f"{address} {reason}",
        )
        for name, address in msgspec.structs.asdict(ports).items()
        if not is_loopback(address)
    ]


def caller_name(call: Call) -> str:
    """Who calls on the service port, for limits: the first name of its certificate; "" without one."""
    identities = call.peer_identities()
    return identities[0] if identities else ""


def caller(call: Call, settings: Settings) -> str:
    """The party that calls on the party port: from its certificate, or the one configured for plaintext."""
    identities = call.peer_identities()
    if not identities:
        if settings.plaintext_caller:
            return settings.plaintext_caller
        raise NotAllowedError(f"party {settings.party} takes no calls without a certificate")
    for identity in identities:
        if identity in settings.peers:
            return identity
    raise NotAllowedError(f"the certificate names no party that {settings.party} knows")
