import pytest
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import create_async_engine

from loaders.signature import Missing, Signature, TensorSpec
from serving.features.source import FeatureSourceError
from serving.features.sql import ROWS_PER_QUERY, SqlFeatureSource

X = Signature((TensorSpec(name="x", dtype="float64", shape=(-1,), missing=Missing.IMPUTE),), ())


@pytest.fixture
async def url(tmp_path):
    """Users 0 to 1199 with an integer id."""
    made = f"sqlite+aiosqlite:///{tmp_path}/f.db"
    engine = create_async_engine(made)
    async with engine.begin() as connection:
        await connection.execute(sql("create table users (id integer primary key, x real)"))
        rows = [{"id": user, "x": user / 2} for user in range(1200)]
        await connection.execute(sql("insert into users values (:id, :x)"), rows)
    await engine.dispose()
    return made


async def opened(url, table="users", **options):
    source = SqlFeatureSource(url, table, timeout_s=5, **options)
    await source.open()
    return source


async def test_more_users_than_one_statement_takes(url):
    source = await opened(url)
    asked = [str(user) for user in range(2 * ROWS_PER_QUERY + 7, -1, -1)]
    rows = await source.lookup(asked, X)
    assert rows.found.all()
    assert rows.batch.numbers[:, 0].tolist() == [int(user) / 2 for user in asked]
    await source.close()


async def test_an_integer_id_has_one_spelling(url):
    source = await opened(url)
    rows = await source.lookup(["7", "07", "7.0", " 7", "seven", "-7", "\u0667", ""], X)
    assert rows.found.tolist() == [True] + [False] * 7
    await source.close()


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("nobody", {}, "feature table nobody cannot be opened: NoSuchTableError"),
        ("users", {"id_column": "key"}, "has no column 'key' for the user id"),
    ],
)
async def test_what_is_not_there_is_named(url, table, options, said):
    source = SqlFeatureSource(url, table, timeout_s=5, **options)
    with pytest.raises(FeatureSourceError, match=said):
        await source.open()
    await source.close()


async def test_a_missing_driver_is_named():
    source = SqlFeatureSource("postgresql+nodriver://u:secret@localhost/db", "users")
    with pytest.raises(FeatureSourceError) as caught:
        await source.open()
    assert "secret" not in str(caught.value)
    await source.close()


async def test_a_database_that_goes_away_names_nobody(url, tmp_path):
    source = await opened(url)
    await source.lookup(["1"], X)
    (tmp_path / "f.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(FeatureSourceError, match="feature table users does not answer") as caught:
        await source.lookup(["1199"], X)
    assert "1199" not in str(caught.value)
    await source.close()
