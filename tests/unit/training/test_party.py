from pathlib import Path

import pytest

from training.party import PartyError, load

GOOD = """
party = "bank"
listen = "127.0.0.1:9001"
registry = "registry"
work_dir = "/jobs"
[tables.people]
path = "people.csv"
label_column = "y"
[peers.shop-1]
address = "127.0.0.1:9002"
consent = ["psi"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "party.toml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, **environ: str) -> list[str]:
    path = written(folder, text)
    with pytest.raises(PartyError) as caught:
        load(path, {f"TESSERA_TRAIN_{name}": value for name, value in environ.items()})
    return [line.removeprefix(f"{path}: ") for line in caught.value.problems]


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    settings = load(written(tmp_path, GOOD), {})
    assert settings.registry == tmp_path / "registry"
    assert settings.work_dir == Path("/jobs")
    assert settings.tables["people"].path == tmp_path / "people.csv"
    assert settings.tables["people"].id_column == "id"
    assert settings.peers["shop-1"].consent == ("psi",)
    assert not settings.peers["shop-1"].mean_partial


def test_the_environment_wins(tmp_path: Path) -> None:
    environ = {
        "TESSERA_TRAIN_WORKERS": "3",
        "TESSERA_TRAIN_PEERS__SHOP_1__ADDRESS": "127.0.0.1:7",
        "TESSERA_TRAIN_PEERS__SHOP_1__CONSENT": '["psi", "hetero_lr"]',
        "TESSERA_TRAIN_PEERS__SHOP_1__MEAN_PARTIAL": "true",
        "TESSERA_PARTY": "other",
    }
    settings = load(written(tmp_path, GOOD), environ)
    assert (settings.workers, settings.party) == (3, "bank")
    assert settings.peers["shop-1"].address == "127.0.0.1:7"
    assert settings.peers["shop-1"].consent == ("psi", "hetero_lr")
    assert settings.peers["shop-1"].mean_partial


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = 'party = ""\nworkres = 2\nregistry = "r"\n[tables.a]\nid_column = 3\n[peers.shop]\naddress = 1\n'
    found = "\n".join(problems(tmp_path, text))
    for part in ("party: ", "workres: is not a setting; did you mean workers?", "work_dir: is missing"):
        assert part in found
    for part in ("tables.a.path: is missing", "tables.a.id_column: must be str", "peers.shop.address: must be str"):
        assert part in found


def test_a_variable_is_named_as_the_culprit(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD, WORKERS="many") == ["TESSERA_TRAIN_WORKERS: workers: must be int, got str"]


@pytest.mark.parametrize(
    ("listen", "reason"),
    [
        ("0.0.0.0:1", "set insecure = true"),
        ("example.org:1", "set insecure = true"),
        ("127.0.0.1", "must be host:port"),
        ("127.0.0.1:70000", "must be host:port"),
    ],
)
def test_where_a_party_may_listen(tmp_path: Path, listen: str, reason: str) -> None:
    (found,) = problems(tmp_path, GOOD, LISTEN=listen)
    assert found.startswith("listen: ") and reason in found


def test_off_loopback_when_the_operator_insists(tmp_path: Path) -> None:
    assert load(written(tmp_path, "insecure = true\n" + GOOD.replace("127.0.0.1:9001", "0.0.0.0:9001")), {}).insecure


@pytest.mark.parametrize("text", ["party = ", "\xff"])
def test_a_file_that_is_not_toml(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, text)
    assert "is not TOML" in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PartyError, match="cannot be read"):
        load(tmp_path / "none.toml", {})


def test_a_party_is_not_its_own_peer(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD.replace("shop-1", "bank")) == ["peers.bank: is this party itself"]


def test_consent_names_components(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD.replace('["psi"]', '["pis"]'))
    assert found == ["peers.shop-1.consent: 'pis' is no component; did you mean psi?"]


def test_the_label_is_not_the_id(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD.replace('label_column = "y"', 'label_column = "id"'))
    assert found == ["tables.people.label_column: 'id' is the column of ids"]
