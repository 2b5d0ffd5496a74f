"""The schema of the database: creation, checks and upgrades."""

import sqlite3
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import delete, text

from heksher_client.cli import main
from heksher_client.service import LocalService, create_app, store, tokens
from heksher_client.service.changes import changes, record_together
from heksher_client.service.database import Database, connect
from heksher_client.service.declarations import Declaration
from heksher_client.service.history import read_state
from heksher_client.service.migrations import run, upgrade
from heksher_client.service.schema import CHANGES, METADATA, VERSION
from heksher_client.service.schema_version import SchemaError
from heksher_client.service.setting_types import parse_setting_type
from tests.support.postgresql import PostgreSQL
from tests.support.service import WatchedService

FIRST = Path(__file__).parents[1] / "data" / "service_0001.sql"
"""A database of the first version, with a setting, an alias and a rule."""


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The URL of a database of the first version."""
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(FIRST.read_text())
    connection.close()
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return a function that returns the URL of a database without tables, and deletes the former one."""
    if request.param == "sqlite":
        return lambda: "sqlite://"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.empty


def test_the_migrations_result_in_the_schema_of_new_databases(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    with connect(url) as connection:
        run(connection, None)
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
        assert differences == []


def test_the_schema_version_is_the_last_migration() -> None:
    scripts = ScriptDirectory("heksher_client/service/migrations")
    assert scripts.get_current_head() == VERSION


def test_a_database_with_an_older_schema_is_not_opened(old: str) -> None:
    """The error names the command that upgrades it."""
    with pytest.raises(SchemaError, match=r"version 0001.*heksher-client service upgrade"):
        create_app(old)
    with pytest.raises(SchemaError), LocalService(database=old):
        pass


def test_a_database_with_a_newer_schema_is_not_opened(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    with connect(url) as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('9999')"))
    with pytest.raises(SchemaError, match=r"version 9999.*use a newer version"):
        create_app(url)


def test_an_upgrade_keeps_all_data(old: str) -> None:
    """Settings, aliases, and rules with their ids."""
    assert upgrade(old) == "0001"
    database = Database(old)
    with database.begin(writes=False) as connection:
        setting = store.setting(connection, "former")
        assert setting is not None
        assert (setting.declaration.name, setting.declaration.default_value) == ("s", 7)
        (rule,) = store.rules(connection)
        assert (rule.id, rule.value, dict(rule.conditions)) == (5, 8, {"user": "jim"})
    database.close()
    assert upgrade(old) == VERSION


def test_l14_tokens_that_could_declare_settings_still_can(empty_database: Callable[[], str], tmp_path: Path) -> None:
    """The migration gives them the new role. Those with the role `admin` keep it, and all keep their texts."""
    url = empty_database()
    database = Database(f"sqlite:///{tmp_path}/service.db" if url == "sqlite://" else url)
    (script,) = [each for each in ScriptDirectory("heksher_client/service/migrations").walk_revisions()
                 if "role" in each.doc]  # fmt: skip
    with database.begin() as connection:
        texts = [tokens.add_token(connection, name, tokens.Role(name)) for name in ("read", "admin")]
        with Operations.context(MigrationContext.configure(connection)):
            script.module.upgrade()
        found = [tokens.find_token(connection, text) for text in texts]
    assert [each and each.role for each in found] == ["declare", "admin"]
    database.close()


def test_the_migration_finds_authors_and_dates_of_rules_in_the_change_log(
    empty_database: Callable[[], str], tmp_path: Path
) -> None:
    """All rules stay in effect. Those whose changes are not in the log have no author."""
    url = empty_database()
    database = Database(f"sqlite:///{tmp_path}/service.db" if url == "sqlite://" else url)
    with database.begin(actor="ann") as connection:
        store.add_context_feature(connection, "user")
        store.add_setting(connection, Declaration("s", ("user",), parse_setting_type("int"), 7, {}, "1.0"))
        setting = store.setting(connection, "s")
        assert setting is not None
        changed, added, unknown = (store.add_rule(connection, setting, {"user": user}, 1, {}) for user in "abc")
        connection.execute(delete(CHANGES).where(CHANGES.c.revision == read_state(connection).revision))
    with database.begin(actor="ops") as connection:
        rule = store.rule(connection, changed)
        assert rule is not None
        store.change_rule(connection, setting, rule, value=2)
        removed = store.rule(connection, store.add_rule(connection, setting, {"user": "d"}, 1, {}))
        assert removed is not None
        store.delete_rule(connection, setting, removed)
        before = {rule.id: rule for rule in store.rules(connection)}
        for table, columns in (
            ("rules", ("starts_at", "ends_at", "in_effect", "changed_at", "changed_by")),
            ("state", ("next_transition",)),
        ):
            for column in columns:
                connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        (script,) = [each for each in ScriptDirectory("heksher_client/service/migrations").walk_revisions()
                     if each.revision == "0006"]  # fmt: skip
        with Operations.context(MigrationContext.configure(connection)):
            script.module.upgrade()
        after = {rule.id: rule for rule in store.rules(connection)}
    assert {rule_id: rule.changed_by for rule_id, rule in after.items()} == {
        changed: "ops",
        added: "ann",
        unknown: None,
    }
    assert after[unknown].changed_at is None
    for rule_id in (changed, added):
        assert after[rule_id].changed_at is not None
        assert replace(after[rule_id], changed_at=before[rule_id].changed_at) == before[rule_id]
    database.close()


def test_the_migration_finds_changes_that_were_made_together(empty_database: Callable[[], str], tmp_path: Path) -> None:
    """They have the same time and author, and revisions without a gap. Other changes are not in a group."""
    url = empty_database()
    database = Database(f"sqlite:///{tmp_path}/service.db" if url == "sqlite://" else url)
    with database.begin() as connection:
        store.add_context_feature(connection, "user")
        with record_together(connection):
            for name in ("environment", "theme"):
                store.add_context_feature(connection, name)
        groups = [change.group for change in changes(connection, after=0)]
        connection.execute(text("DROP INDEX ix_changes_group_id"))
        connection.execute(text("ALTER TABLE changes DROP COLUMN group_id"))
        (script,) = [each for each in ScriptDirectory("heksher_client/service/migrations").walk_revisions()
                     if each.revision == "0007"]  # fmt: skip
        with Operations.context(MigrationContext.configure(connection)):
            script.module.upgrade()
        assert [change.group for change in changes(connection, after=0)] == groups == [None, 2, 2]
    database.close()


def test_the_command_upgrades_a_database(old: str, tmp_path: Path) -> None:
    """It reports the result, and errors in one line."""
    path = old.removeprefix("sqlite:///")

    def run(database: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["service", "upgrade", "--database", database])
        return result.exit_code, result.output

    assert run(path) == (0, f"Upgraded the schema of the database from version 0001 to {VERSION}.\n")
    assert run(old) == (0, f"The database is up to date: its schema has version {VERSION}.\n")
    (tmp_path / "new.db").touch()
    assert run(f"sqlite:///{tmp_path}/new.db")[1].endswith(f"from version (none) to {VERSION}.\n")
    assert run(str(tmp_path / "none.db")) == (1, f"Error: database file {tmp_path}/none.db does not exist\n")
    code, output = run("postgresql://nobody@127.0.0.1:9/none")
    assert (code, output.count("\n"), "Traceback" in output) == (1, 1, False)


def test_an_upgraded_database_can_be_served(old: str) -> None:
    upgrade(old)
    with LocalService(database=old) as service:
        assert service.url


def test_an_empty_database_can_be_upgraded(empty_database: Callable[[], str]) -> None:
    """It then has all tables."""
    url = empty_database()
    if url == "sqlite://":
        pytest.skip("a database in memory ends with its connection")
    assert upgrade(url) is None
    assert upgrade(url.replace("postgresql:", "postgresql+psycopg:")) == VERSION
    Database(url).close()


def test_instances_that_start_at_the_same_time_create_one_schema(
    empty_database: Callable[[], str], tmp_path: Path
) -> None:
    url = empty_database()
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


def test_a_search_ignores_the_case_of_letters(service: WatchedService) -> None:
    """Each database has functions of its own for that."""
    service.declare("s", "str", "Hello", ["user"])
    found = service.call("GET", "/api/v1/search?q=hELLO").json()["settings"]
    assert [(setting["name"], setting["matches"]) for setting in found] == [("s", ["default_value"])]
    changes = service.call("GET", "/api/v1/change_log?value=hELLO").json()["changes"]
    assert [change["action"] for change in changes] == ["setting declared"]


@pytest.mark.parametrize(
    ("url", "message"), [("mysql://host/db", "use sqlite or postgresql"), ("nonsense", "invalid database URL")]
)
def test_an_unsupported_url_is_an_error_with_a_message(url: str, message: str) -> None:
    """Not an exception of SQLAlchemy."""
    with pytest.raises(ValueError, match=message):
        Database(url)


def test_a_missing_driver_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"heksher_client\[postgresql\]"):
        create_app("postgresql://host/settings")
