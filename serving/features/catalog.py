"""The kinds of feature sources by their names in the settings. A module loads when its kind is used."""

from __future__ import annotations

import os
from pathlib import Path

from serving.features.source import FeatureSource, FeatureSourceError
from serving.settings import FeatureKind, FeatureSettings


def make_source(settings: FeatureSettings) -> FeatureSource:
    """Not opened. Raises FeatureSourceError naming an extra or a file that is missing."""
    match settings.kind:
        case FeatureKind.FILE:
            from serving.features.file import FileFeatureSource  # noqa: PLC0415

            return FileFeatureSource(Path(settings.path), settings.id_column, settings.max_age_s)
        case FeatureKind.REDIS:
            from serving.features.redis import RedisFeatureSource  # noqa: PLC0415

            return RedisFeatureSource(settings.url, settings.prefix, settings.max_age_s, settings.timeout_s)
        case FeatureKind.HTTP:
            from serving.features.http import HttpFeatureSource  # noqa: PLC0415

            return HttpFeatureSource(settings.url, _token(settings), settings.max_age_s, settings.timeout_s)
        case FeatureKind.SQL:
            return _sql(settings)


def _sql(settings: FeatureSettings) -> FeatureSource:
    try:
        from serving.features.sql import SqlFeatureSource  # noqa: PLC0415

        return SqlFeatureSource(
            settings.url, settings.table, settings.id_column, settings.max_age_s, settings.timeout_s
        )
    except ModuleNotFoundError as error:
        raise FeatureSourceError(
            f"features of kind 'sql' need {error.name}: pip install 'tessera-federated[sql]', and the database's driver"
        ) from None


def _token(settings: FeatureSettings) -> str:
    if not settings.token_env:
        return ""
    token = os.environ.get(settings.token_env, "")
    if not token:
        raise FeatureSourceError(f"the environment variable {settings.token_env} (token_env) is not set")
    return token
