"""Features in a table or view of an SQL database, through SQLAlchemy (extra `sql`, and the database's async driver)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from loaders.signature import Signature
from serving.features.source import FeatureRows, FeatureSource, FeatureSourceError, gathered

ROWS_PER_QUERY = 500
"""Databases bound the parameters of a statement (SQLite 999, by default)."""

_END_S = 1.0
"""How long `close` waits for look-ups that were late."""

Found = dict[str, Mapping[str, Any]]


class SqlFeatureSource(FeatureSource):
    """`url` as SQLAlchemy spells it (`sqlite+aiosqlite:///features.db`, `postgresql+asyncpg://...`); `table` may name
    its schema before a dot. A batch is one statement per 500 users. The id column needs an index."""

    def __init__(
        self,
        url: str,
        table: str,
        id_column: str = "id",
        max_age_s: float | None = None,
        timeout_s: float = 0.2,
    ) -> None:
        self._name = f"feature table {table}"
        self._table_name = table
        self._id_name = id_column
        self._max_age_s = max_age_s
        self._timeout_s = timeout_s
        self._url = url
        self._engine: AsyncEngine | None = None
        self._table = Table("", MetaData())
        self._id: Column[Any] = Column(id_column)
        self._late: set[asyncio.Task[Any]] = set()
        """Look-ups that nobody waits for any more, until their drivers let go of them."""

    async def open(self) -> None:
        schema, _, name = self._table_name.rpartition(".")
        try:
            engine = self._engine = await asyncio.to_thread(create_async_engine, self._url, pool_pre_ping=True)
            async with engine.connect() as connection:
                self._table = await connection.run_sync(
                    lambda sync: Table(name, MetaData(), schema=schema or None, autoload_with=sync)
                )
        except ModuleNotFoundError as error:
            raise FeatureSourceError(f"{self._name} needs the database driver {error.name!r}: install it") from None
        except (SQLAlchemyError, OSError) as error:
            raise FeatureSourceError(f"{self._name} cannot be opened: {_reason(error)}") from None
        if self._id_name not in self._table.columns:
            raise FeatureSourceError(f"{self._name} has no column {self._id_name!r} for the user id")
        self._id = self._table.columns[self._id_name]

    def check(self, signature: Signature) -> None:
        absent = [name for name in (*signature.numbers, *signature.texts) if name not in self._table.columns]
        if absent:
            raise FeatureSourceError(f"{self._name} has no column {', '.join(map(repr, absent))}")

    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        self.check(signature)
        names = (*signature.numbers, *signature.texts)
        try:
            found = await self._in_time(asyncio.create_task(self._rows(user_ids, names)))
        except (SQLAlchemyError, OSError) as error:  # a TimeoutError is an OSError
            raise FeatureSourceError(f"{self._name} does not answer: {_reason(error)}") from None
        return gathered(self._name, [found.get(user_id) for user_id in user_ids], signature, self._max_age_s)

    async def close(self) -> None:
        if self._late:
            await asyncio.wait(self._late, timeout=_END_S)
        if self._engine is not None:
            await self._engine.dispose()

    async def _in_time(self, rows: asyncio.Task[Found]) -> Found:
        """Drivers may take long to give a cancelled look-up up: SQLite's waits for the lock. Raises TimeoutError."""
        try:
            done, _ = await asyncio.wait({rows}, timeout=self._timeout_s)
        finally:
            if not rows.done():
                self._late.add(rows)
                rows.add_done_callback(self._gone)
                rows.cancel()
        if not done:
            raise TimeoutError
        return rows.result()

    def _gone(self, rows: asyncio.Task[Found]) -> None:
        self._late.discard(rows)
        if not rows.cancelled():
            rows.exception()  # nobody is left to be told

    async def _rows(self, user_ids: Sequence[str], names: Sequence[str]) -> Found:
        """By id, as the caller spells it."""
        wanted = {self._key(user_id): user_id for user_id in user_ids}
        keys = [key for key in wanted if key is not None]
        columns = [self._table.columns[name] for name in names]
        found: Found = {}
        if self._engine is None:
            raise FeatureSourceError(f"{self._name} is not open")
        async with self._engine.connect() as connection:
            for start in range(0, len(keys), ROWS_PER_QUERY):
                some = keys[start : start + ROWS_PER_QUERY]
                for key, *values in await connection.execute(select(self._id, *columns).where(self._id.in_(some))):
                    found[wanted[key]] = dict(zip(names, values, strict=True))
        return found

    def _key(self, user_id: str) -> str | int | None:
        """As the column holds it; None for a text that no number of an integer column is written as."""
        if not isinstance(self._id.type, Integer):
            return user_id
        number = int(user_id) if user_id.isascii() and user_id.lstrip("-").isdigit() else None
        return number if str(number) == user_id else None


def _reason(error: Exception) -> str:
    """Without the statement, whose parameters are user ids, and without the address, which may hold a password."""
    return type(getattr(error, "orig", None) or error).__name__
