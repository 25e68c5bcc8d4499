"""A folder behind a URL."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from loaders.remote_folder import RemoteFolder
from tests.web import shown


class Drip(io.BytesIO):
    """Comes in pieces, as what is read from a network may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(7, size) if size is not None and size >= 0 else 7)


@pytest.mark.parametrize(("most", "read"), [(100, 100), (99, 100), (0, 1), (5_000, 100)])
def test_what_comes_in_pieces_is_read_to_its_end_or_bound(
    monkeypatch: pytest.MonkeyPatch, most: int, read: int
) -> None:
    folder = RemoteFolder("memory://somewhere")
    monkeypatch.setattr(folder._files, "open", lambda path, mode: Drip(b"x" * 100))
    assert folder.read(("a", "b"), most) == b"x" * read


def test_a_web_servers_pages_show_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "c.txt").write_bytes(b"c" * 300_000)
    sorting = '<a href="?C=N;O=D">Name</a> <a href="../">Parent</a> <a href="d.txt">d.txt</a>'
    (tmp_path / "a" / "b" / "index.html").write_text(sorting)
    with shown(tmp_path) as url:
        folder = RemoteFolder(url)
        assert folder.names("a") == {"b": True, "c.txt": False}
        assert folder.names("a", "b") == {"d.txt": False}
        assert folder.names("elsewhere") == {}
        assert folder.read(("a", "c.txt"), 300_000) == b"c" * 300_000
        with pytest.raises(FileNotFoundError):
            folder.read(("a", "none"), 1)
