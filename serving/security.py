"""Who may listen where, and with which certificates."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from serving.settings import Role, Settings
from serving.transport import ChannelCredentials, ClientCertificates, ServerCredentials, Transport


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


def check_binds(settings: Settings) -> Iterator[tuple[str, str]]:
    """(key, reason) of every port that would let anyone on the network in, and every peer that could be anyone."""
    if settings.insecure:
        return
    for name, address in settings.ports.bound().items():
        if is_loopback(address):
            continue
        if settings.tls_of(name) is None:
            reason = "is reachable from other machines without TLS; set tls, bind 127.0.0.1 or set insecure = true"
            yield f"ports.{name}", f"{address} {reason}"
        elif name == "admin" and not settings.principals:
            reason = "is reachable from other machines by everybody; name principals or bind 127.0.0.1"
            yield "ports.admin", f"{address} {reason}"
    if settings.tls_of("party") is not None:
        return
    for party, peer in settings.peers.items():
        for key, address in (("address", peer.address), ("hedge_address", peer.hedge_address)):
            if address and not is_loopback(address):
                reason = "is called without TLS; set tls.party or insecure = true"
                yield f"peers.{party}.{key}", f"{address} {reason}"


def check_tls(settings: Settings) -> Iterator[tuple[str, str]]:
    """(key, reason) of what does not fit together."""
    for name, tls in settings.tls.items():
        if bool(tls.certificate) != bool(tls.key):
            yield f"tls.{name}", "certificate and key come together"
        if tls.clients is not ClientCertificates.NONE and not tls.authority:
            yield f"tls.{name}.authority", "is missing; it signs the certificates that clients show"
        if tls.clients is ClientCertificates.OPTIONAL and settings.transport is not Transport.NATIVE:
            yield f"tls.{name}.clients", "'optional' needs transport = 'native'"
    party, name = settings.tls_of("party"), settings.ports.of("party")
    if settings.workers > 1 and settings.transport is not Transport.NATIVE:
        yield "workers", "several workers need transport = 'native', which lets them share ports"
    if party is not None and not party.authority:
        yield f"tls.{name}.authority", "is missing; it signs the other parties' certificates"
    if party is not None and settings.plaintext_caller:
        yield "plaintext_caller", f"has no use: the {name} port has TLS"


def check_single(settings: Settings) -> Iterator[tuple[str, str]]:
    """(key, reason) of what would make those who come to a single port look alike."""
    if not settings.ports.single:
        return
    if not any(one.role is Role.OPERATOR for one in settings.principals.values()):
        remedy = "name an operator in principals, `tessera token NAME --role operator` makes one"
        yield "ports.single", f"tells operators from everybody else by their tokens: {remedy}"
    if settings.plaintext_caller:
        yield "plaintext_caller", "cannot be with ports.single: every caller would be that party; use certificates"
    tls = settings.tls_of("single")
    if settings.peers and tls is not None and tls.clients is ClientCertificates.NONE:
        reason = "must be 'optional' or 'required' with ports.single: other parties are known by their certificates"
        yield "tls.single.clients", reason
    for name in ("service", "party", "admin"):
        if name in settings.tls:
            yield f"tls.{name}", "has no use: ports.single serves all; set tls.single or tls.default"


def port_credentials(settings: Settings, port: str) -> ServerCredentials | None:
    """Of a port with TLS. Reads files. Raises CredentialsError."""
    tls = settings.tls_of(port)
    if tls is None:
        return None
    clients = ClientCertificates.REQUIRED if port == "party" else tls.clients
    authority = Path(tls.authority) if clients is not ClientCertificates.NONE else None
    protocol = "http/1.1" if port == "http" else "h2"
    return ServerCredentials(Path(tls.certificate), Path(tls.key), authority, clients, protocol)


def own_credentials(settings: Settings, port: str, server_name: str) -> ChannelCredentials | None:
    """For calls with this node's own certificate to a server that must be `server_name`: a party, or this node on
    `port`. Reads files. Raises CredentialsError."""
    tls = settings.tls_of(port)
    if tls is None:
        return None
    authority = Path(tls.authority) if tls.authority else None
    return ChannelCredentials(authority, Path(tls.certificate), Path(tls.key), server_name)
