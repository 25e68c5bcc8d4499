from pathlib import Path

import pytest

from serving.control import State, WantedApp
from serving.doctor.finding import Level
from serving.doctor.local import apps, folders
from serving.settings import AppSettings, Settings
from tests.app_sources import store, times


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        ("", Level.OK, "digest "),
        ("allowed", Level.ERROR, "is not in apps.allowed"),
        ("file", Level.ERROR, "has been changed: its digest is "),
        ("version", Level.ERROR, "no app risk:2 in apps.root; there is 1"),
        ("root", Level.ERROR, "apps.root is not set"),
    ],
)
def test_wanted_apps_are_looked_at(tmp_path: Path, change: str, level: Level, text: str) -> None:
    digest = store(tmp_path, "1", times(2.0))
    if change == "file":
        store(tmp_path, "1", times(3.0))
    settings = Settings(
        party="bank",
        state_dir="s",
        registry="r",
        apps=AppSettings(
            root="" if change == "root" else str(tmp_path), allowed=() if change == "allowed" else (digest,)
        ),
    )
    version = "2" if change == "version" else "1"
    state = State(apps=(WantedApp(name="risk", version=version, digest=digest, epoch=1),))
    [finding] = apps(settings, state)
    assert (finding.level, finding.subject) == (level, f"app risk:{version}")
    assert text in str(finding)


def test_of_an_app_behind_a_url_what_is_kept_counts(tmp_path: Path) -> None:
    digest = store(tmp_path / "s" / "apps" / "risk" / "1" / ("0" * 64), "1", times(2.0))
    behind = AppSettings(root="s3://bucket/apps", allowed=(digest,))
    settings = Settings(party="bank", state_dir=str(tmp_path / "s"), registry="r", apps=behind)
    state = State(apps=(WantedApp(name="risk", version="1", digest=digest, epoch=1),))
    [absent] = apps(settings, state)
    assert (absent.level, "it from s3://bucket/apps" in str(absent)) == (Level.ERROR, True)
    store(tmp_path / "s" / "apps" / "risk" / "1" / digest, "1", times(2.0))
    [kept] = apps(settings, state)
    assert kept.level is Level.OK


def test_a_registry_behind_a_url_is_no_folder(tmp_path: Path) -> None:
    settings = Settings(party="bank", state_dir=str(tmp_path), registry="s3://bucket/models")
    [registry, _] = folders(settings)
    assert registry.level is Level.OK
    assert "s3://bucket/models" in str(registry)
