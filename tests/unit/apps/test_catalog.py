from __future__ import annotations

import pytest

from apps import catalog
from apps.app import AppError, Example
from apps.catalog import UnknownAppError, make_app, names
from apps.passthrough import PassThrough


def test_apps_are_the_files_of_the_folder() -> None:
    assert names() == ["passthrough", "rules", "scorecard", "threshold"]


@pytest.mark.parametrize("name", ["", "nobody", "app", "catalog", "os", "../serving"])
def test_an_unknown_app_names_those_that_there_are(name: str) -> None:
    with pytest.raises(UnknownAppError, match="passthrough, rules, scorecard, threshold"):
        make_app(name)


def test_an_app_is_used_only_when_it_meets_its_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PassThrough, "examples", (Example((0.5,), (0.6,)),))
    catalog._app_class.cache_clear()
    with pytest.raises(AppError, match="'passthrough' makes"):
        make_app("passthrough")


def test_unknown_features_can_be_ignored() -> None:
    assert make_app("passthrough", '{"ignore_unknown": true}').parameters.ignore_unknown
