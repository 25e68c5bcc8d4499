"""Messages that describe models, as JSON: names as in the .proto, 64-bit numbers as numbers, defaults kept."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message


def described(message: Message) -> dict[str, Any]:
    """Messages within that are not set are left out, as is what was not chosen of a oneof."""
    return {
        field.name: _field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _field(field: Any, value: Any) -> Any:
    if not field.is_repeated:
        return _value(field, value)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        values = field.message_type.fields_by_name["value"]
        return {str(key): _value(values, one) for key, one in value.items()}
    return [_value(field, one) for one in value]


def _value(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return described(value) if field.message_type is not None else value
