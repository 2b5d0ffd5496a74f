"""The command `changes`, which shows the change log."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from heksher_client.cli import arguments, changes
from heksher_client.service.changes import record_change
from tests.support.commands import Run
from tests.support.service import CannedResponse, WatchedService

LOG = "GET /api/v1/change_log"


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_latest_changes_are_shown(run: Run, shop: WatchedService) -> None:
    """The latest one last: of all settings, or of one."""
    run("rules", "set", "cache_size", "101", "user=jim", "--comment", "faster")
    run("rules", "change", "cache_size", "user=jim", "--comment", "")
    run("rules", "remove", "cache_size", "environment=prod")
    lines = run("changes", "--limit", "3").out.splitlines()
    assert lines[0].split() == ["revision", "time", "actor", "action", "setting", "change"]
    assert [re.split(" {2,}", line.split(None, 4)[4].rstrip()) for line in lines[1:]] == [
        ["rule changed", "cache_size", "user=jim: 100 -> 101 (faster)"],
        ["rule changed", "cache_size", 'user=jim: metadata {"comment": "faster"} -> {}'],
        ["rule deleted", "cache_size", "environment=prod: 50"],
    ]
    assert [change["action"] for change in json_lines(run("changes", "shop.color", "--json").out)] == [
        "setting declared"
    ]


def test_changes_are_filtered(run: Run, shop: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """By action, token and time; after a revision, the first ones."""
    added = json_lines(run("changes", "--action", "Rule added", "--json").out)
    assert [change["revision"] for change in added] == [5, 6, 7]
    first = json_lines(run("changes", "--after", "4", "--limit", "2", "--json").out)
    assert [change["revision"] for change in first] == [5, 6]
    assert run("changes", "--actor", "nobody").out == "No changes.\n"
    for options, value in (
        (["--feature", "environment=prod", "--value", "50"], 50),
        (["--feature", "user", "--value", "100"], 100),
        (["--setting", "E_SI", "--value", "10", "--after", "4"], 100),
    ):
        found = json_lines(run("changes", *options, "--json").out)
        assert [change["new"] and change["new"]["value"] for change in found] == [value], options
    outcome = run("changes", "--feature", "a b")
    assert (outcome.status, "'a b' must have the form FEATURE or FEATURE=VALUE" in outcome.err) == (2, True)
    assert run("changes", "--after", "1", "--actor", "nobody").out == "No changes.\n"
    assert run("changes", "--after", "1", "--actor", "schedule").out == "No changes.\n"
    assert run("changes", "--after", "1", "--since", "2099-01-01").out == "No changes.\n"
    assert run("changes", "--after", "1", "--action", "feature", "--json").out.count("\n") == 1
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert run("changes", "--since", tomorrow.isoformat()).out == "No changes.\n"
    assert run("changes", "--until", "1h").out == "No changes.\n"
    assert run("changes", "--until", tomorrow.isoformat(), "--limit", "1").out.count("\n") == 2
    assert run("changes", "--since", "1h", "--limit", "1").out.count("\n") == 2
    monkeypatch.setattr(arguments, "now", lambda: tomorrow)
    assert run("changes", "--since", "2h").out == "No changes.\n"
    outcome = run("changes", "--since", "999999w")
    assert (outcome.status, "'999999w' is not a time" in outcome.err) == (2, True)
    outcome = run("changes", "--since", "yesterday")
    assert (outcome.status, "'yesterday' is not a time: use one such as 2026-01-31T09:30" in outcome.err) == (2, True)


def test_changes_are_sorted(run: Run, shop: WatchedService) -> None:
    """The newest or the oldest first. Of the newest ones, those after a revision as well."""

    def revisions(*options: str) -> list[int]:
        return [change["revision"] for change in json_lines(run("changes", "--json", *options).out)]

    assert revisions("--sort", "newest", "--limit", "2") == [7, 6]
    assert revisions("--sort", "newest", "--after", "5") == [7, 6]
    assert revisions("--sort", "oldest", "--action", "rule", "--limit", "2") == [5, 6]
    assert revisions("--sort", "oldest", "--after", "5") == [6, 7]


def test_a_long_log_is_read_in_pages(run: Run, shop: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_PAGE", 2)
    every = json_lines(run("changes", "--json", "--limit", "100").out)
    assert [change["revision"] for change in every] == list(range(1, 8))
    assert json_lines(run("changes", "--json", "--limit", "100", "--after", "0").out) == every


@pytest.mark.parametrize(
    ("former", "new", "text"),
    [
        (["user"], ["user", "theme"], '["user"] -> ["user", "theme"]'),
        (None, {"name": "s", "type": "int"}, ""),
        (None, None, "x"),
        ({"name": "s", "type": "int"}, {"name": "s", "type": "float"}, "type int -> float"),
        ({"aliases": []}, {"aliases": ["t"]}, 'aliases [] -> ["t"]'),
        (None, {"feature_values": {"user": "x"}, "value": "y" * 70, "metadata": {}}, f"user=x: {'y' * 59}…"),
        (
            {"feature_values": {"user": "x"}, "value": 1, "metadata": {"comment": "as asked"}, "comment": "too slow"},
            None,
            "user=x: 1 (too slow)",
        ),
        (
            {"feature_values": {"user": "x"}, "value": 1},
            {"feature_values": {"user": "z"}, "value": 1},
            'user=z: feature_values {"user": "x"} -> {"user": "z"}',
        ),
        (
            {"feature_values": {"user": "x"}, "value": 1, "metadata": {"comment": "old"}},
            {"feature_values": {"user": "x"}, "value": 2, "metadata": {"comment": "old"}},
            "user=x: 1 -> 2",
        ),
        ({"feature_values": {"user": "x"}, "value": 1}, {"feature_values": {"user": "x"}, "value": 1}, "user=x: 1"),
        (None, {"name": "ci", "role": "read", "created_at": "2026-01-31T09:30:00+00:00"}, "ci: read"),
        (None, None, " x"),
    ],
)
def test_each_kind_of_change_has_a_description(
    run: Run,
    shop: WatchedService,
    former: object,
    new: object,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what differs, and no more than fits."""
    change = {"revision": 1, "at": "2026-01-31T09:30:00", "actor": "ops", "action": "x", "settings": []}
    change |= {"former": former, "new": new}
    shop.respond_with(LOG, CannedResponse.of({"changes": [change]}), times=1)
    monkeypatch.setattr(changes, "_PAGE", 1)
    line = run("changes").out.splitlines()[1]
    assert line.rstrip().endswith(text)
    assert " ops " in line


def test_the_schedule_is_an_author(run: Run, shop: WatchedService) -> None:
    """With a part of this name as well."""
    assert shop.database is not None
    with shop.database.begin() as connection:
        record_change(connection, "rule ended", settings=["cache_size"])
    for options in (["--actor", "schedule"], ["--actor", "SCHED", "--after", "1"]):
        found = json_lines(run("changes", *options, "--json").out)
        assert [change["action"] for change in found] == ["rule ended"]


def test_a_deleted_setting_has_changes(run: Run, shop: WatchedService) -> None:
    """Only a name that never existed is an error, not filters that leave nothing."""
    assert run("changes", "shop.color", "--actor", "nobody").out == "No changes.\n"
    run("settings", "delete", "shop.color", "--yes")
    assert "setting deleted" in run("changes", "shop.color").out
    assert run("changes", "shop.color", "--actor", "nobody").status == 0
    assert run("changes", "shop.colour").status == 1


def test_a_service_without_a_log_is_reported(run: Run, shop: WatchedService) -> None:
    shop.respond_with(LOG, CannedResponse(404))
    outcome = run("changes")
    assert (outcome.status, "responded with 404" in outcome.err) == (1, True)
