"""Export and import: a copy is complete, and an import lists its changes first."""

import errno
import json
import os
import re
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heksher_client.cli import export_file, main
from heksher_client.service import create_app, store
from heksher_client.service.database import Database
from heksher_client.service.document import DocumentError
from heksher_client.service.import_export import apply, export, plan
from heksher_client.service.routes.declarations import DeclaredSetting
from heksher_client.service.schema import MAX_ID
from tests.service.conftest import Clock
from tests.support.marks import sqlite_only


def document(**changes: Any) -> dict[str, Any]:
    """Return a document with two settings, one of them with rules, an alias and metadata."""
    return {
        "heksher": 1,
        "context_features": ["environment", "user"],
        "settings": [
            {
                "name": "s", "type": "float", "default_value": 1.0, "configurable_features": ["environment", "user"],
                "metadata": {"owner": "shop"}, "version": "2.3", "aliases": ["former"],
                "rules": [
                    {"rule_id": 7, "feature_values": {"environment": "prod", "user": "jim"}, "value": 1e300,
                     "metadata": {"ticket": 1}, "starts_at": None, "ends_at": None},
                    {"rule_id": 3, "feature_values": {"user": "ann"}, "value": 2, "metadata": {}, "starts_at": None,
                     "ends_at": None},
                ],
            },
            {
                "name": "t", "type": "str", "default_value": "é\n ", "configurable_features": ["user"], "metadata": {},
                "version": "1.0", "aliases": [], "rules": [],
            },
        ],
    } | changes  # fmt: skip


@pytest.fixture
def database(new_database: Callable[[], str]) -> Any:
    opened = Database(new_database())
    yield opened
    opened.close()


def import_into(database: Database, content: Any, *, exact: bool = False) -> list[str]:
    with database.begin() as connection:
        steps = plan(connection, content, exact=exact)
        apply(connection, steps)
    return [step.text for step in steps]


def export_from(database: Database) -> Any:
    with database.begin(writes=False) as connection:
        return export(connection)


def as_text(content: Any) -> str:
    """Return a document as text, because 1, 1.0 and True are equal in Python."""
    for setting in content["settings"]:
        setting["rules"].sort(key=lambda rule: rule["rule_id"])
    return json.dumps(content, sort_keys=True)


def test_an_export_and_import_preserves_all_data(database: Database) -> None:
    """Including the ids of rules, the order of context features, and the kind of numbers."""
    import_into(database, document())
    assert as_text(export_from(database)) == as_text(document())
    assert import_into(database, export_from(database), exact=True) == []


def test_new_rules_get_ids_after_the_largest_imported_id(database: Database) -> None:
    """Ids are unique."""
    import_into(database, document())
    with database.begin() as connection:
        setting = store.setting(connection, "s")
        assert setting is not None
        assert store.add_rule(connection, setting, {"user": "new"}, 1.5, {}) > 7


@pytest.mark.parametrize("rule_id", [2_000_000_001, MAX_ID - 1, MAX_ID])
def test_an_import_leaves_ids_for_new_rules(database: Database, rule_id: int) -> None:
    """A rule with an id near the maximum gets another one, after all others. All rules can be read and imported."""
    content = document()
    content["settings"][0]["rules"][0]["rule_id"] = rule_id
    content["settings"][0]["rules"][1]["rule_id"] = 2_000_000_000
    import_into(database, content)
    with database.begin() as connection:
        setting = store.setting(connection, "s")
        assert setting is not None
        added = store.add_rule(connection, setting, {"user": "new"}, 1.5, {})
        assert added == 2_000_000_002
        ids = [rule.id for rule in store.rules(connection)]
        assert [store.rule(connection, i) is not None for i in ids] == [True] * 3
    assert ids == [2_000_000_000, 2_000_000_001, 2_000_000_002]
    assert import_into(database, export_from(database), exact=True) == []
    exported = export_from(database)
    import_into(database, document(settings=[]), exact=True)
    import_into(database, exported)
    assert len(export_from(database)["settings"][0]["rules"]) == 3


def test_an_import_names_all_that_it_changes_of_a_rule(database: Database) -> None:
    """The value, the metadata, or both."""
    import_into(database, document())
    content = document()
    first, second = content["settings"][0]["rules"]
    first["metadata"], second["metadata"] = {"ticket": 2}, {"a": 1}
    second["value"] = 3
    assert import_into(database, content) == [
        'change rule 7 of setting s: environment=prod, user=jim metadata from {"ticket":1} to {"ticket":2}',
        'change rule 3 of setting s: user=ann from 2 to 3, metadata from {} to {"a":1}',
    ]
    second["value"] = 4
    assert import_into(database, content) == ["change rule 3 of setting s: user=ann from 3 to 4"]


def test_an_import_keeps_the_periods_of_rules(database: Database, clock: Clock) -> None:
    """In UTC. A document with null for them makes rules permanent."""
    content = document()
    first, second = content["settings"][0]["rules"]
    first |= {"starts_at": "2030-01-01T14:30:00+02:00", "ends_at": clock.at(60)}
    second["ends_at"] = clock.at(-10)
    import_into(database, content)
    first["starts_at"] = clock.at(30)
    assert as_text(export_from(database)) == as_text(content)
    assert import_into(database, export_from(database), exact=True) == []
    with database.begin(writes=False) as connection:
        assert [rule.in_effect for rule in store.rules(connection)] == [False, False]
    clock.move_to(30)
    with database.read() as (connection, _):
        assert [rule.in_effect for rule in store.rules(connection)] == [False, True]
    exported = {rule["rule_id"]: rule for rule in export_from(database)["settings"][0]["rules"]}
    assert list(exported[3])[-2:] == list(exported[7])[-2:] == ["starts_at", "ends_at"]
    second["ends_at"] = clock.at(10)
    assert import_into(database, content) == [
        f'change rule 3 of setting s: user=ann period from {{"ends_at":"{clock.at(-10)}"}} '
        f'to {{"ends_at":"{clock.at(10)}"}}'
    ]
    import_into(database, document())
    with database.begin(writes=False) as connection:
        assert [rule.in_effect for rule in store.rules(connection)] == [True, True]


LEFT_OUT = {
    "setting": ("metadata", "version", "aliases", "rules"),
    "rule": ("rule_id", "metadata", "starts_at", "ends_at"),
}


def temporary(clock: Clock) -> dict[str, Any]:
    """Return a document with a temporary rule."""
    content = document()
    content["settings"][0]["rules"][0] |= {"starts_at": clock.at(30), "ends_at": clock.at(60)}
    return content


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in LEFT_OUT.items() for field in fields])
def test_an_import_leaves_a_field_as_it_is_that_the_document_leaves_out(
    database: Database, clock: Clock, kind: str, field: str
) -> None:
    import_into(database, temporary(clock))
    before = export_from(database)
    content = temporary(clock)
    setting = content["settings"][0]
    del (setting if kind == "setting" else setting["rules"][0])[field]
    assert import_into(database, content) == []
    setting["default_value"] = 7.5
    assert len(import_into(database, content)) == 1
    before["settings"][0]["default_value"] = 7.5
    assert export_from(database) == before


def test_an_exact_import_removes_what_the_document_leaves_out_except_the_version(
    database: Database, clock: Clock
) -> None:
    import_into(database, temporary(clock))
    content = document()
    setting = content["settings"][0]
    for field in ("metadata", "version", "aliases"):
        del setting[field]
    setting["rules"] = [{"feature_values": rule["feature_values"], "value": 3} for rule in setting["rules"]]
    import_into(database, content, exact=True)
    copied = export_from(database)["settings"][0]
    assert (copied["metadata"], copied["version"], copied["aliases"]) == ({}, "2.3", [])
    assert [(rule["metadata"], rule["starts_at"], rule["ends_at"]) for rule in copied["rules"]] == [
        ({}, None, None)
    ] * 2


def test_a_value_of_null_removes_one_limit_of_a_period(database: Database, clock: Clock) -> None:
    """The other one stays as it is. A period that would end before it begins is refused."""
    import_into(database, temporary(clock))
    (rule, _) = (content := document())["settings"][0]["rules"]
    del rule["starts_at"]
    rule["ends_at"] = clock.at(20)
    message = (
        f"^setting s: rule 7 would end before it begins: starts_at would be {re.escape(clock.at(30))}, and ends_at"
    )
    with pytest.raises(DocumentError, match=message) as caught:
        import_into(database, content)
    assert caught.value.path == ("settings", 0, "rules", 0)
    rule["ends_at"] = None
    import_into(database, content)
    stored = next(rule for rule in export_from(database)["settings"][0]["rules"] if rule["rule_id"] == 7)
    assert (stored["starts_at"], stored["ends_at"]) == (clock.at(30), None)


def test_an_invalid_period_in_a_document_has_a_place(database: Database) -> None:
    content = document()
    content["settings"][0]["rules"][1] |= {"starts_at": "2030-01-02T00:00:00Z", "ends_at": "2030-01-01T00:00:00Z"}
    with pytest.raises(DocumentError, match=r"^setting s: rules\.1\.ends_at: ends_at must be later than starts_at$"):
        import_into(database, content)
    content["settings"][0]["rules"][1] = {"feature_values": {"user": "a"}, "value": 1, "starts_at": "2030-01-02"}
    with pytest.raises(DocumentError, match=r"^setting s: rules\.1\.starts_at: a time must be a text in ISO 8601"):
        import_into(database, content)


def test_an_import_deletes_only_if_it_is_exact(database: Database) -> None:
    """The steps describe all changes."""
    import_into(database, document())
    new = document(context_features=["user", "theme", "environment"])
    new["settings"] = [new["settings"][0]]
    new["settings"][0]["rules"] = [{"feature_values": {"user": "ann"}, "value": 5.0}]
    assert import_into(database, new) == [
        "add context feature theme",
        "change rule 3 of setting s: user=ann from 2 to 5.0",
        "change the order of context features to user, theme, environment",
    ]
    assert import_into(database, new, exact=True) == [
        "delete setting t and its 0 rules",
        "delete rule 7 of setting s: environment=prod, user=jim",
    ]
    assert [setting["name"] for setting in export_from(database)["settings"]] == ["s"]
    empty = {"heksher": 1, "context_features": ["user"], "settings": []}
    assert import_into(database, empty, exact=True) == [
        "delete setting s and its 1 rules",
        "delete context feature theme",
        "delete context feature environment",
    ]


def test_an_import_replaces_a_setting(database: Database) -> None:
    """It is found by its name or an alias."""
    import_into(database, document())
    new = document()
    renamed = {"name": "renamed", "aliases": ["s", "more"], "type": "Sequence<int>", "default_value": []}
    new["settings"][0] |= renamed | {"configurable_features": ["user"], "version": "3.0", "metadata": {}, "rules": []}
    with pytest.raises(DocumentError, match="setting renamed: rule 3 is not in the document"):
        import_into(database, new)
    texts = import_into(database, new, exact=True)
    assert any(text.startswith("change setting s: name from") for text in texts)
    assert (texts[0], texts[-1]) == ("delete alias former of setting s", "add alias more of setting renamed")
    assert export_from(database)["settings"][0]["aliases"] == ["more", "s"]
    assert import_into(database, new, exact=True) == []


def test_rules_that_are_not_in_the_document_are_kept_if_they_fit_the_changed_setting(database: Database) -> None:
    import_into(database, document())
    new = document()
    new["settings"][0] |= {"default_value": 9.0, "version": "2.4"}
    new["settings"][0]["rules"] = new["settings"][0]["rules"][:1]
    assert len(import_into(database, new)) == 1
    assert len(export_from(database)["settings"][0]["rules"]) == 2


def test_names_of_several_stored_settings_are_refused(database: Database) -> None:
    """It would be ambiguous which setting is meant."""
    import_into(database, document())
    one = document()
    one["settings"][0]["aliases"] = ["t"]
    one["settings"] = one["settings"][:1]
    with pytest.raises(DocumentError, match="s and t are one setting in the document"):
        import_into(database, one)
    taken = document()
    taken["settings"] = [taken["settings"][1] | {"name": "former"}]
    with pytest.raises(DocumentError, match="former is an alias of s"):
        import_into(database, taken)


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    content = document()
    change(content)
    return content


@sqlite_only
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "does not have the key heksher"),
        ({}, "does not have the key heksher"),
        (document(heksher=2), "format 2"),
        (document(more=1), "more: Extra inputs"),
        (document(context_features=["user", "user"]), "context feature user is repeated"),
        (
            document(context_features=["user"]),
            "setting s: configurable_features: environment is not in context_features",
        ),
        (broken(lambda d: d["settings"].append(d["settings"][0])), "name of a setting s is repeated"),
        (broken(lambda d: d["settings"][0].update(aliases=["t"])), "name of a setting t is repeated"),
        (broken(lambda d: d["settings"][0].update(default_value="x")), "is not of the type"),
        (broken(lambda d: d["settings"][0].update(type="nosuch")), "setting s: type: cannot resolve"),
        (broken(lambda d: d["settings"][0]["rules"][0].update(value="x")), "is not of the type float"),
        (broken(lambda d: d["settings"][0]["rules"][0].update(feature_values={"x": "y"})), "condition on x"),
        (broken(lambda d: d["settings"][0]["rules"][0].update(feature_values={"user": "ann"})), "two rules have"),
        (broken(lambda d: d["settings"][0]["rules"][0].update(rule_id=3)), "rule_id 3 is repeated"),
        (broken(lambda d: d["settings"][0]["rules"][0].update(rule_id=2**31)), "less than or equal"),
    ],
)
def test_an_invalid_document_is_refused_with_a_message(database: Database, content: Any, message: str) -> None:
    """The database is unchanged."""
    with pytest.raises(DocumentError) as caught:
        import_into(database, content)
    assert message in str(caught.value)
    assert export_from(database) == {"heksher": 1, "context_features": [], "settings": []}


_NAMES = st.text("abcXYZ019_", min_size=1, max_size=5)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(10**20), 10**20), "float": st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
    "str": st.text(st.characters(exclude_categories=["Cs"])), "bool": st.booleans(),
    'Enum["1",1,true,0.5]': st.sampled_from(["1", 1, True, 0.5]), "Sequence<int>": st.lists(st.integers(), max_size=3),
    "Mapping<str>": st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.just("x"), max_size=2),
}  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    features = draw(st.lists(_NAMES, min_size=1, max_size=4, unique=True))
    names = draw(st.lists(_NAMES, min_size=1, max_size=6, unique=True))
    content: list[dict[str, Any]] = []
    number = 0
    while names:
        name, *names = names
        aliases = [names.pop() for _ in range(draw(st.integers(0, min(1, len(names)))))]
        type_ = draw(st.sampled_from(sorted(_VALUES)))
        mine = draw(st.lists(st.sampled_from(features), min_size=1, unique=True))
        conditions = st.dictionaries(st.sampled_from(mine), _NAMES, min_size=1)
        found = draw(st.lists(conditions, max_size=4, unique_by=lambda c: tuple(sorted(c.items()))))
        rules = []
        for wanted in found:
            number += draw(st.integers(1, 9))
            value = draw(_VALUES[type_])
            rules.append({"rule_id": number, "feature_values": wanted, "value": value, "metadata": draw(_METADATA)})
        content.append({
            "name": name, "type": type_, "default_value": draw(_VALUES[type_]), "configurable_features": mine,
            "metadata": draw(_METADATA), "version": "1.0", "aliases": aliases, "rules": rules,
        })  # fmt: skip
    return {"heksher": 1, "context_features": features, "settings": content}


_METADATA = st.dictionaries(_NAMES, st.none() | st.booleans() | st.text("é\n ", max_size=3), max_size=2)


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(documents(), documents(), st.sampled_from(["json", "json", "json", "yaml"]))
def test_an_exact_import_copies_any_database(tmp_path: Path, first: Any, then: Any, kind: str) -> None:
    """Through a file, and whatever the database contained before."""
    databases = [Database("sqlite://") for _ in range(2)]
    for database, content in zip(databases, (first, then), strict=True):
        import_into(database, content)
    file = str(tmp_path / f"file.{kind}")
    export_file.write_document(file, export_from(databases[1]))
    import_into(databases[0], export_file.ExportFile(file).document(), exact=True)
    assert import_into(databases[0], export_file.ExportFile(file).document(), exact=True) == []
    contents = []
    for database in databases:
        content = export_from(database)
        database.close()
        for setting in content["settings"]:
            for rule in setting["rules"]:
                del rule["rule_id"]  # Ids that were in use before are not preserved.
            setting["rules"].sort(key=lambda rule: sorted(rule["feature_values"].items()))
        contents.append(json.dumps(content, sort_keys=True))
    assert contents[0] == contents[1]


def run(command: str, *arguments: Any, **options: Any) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["service", command, *map(str, arguments)], **options)
    return result.exit_code, result.output


def test_the_import_command_asks_for_confirmation(tmp_path: Path) -> None:
    """It lists the changes first. Without a terminal it changes nothing, unless `--yes` is given."""
    file, database = tmp_path / "file.json", tmp_path / "new.db"
    file.write_text(json.dumps(document()))
    option = ("--database", database)
    code, output = run("import", file, *option, "--dry-run")
    assert (code, output.splitlines()[2]) == (0, "add setting s")
    for answer in ("n\n", ""):
        code, output = run("import", file, *option, input=answer)
        assert (code, "Make these 7 changes?" in output) == (1, True)
    assert run("export", "-", *option)[1].count('"name"') == 0
    assert run("import", file, *option, input="y\n")[1].endswith("Made 7 changes.\n")
    assert run("import", file, *option)[1] == "Nothing to do: the database matches the file.\n"
    code, output = run("export", tmp_path / "file.yaml", *option)
    assert output == f"Exported 2 context features, 2 settings and 2 rules to {tmp_path}/file.yaml.\n"
    assert yaml.safe_load((tmp_path / "file.yaml").read_text(encoding="utf-8"))["settings"][0]["version"] == "2.3"


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, str]:
    """Return a database, and what an export of it contains."""
    file, path = tmp_path / "file.json", tmp_path / "s.db"
    file.write_text(json.dumps(document()))
    assert run("import", file, "--yes", "--database", path)[0] == 0
    file.unlink()
    return path, run("export", "-", "--database", path)[1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("command", ["export", "changes"])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_pipe_is_written_and_stays_a_pipe(
    exported: tuple[Path, str], tmp_path: Path, command: str, is_link: bool
) -> None:
    """So do devices: replacing `/dev/null` would destroy it."""
    database, _ = exported
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    before = set(tmp_path.iterdir())
    reading_end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    code, output = run(command, link if is_link else pipe, "--database", database)
    content = os.read(reading_end, 1 << 16).decode()
    os.close(reading_end)
    assert (code, content) == (0, run(command, "-", "--database", database)[1]), output
    assert (pipe.is_fifo(), link.is_symlink()) == (True, True)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("file", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("command", ["export", "changes"])
def test_the_files_that_are_standard_output_are_written_as_standard_output(
    exported: tuple[Path, str], command: str, file: str
) -> None:
    """Without a message in the output, which another program may parse."""
    database, _ = exported
    assert run(command, file, "--database", database) == run(command, "-", "--database", database)


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS])
def test_an_export_to_a_file_that_cannot_be_replaced_is_written_in_place(
    exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It may be a mount point, or its folder read-only. No draft is left."""
    database, content = exported
    file = tmp_path / "file.json"
    file.write_text("x" * 10_000)
    inode = file.stat().st_ino
    monkeypatch.setattr(Path, "replace", partial(fail, code))
    assert run("export", file, "--database", database)[0] == 0
    assert (file.read_text(), file.stat().st_ino) == (content, inode)
    assert set(tmp_path.glob("*file*")) | set(tmp_path.glob(".*")) == {file}


def fail(code: int, *_: Any) -> None:
    raise OSError(code, os.strerror(code), "draft")


def test_an_export_that_fails_leaves_the_file_as_it_was(
    exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file, and no draft is left."""
    database, _ = exported
    file = tmp_path / "file.json"
    file.write_text("former")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", partial(fail, errno.ENOSPC))
        result = run("export", file, "--database", database)
    assert result == (1, f"Error: cannot write {file}: No space left on device\n")
    assert file.read_text() == "former"
    missing = tmp_path / "none" / "file.json"
    result = run("export", missing, "--database", database)
    assert result == (1, f"Error: cannot write {missing}: No such file or directory\n")
    assert set(tmp_path.glob("*file*")) | set(tmp_path.glob(".*")) == {file}


def test_an_export_replaces_the_file_to_which_a_link_points(exported: tuple[Path, str], tmp_path: Path) -> None:
    """The file keeps its permissions, and the link stays a link."""
    database, content = exported
    (tmp_path / "other").mkdir()
    file, link = tmp_path / "other" / "file.json", tmp_path / "link"
    file.touch(0o600)
    link.symlink_to(file)
    assert run("export", link, "--database", database)[0] == 0
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode), link.is_symlink()) == (content, 0o600, True)
    assert list(file.parent.iterdir()) == [file]


def test_the_import_command_reports_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "evil.yaml").write_text("!!python/object/apply:os.system [x]")
    (tmp_path / "other.json").write_text("{}")
    for name, message in (
        ("bad.json", "line 1: "), ("bad.yaml", "line 2: "), ("evil.yaml", "line 1: the document: the type python/"),
        ("other.json", "does not have the key heksher"), ("none.json", "No such file"),
    ):  # fmt: skip
        code, output = run("import", tmp_path / name, "--database", tmp_path / "s.db")
        assert (code, output.count("\n"), message in output) == (1, 1, True), output


def test_the_import_command_stops_if_the_database_has_changed_since_the_confirmation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes would not be the confirmed ones."""
    file, database = tmp_path / "file.json", tmp_path / "s.db"
    file.write_text(json.dumps(document()))

    def confirm(*_: Any, **__: Any) -> bool:
        app = create_app(f"sqlite:///{database}", ["user"])
        app.state.database.close()
        return True

    monkeypatch.setattr("click.confirm", confirm)
    code, output = run("import", file, "--database", database)
    assert (code, "has changed since the confirmation" in output) == (1, True)


def test_l15_the_import_command_stops_after_any_change_since_the_confirmation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after one that its texts do not show: in a long value, in metadata, or of what it deletes."""
    file, path = tmp_path / "file.json", tmp_path / "s.db"
    file.write_text(json.dumps(document()))
    run("import", file, "--yes", "--database", path)
    changed = document()
    changed["settings"][0]["rules"] = [{"feature_values": {"user": "ann"}, "value": 3, "metadata": {"ticket": 2}}]
    del changed["settings"][1]
    file.write_text(json.dumps(changed))
    opened = Database(f"sqlite:///{path}")

    def change(attributes: Any, exported: list[Any], *_: Any, **__: Any) -> None:
        with opened.begin() as connection:
            rule = store.rule(connection, 3)
            assert rule is not None
            store.change_rule(connection, store.setting_of(connection, rule), rule, **attributes)
            exported.append(export(connection))

    long = "x" * 100
    for attributes in ({"metadata": {"by": "another"}}, {"value": 2.0}, {"value": 2}, {"metadata": {"note": long}}):
        exported: list[Any] = []
        monkeypatch.setattr("click.confirm", partial(change, attributes, exported))
        code, output = run("import", file, "--exact", "--database", path)
        assert (code, "has changed since the confirmation" in output) == (1, True), output
        assert export_from(opened) == exported[0]
    monkeypatch.setattr("click.confirm", lambda *_, **__: True)
    assert run("import", file, "--exact", "--database", path)[0] == 0
    opened.close()


def test_an_import_is_in_the_change_log_which_can_be_exported(tmp_path: Path) -> None:
    """One change per line, with the actor."""
    file, database = tmp_path / "file.json", tmp_path / "s.db"
    file.write_text(json.dumps(document()))
    run("import", file, "--yes", "--database", database)
    output = run("changes", "-", "--database", database)[1]
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["revision"] for line in lines] == list(range(1, 8))
    assert {line["action"] for line in lines} == {
        "context feature added", "setting declared", "aliases changed", "rule added",
    }  # fmt: skip
    assert all(line["actor"] for line in lines)
    log = tmp_path / "log"
    assert run("changes", log, "--after", "5", "--database", database)[1] == f"Wrote 2 changes to {log}.\n"
    assert len(log.read_text().splitlines()) == 2


def test_a_document_may_leave_out_optional_fields(database: Database) -> None:
    """Ids, versions, aliases and metadata: so it is easy to write by hand."""
    rule = {"feature_values": {"user": "jim"}, "value": 2}
    setting = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"], "rules": [rule]}
    texts = import_into(database, {"heksher": 1, "context_features": ["user"], "settings": [setting]})
    assert texts == ["add context feature user", "add setting s", "add rule to setting s: user=jim is 2"]
    assert DeclaredSetting(**{k: v for k, v in setting.items() if k != "rules"}).version == "1.0"  # type: ignore[arg-type]
