import pytest

from serving import ports_file


def test_what_is_written_is_read(tmp_path):
    ports_file.write(tmp_path / "new", {"admin": "127.0.0.1:1"})
    ports_file.write(tmp_path / "new", {"admin": "127.0.0.1:2"})
    assert ports_file.read(tmp_path / "new") == {"admin": "127.0.0.1:2"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ports.json"]


def test_a_single_port_is_found_by_whom_it_is_for(tmp_path):
    ports_file.write(tmp_path, {"single": "127.0.0.1:1", "http": "127.0.0.1:2"})
    everybody = dict.fromkeys(("single", "service", "party", "admin"), "127.0.0.1:1")
    assert ports_file.read(tmp_path) == {**everybody, "http": "127.0.0.1:2"}


def test_no_node_has_no_ports(tmp_path):
    assert ports_file.read(tmp_path) == {}
    ports_file.remove(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b'{"admin": 1}'])
def test_what_is_no_list_of_ports_says_of_none(tmp_path, content):
    (tmp_path / "ports.json").write_bytes(content)
    assert ports_file.read(tmp_path) == {}
