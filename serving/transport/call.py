"""gRPC on a stream (grpc/doc/PROTOCOL-HTTP2.md): heads, metadata, message framing, compression, deadlines, status."""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from serving.transport.hpack import Field, encode
from serving.transport.inflation import Squeezed
from serving.transport.status import Code, Metadata, RpcError, too_large

_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT_NAME = b"\x00\x0cgrpc-timeout"
_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}
_RESERVED = frozenset((b"content-type", b"te", b"grpc-timeout", b"grpc-encoding",
    b"grpc-accept-encoding", b"grpc-message", b"grpc-status"))  # fmt: skip
_KEY = re.compile(r"[0-9a-z_.-]+")
_CONNECTION_FIELDS = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_REQUIRED = frozenset((b":method", b":scheme", b":path"))
_ALLOWED = _REQUIRED | {b":authority"}
_ENCODINGS = (b"identity", b"gzip")
_DECISIVE = _ALLOWED | {b":status", b"content-type", b"grpc-encoding", b"grpc-status", b"te"}
_GOOD_NAME = re.compile(rb":?[^\x00-\x20A-Z:\x7f-\xff]+")
_LONGEST_LENGTH = 18
_LINE_FEED, _RETURN = b"\n\r"  # numbers: they are looked for faster than bytes

_UNKNOWN_ENCODING = RpcError(Code.UNIMPLEMENTED, "unknown grpc-encoding", (("grpc-accept-encoding", "identity,gzip"),))
_LAST_CODE = max(Code)
_BAD_TIMEOUT = RpcError(Code.INTERNAL, "malformed grpc-timeout")


class Shape:
    """What blocks with the same fields in the same order say alike, whatever the values of those that vary."""

    __slots__ = ("begins_plainly", "begins_response", "encoding", "ends_well", "http_status", "is_grpc", "length_at",
        "malformed_request", "malformed_response", "malformed_trailers", "path", "places", "problem", "says_status",
        "timeout_at")  # fmt: skip

    def __init__(self, key: tuple[Field | bytes, ...]) -> None:
        """`key` has the fields whose values matter here, and the names of the others."""
        names = [part if isinstance(part, bytes) else part[0] for part in key]
        values = dict(part for part in key if not isinstance(part, bytes))
        pseudo = {name: value for name, value in values.items() if name[:1] == b":"}
        malformed = _malformed(names, len(pseudo)) or values.get(b"te", b"trailers") != b"trailers"
        complete = _REQUIRED <= pseudo.keys() <= _ALLOWED and pseudo[b":path"]
        self.malformed_request = malformed or not complete
        self.malformed_response = malformed or pseudo.keys() != {b":status"}
        self.malformed_trailers = malformed or bool(pseudo)
        self.path = pseudo.get(b":path", b"").decode("latin-1")
        self.http_status = pseudo.get(b":status", b"")
        self.is_grpc = is_grpc_content(values.get(b"content-type", b""))
        self.says_status = b"grpc-status" in values
        self.ends_well = values.get(b"grpc-status") == b"0"
        self.encoding = values.get(b"grpc-encoding", b"identity")
        self.places = {name.decode("latin-1"): place for place, name in reversed(list(enumerate(names)))}
        self.timeout_at = names.index(b"grpc-timeout") if b"grpc-timeout" in names else None
        self.length_at = names.index(b"content-length") if b"content-length" in names else None
        self.problem = None if self.encoding in _ENCODINGS else _UNKNOWN_ENCODING
        good = not (self.malformed_response or self.problem)
        self.begins_response = good and self.is_grpc and self.http_status == b"200"
        self.begins_plainly = self.begins_response and self.length_at is None
        """And does not say how long it is."""


@lru_cache(maxsize=256)
def _shape(key: tuple[Field | bytes, ...]) -> Shape:
    return Shape(key)


class Head:
    """One received header block. Shared by all blocks that are equal."""

    __slots__ = ("_status", "content_length", "fields", "malformed", "problem", "shape", "timeout_s")

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields = fields
        self._status: tuple[Code, str, Metadata] | None = None
        shape = _shape(tuple([field if field[0] in _DECISIVE else field[0] for field in fields]))
        self.shape = shape
        self.problem = shape.problem
        """Why a request cannot be served; None if it can."""
        self.timeout_s = None
        if shape.timeout_at is not None:
            self.timeout_s = parse_timeout(fields[shape.timeout_at][1])
            if self.timeout_s is None:
                self.problem = _BAD_TIMEOUT
        values = b"".join((*zip(*fields, strict=True),)[1]) if fields else b""
        self.malformed = _LINE_FEED in values or _RETURN in values or 0 in values
        """Whatever it is the head of."""
        self.content_length: int | None = None
        if shape.length_at is not None:
            self._measure(fields[shape.length_at][1])

    def _measure(self, length: bytes) -> None:
        if length.isdigit() and len(length) <= _LONGEST_LENGTH:
            self.content_length = int(length)
        else:
            self.malformed = True

    def metadata(self) -> Metadata:
        """Custom metadata, decoded. Binary values that are not base64 are left out."""
        return tuple(_decoded(self.fields))

    def value_of(self, key: str) -> str:
        """The first value of this key of custom metadata, which is text; "" without one."""
        place = self.shape.places.get(key)
        return "" if place is None else self.fields[place][1].decode("latin-1")

    def status(self) -> RpcError | None:
        """The status in these trailers; None for OK. A missing or unknown one is UNKNOWN."""
        if self.shape.ends_well:
            return None
        if self._status is None:
            self._status = self._read_status()
        return RpcError(*self._status)

    def _read_status(self) -> tuple[Code, str, Metadata]:
        """What is shared: a server that refuses much says the same often."""
        values = dict(self.fields)
        number = values.get(b"grpc-status", b"")
        known = number.isdigit() and len(number) <= 2 and 0 < int(number) <= _LAST_CODE
        code = Code(int(number)) if known else Code.UNKNOWN
        without = b"" if known else b"the response has no known grpc-status"
        details = unquote_to_bytes(values.get(b"grpc-message", without)).decode(errors="replace")
        return code, details, self.metadata()


def is_grpc_content(content_type: bytes) -> bool:
    return content_type == b"application/grpc" or content_type.startswith((b"application/grpc+", b"application/grpc;"))


def _malformed(names: list[bytes], pseudo_count: int) -> bool:
    """RFC 9113, sections 8.2 and 8.3: order and uniqueness of pseudo fields, case, fields of another protocol."""
    in_order = all((name[:1] == b":") is (index < pseudo_count) for index, name in enumerate(names))
    return not in_order or not all(map(_is_good_name, names))


def _is_good_name(name: bytes) -> bool:
    return _GOOD_NAME.fullmatch(name) is not None and name not in _CONNECTION_FIELDS


def _decoded(fields: Iterable[Field]) -> Iterable[tuple[str, str | bytes]]:
    for name, value in fields:
        if name in _RESERVED or name[:1] == b":":
            continue
        key = name.decode("latin-1")
        if not key.endswith("-bin"):
            yield key, value.decode("latin-1")
            continue
        for part in value.split(b","):
            try:
                yield key, b64decode(part + b"=" * (-len(part) % 4), validate=True)
            except binascii.Error:
                continue


def encode_metadata(metadata: Metadata) -> list[Field]:
    """Raises ValueError naming a key or the key of a value that cannot be sent."""
    return [(_encoded_key(key), _encoded_value(key, value)) for key, value in metadata]


@lru_cache(maxsize=256)
def _encoded_key(key: str) -> bytes:
    if not _KEY.fullmatch(key):
        raise ValueError(f"metadata key {key!r} has letters other than 0-9 a-z _ . -")
    return key.encode()


def _encoded_value(key: str, value: str | bytes) -> bytes:
    if key[-4:] == "-bin":
        return b64encode(value if isinstance(value, bytes) else value.encode()).rstrip(b"=")
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"the value of metadata {key!r} is not printable ASCII; use a key that ends in -bin")
    return text.encode()


_EXACT_S = 0.1


def parse_timeout(text: bytes) -> float | None:
    """Seconds; None for what is not a timeout."""
    digits, unit_s = text[:-1], _UNITS_S.get(text[-1:])
    return int(digits) * unit_s if unit_s is not None and digits.isdigit() and len(digits) <= 8 else None


def format_timeout(timeout_s: float) -> bytes:
    """At most eight digits in the finest unit that holds them, rounded up: from 0.1 s on to milliseconds, so that the
    remaining times of calls that follow each other are often the same bytes, which neither side has to read anew."""
    if 0 <= timeout_s < _EXACT_S:
        return b"%du" % math.ceil(timeout_s * 1e6)
    for unit, unit_s in ((b"m", 1e-3), (b"S", 1.0), (b"M", 60.0), (b"H", 3600.0)):
        count = max(0, math.ceil(timeout_s / unit_s))
        if count < 100_000_000:
            return b"%d%s" % (count, unit)
    return b"99999999H"


def timeout_field(timeout_s: float) -> bytes:
    """A header field that nobody remembers: most calls have another timeout."""
    text = format_timeout(timeout_s)
    return _TIMEOUT_NAME + bytes((len(text),)) + text


def percent_encode(text: str) -> bytes:
    return b"".join(bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in text.encode())


RESPONSE_HEAD = encode(((b":status", b"200"), (b"content-type", b"application/grpc")))
OK_TRAILERS = encode(((b"grpc-status", b"0"),))


def response_head(metadata: Metadata) -> bytes:
    return RESPONSE_HEAD + encode(encode_metadata(metadata)) if metadata else RESPONSE_HEAD


def trailers(code: int, details: str, metadata: Metadata) -> bytes:
    if not code and not details and not metadata:
        return OK_TRAILERS
    fields: list[Field] = [(b"grpc-status", b"%d" % code)]
    if details:
        fields.append((b"grpc-message", percent_encode(details)))
    return encode(fields + encode_metadata(metadata))


def request_prefix(path: str, authority: str, scheme: bytes = b"http") -> bytes:
    """The part of a request's header block that is the same for every call of a method."""
    return encode(((b":method", b"POST"), (b":scheme", scheme), (b":path", path.encode()),
        (b":authority", authority.encode()), (b"te", b"trailers"), (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"identity,gzip"), (b"user-agent", b"tessera")))  # fmt: skip


def frame_message(message: bytes) -> bytes:
    return len(message).to_bytes(5, "big") + message  # a first byte of 0: not compressed


Message = bytes | Squeezed


class MessageReader:
    """Cuts received data into messages; holds at most one unfinished message of `max_bytes`. Compressed ones stay as
    they are, and claim no more than that. `taken` counts the bytes fed."""

    __slots__ = ("_buffer", "_encoding", "_max_bytes", "taken")

    def __init__(self, max_bytes: int, encoding: bytes) -> None:
        self.taken = 0
        self._buffer = bytearray()
        self._max_bytes = max_bytes
        self._encoding = encoding

    def feed(self, payload: bytes) -> list[Message]:
        """Messages that are complete now. Raises RpcError."""
        buffer = self._buffer
        buffer += payload
        self.taken += len(payload)
        messages: list[Message] = []
        start = 0
        while len(buffer) - start >= 5:
            end = start + 5 + self._length(start)
            if len(buffer) < end:
                break
            message = bytes(memoryview(buffer)[start + 5 : end])
            messages.append(self._squeezed(message) if buffer[start] else message)
            start = end
        del buffer[:start]
        return messages

    @property
    def unfinished(self) -> int:
        """Bytes of a message that has not come to its end."""
        return len(self._buffer)

    def _length(self, start: int) -> int:
        length = int.from_bytes(self._buffer[start + 1 : start + 5], "big")
        if length > self._max_bytes:
            raise too_large(length, self._max_bytes)
        if self._buffer[start] > 1:
            raise RpcError(Code.INTERNAL, "malformed message prefix")
        return length

    def _squeezed(self, message: bytes) -> Squeezed:
        if self._encoding != b"gzip":
            raise RpcError(Code.INTERNAL, "a compressed message without grpc-encoding")
        return Squeezed.of(message, self._max_bytes)
