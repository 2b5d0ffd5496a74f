"""The database's schema: made, recognized, upgraded."""

import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import text

from heksher_client.cli import main
from heksher_client.service import LocalService, create_app, store
from heksher_client.service.database import Database, SchemaError, connect
from heksher_client.service.migrations import run, upgrade
from heksher_client.service.schema import METADATA, VERSION

FIRST = Path(__file__).parents[1] / "data" / "service_0001.sql"
"""What the first version of the service made, with a setting, an alias and a rule in it."""


@pytest.fixture
def old(tmp_path: Path) -> str:
    """A database of the first version."""
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(FIRST.read_text())
    connection.close()
    return f"sqlite:///{path}"


def test_all_migrations_together_make_the_schema(new_database: Callable[[], str]) -> None:
    """A new database gets it at once; an upgraded one must be the same."""
    url = new_database()
    with connect(url) as connection:
        run(connection, None)
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
        assert differences == []


def test_the_version_of_the_schema_is_that_of_the_last_migration() -> None:
    """The service itself does not read the migrations."""
    scripts = ScriptDirectory("heksher_client/service/migrations")
    assert scripts.get_current_head() == VERSION


def test_a_service_that_finds_an_older_schema_says_so_and_stops(old: str) -> None:
    """And says what to do; nothing is changed."""
    with pytest.raises(SchemaError, match=r"version 0001.*heksher-client service upgrade"):
        create_app(old)
    with pytest.raises(SchemaError), LocalService(database=old):
        pass


def test_a_service_that_finds_a_newer_schema_says_so_and_stops(tmp_path: Path) -> None:
    """Of a version that it cannot know."""
    url = f"sqlite:///{tmp_path}/new.db"
    with connect(url) as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('9999')"))
    with pytest.raises(SchemaError, match=r"version 9999.*knows none after"):
        create_app(url)


def test_an_upgrade_keeps_everything(old: str) -> None:
    """Settings, aliases, rules and their ids."""
    assert upgrade(old) == "0001"
    database = Database(old)
    with database.begin(writes=False) as connection:
        held = store.setting(connection, "former")
        assert held is not None
        assert (held.declaration.name, held.declaration.default_value) == ("s", 7)
        (rule,) = store.rules(connection)
        assert (rule.id, rule.value, dict(rule.conditions)) == (5, 8, {"user": "jim"})
    database.close()
    assert upgrade(old) == VERSION


def test_the_upgrade_is_a_command(old: str, tmp_path: Path) -> None:
    """It says what it has done, and what is wrong in one line."""
    path = old.removeprefix("sqlite:///")

    def run(database: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["service", "upgrade", "--database", database])
        return result.exit_code, result.output

    assert run(path) == (0, "Upgraded the schema of the database from version 0001 to 0003.\n")
    assert run(old) == (0, "The database is up to date: its schema has version 0003.\n")
    (tmp_path / "new.db").touch()
    assert run(f"sqlite:///{tmp_path}/new.db")[1].endswith("from version (none) to 0003.\n")
    assert run(str(tmp_path / "none.db")) == (1, f"Error: database file {tmp_path}/none.db does not exist\n")
    code, output = run("postgresql://nobody@127.0.0.1:9/none")
    assert (code, output.count("\n"), "Traceback" in output) == (1, 1, False)


def test_an_upgraded_service_goes_on(old: str) -> None:
    """Each setting has a tag of its own now."""
    upgrade(old)
    with LocalService(database=old) as service:
        assert service.url


def test_an_empty_database_can_be_upgraded_too(new_database: Callable[[], str]) -> None:
    """It has all tables then."""
    url = new_database()
    if url == "sqlite://":
        pytest.skip("a database in memory ends with its connection")
    assert upgrade(url) is None
    assert upgrade(url.replace("postgresql:", "postgresql+psycopg:")) == VERSION
    Database(url).close()


def test_instances_that_start_at_once_make_one_schema(new_database: Callable[[], str], tmp_path: Path) -> None:
    """Whoever comes second finds it made."""
    url = new_database()
    url = f"sqlite:///{tmp_path}/one.db" if url == "sqlite://" else url
    errors: list[Any] = []
    gate = threading.Barrier(4)

    def begin() -> None:
        gate.wait()
        try:
            Database(url).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize(
    ("url", "words"), [("mysql://host/db", "works with sqlite and postgresql"), ("nonsense", "URL is none")]
)
def test_another_kind_of_database_is_an_error_in_words(url: str, words: str) -> None:
    """And not one of SQLAlchemy's."""
    with pytest.raises(ValueError, match=words):
        Database(url)


def test_postgresql_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which brings it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"heksher_client\[postgresql\]"):
        create_app("postgresql://host/settings")
