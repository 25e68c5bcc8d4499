"""Signed packets, as FATE-Serving's proxies sign them: HMAC-SHA1 over timestamp, header and body, in base64.

Header and body count in the JSON form of protobuf, without blanks. What FATE-Serving lets pass is refused here: unknown
keys, timestamps of the future, keys of another party, and a packet that was seen before. What tells a packet apart is
its signature: the nonce is not signed, so whoever repeats a packet can change it; and it is the caller's case, which an
honest guest sends and signs anew when the case is asked for again.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from serving.errors import NotAllowedError
from serving.fate_settings import FateSettings
from tessera.compat import fate_proxy_pb2 as wire

MAX_SEEN = 300_000
"""Of one party at a time: 15 000 packets a second at the usual `expire_s`, and some 60 MB."""

Claim = Callable[[bytes, float], Awaitable[bool | None]]
"""Whether a key is claimed for the first time within so many seconds, by any replica; None when that cannot be told."""


_REPEATED = "the packet was sent before"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A party signs with `secret` and names it by the key's name."""

    party: str
    secret: bytes


def access_keys(settings: FateSettings) -> dict[str, AccessKey]:
    """Reads the secrets. Raises OSError, also for an empty one."""

    def secret(path: str) -> bytes:
        found = Path(path).read_bytes().strip()
        if not found:
            raise OSError(errno.EINVAL, "holds no secret", path)
        return found

    return {name: AccessKey(key.party, secret(key.secret_file)) for name, key in settings.keys.items()}


class Signatures:
    """`keys` by app key; `clock` is Unix seconds. A packet counts for `expire_s` before and after its timestamp.
    `claim`: what replicas, which a repeated packet may reach as well, remember together."""

    def __init__(
        self,
        keys: Mapping[str, AccessKey],
        expire_s: float,
        clock: Callable[[], float] = time.time,
        claim: Claim | None = None,
    ) -> None:
        self._claim = claim
        self._keys = keys
        self._expire_s = expire_s
        self._clock = clock
        self._seen = {key.party: OrderedDict[bytes, float]() for key in keys.values()}

    @property
    def are_asked_for(self) -> bool:
        """Whether a packet that is taken tells who signed it."""
        return bool(self._keys)

    async def take(self, packet: wire.Packet) -> None:
        """`check`, by all replicas: a packet of which they cannot be asked is refused. Raises NotAllowedError."""
        self.check(packet)
        if not self._keys or self._claim is None:
            return
        key = b"fate-packet:" + hashlib.sha256(packet.auth.signature.encode()).digest()
        first = await self._claim(key, 2 * self._expire_s)
        if not first:
            raise NotAllowedError(
                "it cannot be told now whether the packet was sent before" if first is None else _REPEATED
            )

    def check(self, packet: wire.Packet) -> None:
        """What this process can tell. Raises NotAllowedError; its text tells nothing that helps to forge. Without keys
        nothing is asked for."""
        if not self._keys:
            return
        key = self._keys.get(packet.auth.appKey)
        expected = signature_of(packet, key.secret if key else b"-")
        given = packet.auth.signature
        if not hmac.compare_digest(given.encode(), expected.encode()) or key is None:
            raise NotAllowedError("the packet has no valid signature")
        if key.party != packet.header.src.partyId:
            raise NotAllowedError("the packet is signed with another party's key")
        now_s = self._clock()
        if not abs(now_s - packet.auth.timestamp / 1_000) < self._expire_s:
            raise NotAllowedError("the packet's time is not now")
        self._remember(self._seen[key.party], given.encode(), now_s)

    def _remember(self, seen: OrderedDict[bytes, float], signature: bytes, now_s: float) -> None:
        """For as long as it could come again: its time may lie as far ahead as it may lie back."""
        while seen and next(iter(seen.values())) <= now_s:
            seen.popitem(last=False)
        if signature in seen:
            raise NotAllowedError(_REPEATED)
        if len(seen) >= MAX_SEEN:
            raise NotAllowedError("too many signed packets at once")
        seen[signature] = now_s + 2 * self._expire_s


def sign(packet: wire.Packet, app_key: str, secret: bytes, now_s: float) -> None:
    packet.auth.timestamp = int(1_000 * now_s)
    packet.auth.appKey = app_key
    packet.auth.signature = signature_of(packet, secret)


def signature_of(packet: wire.Packet, secret: bytes) -> str:
    lines = (str(packet.auth.timestamp), _one_line(packet.header), _one_line(packet.body))
    digest = hmac.new(secret, "\n".join(lines).encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def _one_line(message: Message) -> str:
    """As Java's JsonFormat prints it: names as in the file, no blanks, JSON's own escapes and those of line ends."""
    shown = MessageToDict(message, preserving_proto_field_name=True)
    text = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
