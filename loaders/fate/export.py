"""Reads what FATE 1.x hands out of a model: the export's zip, a FATE-Serving cache file, a model-transfer reply.

All hold the same parts: one serialised protobuf message per component, alias and message name.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_PARTS = 10_000
MAX_PART_BYTES = 256 << 20
MAX_BYTES = 1 << 30

_KEY = re.compile(r"([A-Za-z0-9][\w-]*)\.([A-Za-z0-9][\w-]*):([A-Za-z0-9]\w*)")
_MEMBER = re.compile(r"(?:.*/)?variables/data/([A-Za-z0-9][\w-]*)/([A-Za-z0-9][\w-]*)/([A-Za-z0-9]\w*)")

Parts = Mapping[str, bytes]
"""Serialised messages by `component/alias/message`."""


class ExportError(ValueError):
    """The bytes are no export of FATE; the text says why."""


def parts_of_zip(raw: bytes) -> Parts:
    """The archive that `flow model export` writes. Members outside of `variables/data` are not looked at."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = {match.groups(): one for one in archive.infolist() if (match := _MEMBER.fullmatch(one.filename))}
            if len(members) > MAX_PARTS or sum(one.file_size for one in members.values()) > MAX_BYTES:
                raise ExportError(f"the archive holds more than {MAX_PARTS} parts or {MAX_BYTES} bytes")
            return _checked({"/".join(names): _read(archive, member) for names, member in members.items()})
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError, zlib.error) as error:
        raise ExportError(f"the archive cannot be read: {error}") from None


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """At most as many bytes as a part may have, whatever the archive says of its size."""
    with archive.open(member) as file:
        content = file.read(MAX_PART_BYTES + 1)
    if len(content) > MAX_PART_BYTES:
        raise ExportError(f"{member.filename} has more than {MAX_PART_BYTES} bytes")
    return content


def parts_of_json(raw: bytes) -> Parts:
    """A cache file of FATE-Serving (`component.alias:Message` -> base64), or a reply of FATE-Flow's model transfer,
    which has such an object in `data`. Keys of another form are left out, as FATE-Serving does."""
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExportError(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ExportError("not a JSON object")
    if "retcode" in document:
        if document["retcode"] != 0:
            raise ExportError(f"FATE-Flow refused with {document['retcode']}: {str(document.get('retmsg', ''))[:300]}")
        document = document.get("data")
    if not isinstance(document, dict):
        raise ExportError("the reply has no data")
    found = {match.groups(): value for key, value in document.items() if (match := _KEY.fullmatch(key))}
    return _checked({"/".join(names): _decoded("/".join(names), value) for names, value in found.items()})


def json_of(parts: Parts) -> bytes:
    """A cache file of FATE-Serving."""
    keys = {name: name.split("/") for name in parts}
    named = {f"{component}.{alias}:{message}": name for name, (component, alias, message) in keys.items()}
    return msgspec.json.encode({key: base64.b64encode(parts[name]).decode() for key, name in named.items()})


def _decoded(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise ExportError(f"{name} is not a text in base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ExportError(f"{name} is not in base64: {error}") from None


def _checked(parts: Parts) -> Parts:
    if "pipeline/pipeline/Pipeline" not in parts:
        raise ExportError("it has no part pipeline.pipeline:Pipeline; deploy the model before it is exported")
    return parts
