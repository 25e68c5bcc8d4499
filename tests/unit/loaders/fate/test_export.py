"""What FATE hands out of a model is read in all its forms; what is none of them is refused."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import pytest

from loaders.fate import export
from loaders.fate.export import ExportError, parts_of_json, parts_of_zip
from tests.fate_models import Recipe, as_json, as_transfer_reply, as_zip, make

PARTS = make(1, Recipe("lr")).parts["guest:9999"]
PIPELINE = "variables/data/pipeline/pipeline/Pipeline"


def archive(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            made.writestr(name, content)
    return buffer.getvalue()


def test_every_form_holds_the_same_parts() -> None:
    assert parts_of_json(as_json(PARTS)) == PARTS
    assert parts_of_json(as_transfer_reply(PARTS)) == PARTS
    assert parts_of_zip(as_zip(PARTS)) == PARTS


def test_an_archive_may_have_a_folder_around_it_and_files_beside_it() -> None:
    found = parts_of_zip(archive((f"model_1/{PIPELINE}", b"p"), ("checkpoint/x", b"?"), (f"{PIPELINE}.json", b"{}")))
    assert found == {"pipeline/pipeline/Pipeline": b"p"}


def test_no_member_leads_anywhere_else() -> None:
    escaping = archive(
        (PIPELINE, b"p"), ("../../variables/data/../../etc/passwd", b"x"), ("/variables/data/a/../b", b"x")
    )
    assert parts_of_zip(escaping) == {"pipeline/pipeline/Pipeline": b"p"}


def test_keys_of_another_form_are_left_out() -> None:
    keys = {"pipeline.pipeline:Pipeline": "", "a.b.c:Meta": "", "nonsense": "", "../x.model:Meta": ""}
    assert parts_of_json(json.dumps(keys).encode()) == {"pipeline/pipeline/Pipeline": b""}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no part pipeline"),
        (b'{"retcode": 100, "retmsg": "model not found"}', "refused with 100: model not found"),
        (b'{"retcode": 0, "data": null}', "the reply has no data"),
        (b'{"pipeline.pipeline:Pipeline": 1}', "is not a text in base64"),
        (b'{"pipeline.pipeline:Pipeline": "*"}', "is not in base64"),
    ],
)
def test_json_that_is_no_export_is_refused(raw: bytes, text: str) -> None:
    with pytest.raises(ExportError, match=text):
        parts_of_json(raw)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "cannot be read"),
        (as_zip(PARTS)[:-30], "cannot be read"),
        (archive(("a", b"")), "no part pipeline"),
    ],
)
def test_an_archive_that_is_no_export_is_refused(raw: bytes, text: str) -> None:
    with pytest.raises(ExportError, match=text):
        parts_of_zip(raw)


def test_a_damaged_member_is_refused() -> None:
    raw = bytearray(as_zip(PARTS))
    raw[200] ^= 0xFF
    with pytest.raises(ExportError, match="cannot be read"):
        parts_of_zip(bytes(raw))


def test_an_archive_that_unfolds_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_PART_BYTES", 1_000)
    with pytest.raises(ExportError, match="more than 1000 bytes"):
        parts_of_zip(archive((PIPELINE, bytes(1_001))))
    monkeypatch.setattr(export, "MAX_BYTES", 1_500)
    with pytest.raises(ExportError, match=r"more than .* 1500 bytes"):
        parts_of_zip(archive((PIPELINE, bytes(800)), ("variables/data/a/b/C", bytes(800))))


def test_a_key_is_not_read_as_a_path() -> None:
    sneaky = {"pipeline.pipeline:Pipeline": "", "a/b.model:Meta": base64.b64encode(b"x").decode()}
    assert list(parts_of_json(json.dumps(sneaky).encode())) == ["pipeline/pipeline/Pipeline"]
