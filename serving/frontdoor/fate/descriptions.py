"""How FATE-Serving describes a loaded model: to people, and to a node that copies it."""

from __future__ import annotations

from typing import Any

import msgspec

from loaders.fate.names import FateName, FateNameError, name_in
from serving.errors import InvalidRequestError
from serving.frontdoor.fate.models import GUEST, HOST, Publication
from serving.pool import ModelHandle


class _Party(msgspec.Struct):
    role: str
    partId: str


class _Described(msgspec.Struct, rename="camel"):
    """What is read of another node's description."""

    table_name: str
    namespace: str
    part_id: str
    role: str
    role_party_map_list: list[_Party]
    service_ids: list[str] | None = None


def described(handle: ModelHandle, services: list[str], since_ms: int) -> dict[str, Any]:
    """`content` of queryModel and `modelData` of modelTransfer, before it is JSON."""
    manifest = handle.artifact.manifest
    name = named(handle)
    parties = [(half.role, half.party) for half in manifest.binding or ()]
    others: dict[str, dict[str, Any]] = {}
    for role, party in parties:
        if party != manifest.party:
            namespace = f"{role}#{party}#{name.model_id}"
            others.setdefault(role, {})[party] = {"tableName": name.table, "namespace": namespace, "role": role}
    return {
        "tableName": name.table,
        "namespace": name.namespace,
        "partId": manifest.party,
        "role": manifest.role,
        "timestamp": since_ms,
        "serviceIds": services,
        "federationModelMap": others,
        "rolePartyMapList": [{"role": role, "partId": party} for role, party in parties],
        "resourceName": resource_of(name),
    }


def named(handle: ModelHandle) -> FateName:
    """By FATE's names; those of a model that is not FATE's stand in their places."""
    return name_in(handle.artifact.manifest.provenance) or FateName(handle.id.model, handle.id.version)


def resource_of(name: FateName) -> str:
    """As figures and limits name a model."""
    return f"M_{name.table}_{name.namespace}"


def publication_in(raw: bytes, party: str) -> Publication:
    """Of another node's description, which must be of the same party. Raises InvalidRequestError."""
    try:
        found = msgspec.json.decode(raw, type=_Described)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"modelData cannot be used: {error}") from None
    guests = [one.partId for one in found.role_party_map_list if one.role == GUEST]
    hosts = sorted(one.partId for one in found.role_party_map_list if one.role == HOST)
    if len(guests) != 1 or found.role not in {GUEST, HOST}:
        raise InvalidRequestError("modelData names no guest, or another role than guest and host")
    if found.part_id != party:
        raise InvalidRequestError(f"modelData is of party {found.part_id!r}, this node is party {party!r}")
    try:
        name = FateName(found.namespace, found.table_name)
    except FateNameError as error:
        raise InvalidRequestError(f"modelData cannot be used: {error}") from None
    return Publication(name, found.role, guests[0], tuple(hosts), tuple(found.service_ids or ()))
