"""The commands `compare` and `copy`: two contexts of one service."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.operations import require_rule
from heksher_client.service.rule_period import Period
from tests.support.commands import FEATURES, Outcome, Run
from tests.support.service import CannedResponse, RecordedRequest, WatchedService

STAGING, PROD = "environment=staging", "environment=prod"


def rows(outcome: Outcome) -> list[list[str]]:
    """Return the cells of a table, which are separated by two spaces at least."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in outcome.out.splitlines()]


def rules(shop: WatchedService, name: str = "cache_size") -> list[tuple[dict[str, str], Any, dict[str, Any]]]:
    query = {"settings": name, "context_filters": "*", "include_metadata": "true"}
    path = "/api/v1/query?" + "&".join(f"{key}={value}" for key, value in query.items())
    found = shop.call("GET", path).json()["settings"][name]["rules"]
    return [(dict(rule["context_features"]), rule["value"], rule["metadata"]) for rule in found]


# -- compare -----------------------------------------------------------------------------------------------------------


def test_compare_shows_the_values_that_differ(run: Run, shop: WatchedService) -> None:
    """Also those with the further conditions of a rule for one of the contexts. The exit status is 5."""
    outcome = run("compare", STAGING, PROD)
    assert (outcome.status, outcome.err) == (5, "")
    assert rows(outcome) == [
        ["setting", "with", STAGING, PROD],
        ["cache_size", "10 (default)", "50"],
        ["cache_size", "user=jim", "100", "200"],
    ]
    outcome = run("compare", STAGING, PROD, "--all")
    assert outcome.status == 5
    assert ["shop.color", "red (default)", "red (default)"] in rows(outcome)


@pytest.mark.parametrize("options", [(), ("--all",), ("--json",), ("shop.*", "--all")])
def test_compare_works_with_a_service_that_cannot_compare(
    run: Run, shop: WatchedService, options: tuple[str, ...]
) -> None:
    """It reads all rules instead."""
    expected = run("compare", STAGING, PROD, *options)
    shop.respond_with("GET /api/v1/compare", CannedResponse(404, b"Not Found"))
    assert run("compare", STAGING, PROD, *options) == expected


def test_compare_shows_as_many_values_as_wanted(run: Run) -> None:
    """A note says how many are left out."""
    outcome = run("compare", STAGING, PROD, "--limit", "1")
    assert rows(outcome) == [["setting", STAGING, PROD], ["cache_size", "10 (default)", "50"]]
    assert outcome.err == "Note: 1 value is not shown; use --limit 2, NAME-PATTERN or --json.\n"
    outcome = run("compare", STAGING, PROD, "--limit", "1", "--json")
    assert (len(outcome.json), outcome.status, outcome.err) == (1, 5, "")


def test_compare_ends_with_status_0_if_the_values_are_equal(run: Run) -> None:
    """With `--all`, they are shown nevertheless."""
    assert run("compare", STAGING, PROD, "shop.*") == Outcome(0, "No differences.\n", "")
    assert rows(run("compare", STAGING, PROD, "shop.*", "--all")) == [
        ["setting", STAGING, PROD],
        ["shop.color", "red (default)", "red (default)"],
    ]
    assert run("compare", STAGING, "environment=dev", "--json").json == []


def test_compare_prints_json(run: Run) -> None:
    """With the rules that decide the values."""
    outcome = run("compare", f"{STAGING},user=jim", f"{PROD},user=ann", "--json")
    assert outcome.status == 5
    assert outcome.json == [
        {
            "setting": "cache_size",
            "conditions": {},
            "a": {"value": 100, "rule": {"rule_id": 2, "conditions": {"user": "jim"}}},
            "b": {"value": 50, "rule": {"rule_id": 3, "conditions": {"environment": "prod"}}},
            "is_different": True,
        }
    ]
    (color,) = run("compare", STAGING, PROD, "shop.*", "--all", "--json").json
    assert (color["a"], color["is_different"]) == ({"value": "red", "rule": None}, False)


def test_the_defaults_of_the_profile_complete_the_contexts(run: Run) -> None:
    """As for `get`. The heading shows the whole contexts."""
    outcome = run("compare", "user=jim", "user=ann")
    assert rows(outcome) == [["setting", f"{PROD} user=jim", f"{PROD} user=ann"], ["cache_size", "200", "50"]]


def test_a_value_may_contain_a_comma_or_markup(run: Run, shop: WatchedService) -> None:
    r"""A comma is written as `\,`."""
    shop.add_rule("shop.color", "[bold]", user="Lee, [bold]Ann")
    outcome = run("compare", r"user=Lee\, [bold]Ann,environment=dev", "user=jim", "shop.*")
    assert rows(outcome) == [
        ["setting", "environment=dev 'user=Lee, [bold]Ann'", f"{PROD} user=jim"],
        ["shop.color", "[bold]", "red (default)"],
    ]


@pytest.mark.parametrize("command", ["compare", "copy"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", PROD), "'' must have the form FEATURE=VALUE"),
        (("user", PROD), "'user' must have the form FEATURE=VALUE"),
        ((f"{STAGING},", PROD), "'' must have the form FEATURE=VALUE"),
        ((f"{STAGING},{STAGING}", PROD), "context feature environment is given twice"),
        ((STAGING, "planet=mars,user=jim"), "does not have the context feature planet; its context features are: "
         "environment, user"),
        ((STAGING,), "Missing argument 'B'"),
    ],
)  # fmt: skip
def test_invalid_contexts_exit_with_status_2(run: Run, command: str, arguments: tuple[str, ...], message: str) -> None:
    """The message says what is valid."""
    outcome = run(command, *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in " ".join(outcome.err.split())


@pytest.mark.parametrize("command", ["compare", "copy"])
def test_a_pattern_that_matches_no_setting_is_an_error(run: Run, command: str, shop: WatchedService) -> None:
    """It is probably a misspelled name. A service without settings has no differences."""
    outcome = run(command, STAGING, PROD, "cache")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert f"no setting of {shop.url} matches 'cache'" in outcome.err
    shop.reset()
    assert run(command, STAGING, PROD).status == 0


# -- copy --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def staging(shop: WatchedService) -> WatchedService:
    """The service with three rules for `staging`. Another rule of prod has the value of one of them."""
    body = {"setting": "cache_size", "feature_values": {"environment": "staging"}, "value": 70}
    shop.call("POST", "/api/v1/rules", body | {"metadata": {"comment": "load test", "team": "shop"}})
    shop.add_rule("cache_size", 200, environment="staging", user="jim")
    shop.add_rule("cache_size", 80, environment="staging", user="ann")
    return shop


def test_copy_adds_and_changes_the_rules_of_the_other_context(run: Run, staging: WatchedService) -> None:
    """With their metadata. Rules with the same value stay as they are, and so do all others."""
    outcome = run("copy", STAGING, PROD, "--yes")
    assert outcome == Outcome(
        0,
        "~ cache_size rule environment=prod: 50 -> 70\n"
        "+ cache_size rule environment=prod user=ann: 80\n"
        "1 added, 1 changed, 1 unchanged.\n",
        "",
    )
    found = rules(staging)
    metadata = {"comment": "load test", "team": "shop"}
    assert ({"environment": "prod"}, 70, metadata) in found
    assert ({"environment": "prod", "user": "ann"}, 80, {}) in found
    assert ({"environment": "prod", "user": "jim"}, 200, {}) in found
    assert len(found) == 7
    assert run("copy", STAGING, PROD).out == "0 added, 0 changed, 3 unchanged.\n"
    assert run("compare", STAGING, PROD).out == "No differences.\n"


def test_a_dry_run_changes_nothing(run: Run, staging: WatchedService) -> None:
    """JSON has the same numbers, and each change as in the JSON of `diff`."""
    before = rules(staging)
    assert run("copy", STAGING, PROD, "--dry-run").out.splitlines() == [
        "~ cache_size rule environment=prod: 50 -> 70",
        "+ cache_size rule environment=prod user=ann: 80",
        "1 added, 1 changed, 1 unchanged (dry run).",
    ]
    assert run("copy", STAGING, PROD, "--dry-run", "--json").json == {
        "added": 1,
        "changed": 1,
        "unchanged": 1,
        "skipped": 0,
        "rules": [
            {"setting": "cache_size", "what": "rule", "conditions": {"environment": "prod"}, "before": 50, "after": 70,
             "kind": "changed"},
            {"setting": "cache_size", "what": "rule", "conditions": {"environment": "prod", "user": "ann"},
             "before": None, "after": 80, "kind": "added"},
        ],
    }  # fmt: skip
    assert rules(staging) == before
    assert run("copy", STAGING, PROD, "shop.*", "--yes", "--json").json["rules"] == []


def test_copy_asks_for_confirmation(run: Run, staging: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer, as in a script, nothing is changed."""
    outcome = run("copy", STAGING, PROD)
    assert (outcome.status, outcome.err) == (1, "Make these 2 changes? [y/N]: Aborted!\n")
    assert len(rules(staging)) == 6
    monkeypatch.setattr("click.confirm", lambda *_, **__: True)
    assert run("copy", STAGING, PROD).status == 0
    assert len(rules(staging)) == 7


def test_diff_of_contexts_names_compare(run: Run, staging: WatchedService) -> None:
    """A pair of a feature and a value is not a profile."""
    outcome = run("diff", "environment=staging", "environment=prod")
    assert (outcome.status, "use `heksher-client compare`" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((STAGING, STAGING, "--yes"), "A and B are the same context"),
        ((STAGING, PROD, "--json"), "--json requires --yes or --dry-run"),
        ((STAGING, PROD, "--yes", "--link", "javascript:x"), "'javascript:x' must begin with http:// or https://"),
    ],
)
def test_invalid_usage_of_copy_exits_with_status_2(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """No request is sent."""
    outcome = run("copy", *arguments)
    assert (outcome.status, message in outcome.err) == (2, True)


def test_copied_rules_get_a_comment_and_a_link(run: Run, staging: WatchedService) -> None:
    """Instead of those of the copied rules. Their other metadata are copied, and a replaced rule keeps its own."""
    staging.call("PUT", "/api/v1/rules/3/metadata", {"metadata": {"protected": True, "link": "https://old.example"}})
    outcome = run("copy", STAGING, PROD, "--yes", "--comment", "tested", "--link", "https://example.com/1")
    assert outcome.status == 0
    notes = {"comment": "tested", "link": "https://example.com/1"}
    found = rules(staging)
    assert ({"environment": "prod"}, 70, {"protected": True, "team": "shop", **notes}) in found
    assert ({"environment": "prod", "user": "ann"}, 80, notes) in found


def test_a_change_without_other_metadata_is_one_request(run: Run, staging: WatchedService) -> None:
    """Metadata are replaced by another one."""
    staging.call("DELETE", "/api/v1/rules/4")
    staging.add_rule("cache_size", 70, environment="staging")
    assert "~ cache_size rule environment=prod: 50 -> 70\n" in run("copy", STAGING, PROD, "--yes").out
    changes = [str(request) for request in staging.requests if request.method == "PUT"]
    assert changes == ["PUT /api/v1/rules/3/value"]


def test_temporary_rules_are_copied_with_their_period(run: Run, staging: WatchedService) -> None:
    """Only while they are in effect. A rule with the same value and another period is changed."""
    period = {"starts_at": "2020-01-01T00:00:00+00:00", "ends_at": "2100-01-01T00:00:00+00:00"}
    past = {"starts_at": None, "ends_at": "2020-01-01T00:00:00+00:00"}
    staging.call("PUT", "/api/v1/rules/5/period", period)
    staging.call("PUT", "/api/v1/rules/6/period", period)
    staging.call("PUT", "/api/v1/rules/4/period", past)
    outcome = run("copy", STAGING, PROD, "--yes")
    assert (outcome.status, outcome.out.splitlines()[-1]) == (0, "1 added, 1 changed, 0 unchanged.")
    line = "~ cache_size rule period environment=prod user=jim: {} -> "
    assert line in outcome.out
    assert "environment=prod user=ann: 80\n" in outcome.out
    for rule_id in (1, 7):
        rule = staging.call("GET", f"/api/v1/rules/{rule_id}").json()
        assert {name: rule[name] for name in period} == period
    assert run("copy", STAGING, PROD).out == "0 added, 0 changed, 2 unchanged.\n"
    assert run("compare", STAGING, PROD, "--json").json[0]["a"] == {"value": 10, "rule": None}


def test_a_rule_whose_period_somebody_else_has_changed_is_not_overwritten(run: Run, staging: WatchedService) -> None:
    """Although its value is the same."""
    body = {"starts_at": None, "ends_at": "2100-01-01T00:00:00+00:00"}
    staging.call("PUT", "/api/v1/rules/5/period", body)

    def change(connection: Connection) -> None:
        rule, setting = require_rule(connection, 1)
        store.change_rule(connection, setting, rule, period=Period(None, datetime(2099, 1, 1, tzinfo=UTC)))

    change_before(staging, "GET /api/v1/rules/1", change)
    outcome = run("copy", STAGING, PROD, "--yes")
    assert (outcome.status, "rule 1 of setting cache_size has been changed" in outcome.err) == (1, True)


def test_rules_that_cannot_be_copied_are_skipped(run: Run, staging: WatchedService) -> None:
    """With the reason, on standard error."""
    staging.add_rule("shop.color", "blue", user="jim")
    outcome = run("copy", "user=jim", PROD, "--dry-run")
    assert outcome.err == (
        "Skipped cache_size rule environment=prod user=jim: the rule has another condition on environment.\n"
        "Skipped cache_size rule environment=staging user=jim: the rule has another condition on environment.\n"
        "Skipped shop.color rule user=jim: the setting is not configurable by environment.\n"
    )
    assert outcome.out.endswith("0 added, 1 changed, 0 unchanged, 3 skipped (dry run).\n")


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_rule_that_somebody_else_has_changed_is_not_overwritten(
    run: Run, staging: WatchedService, *, is_deleted: bool
) -> None:
    """The command says how many changes it has made. It makes the others when it is run again."""

    def change(connection: Connection) -> None:
        rule, setting = require_rule(connection, 3)
        if is_deleted:
            store.delete_rule(connection, setting, rule)
        else:
            set_value(connection, 51)

    change_before(staging, "GET /api/v1/rules/3", change)
    outcome = run("copy", STAGING, PROD, "--yes")
    assert (outcome.status, outcome.err) == (
        1,
        "Made 0 of 2 changes.\nError: rule 3 of setting cache_size has been changed or removed by somebody else\n",
    )
    staging.intercept = lambda request: None
    outcome = run("copy", STAGING, PROD, "--yes")
    assert (outcome.status, outcome.err) == (0, "")


def test_a_change_just_before_that_of_the_command_is_not_lost(run: Run, staging: WatchedService) -> None:
    """The service refuses that of the command."""
    change_before(staging, "PUT /api/v1/rules/3/value", lambda connection: set_value(connection, 51))
    outcome = run("copy", STAGING, PROD, "--yes")
    assert (outcome.status, "412" in outcome.err) == (1, True)
    assert ({"environment": "prod"}, 51, {}) in rules(staging)


def set_value(connection: Connection, value: int) -> None:
    rule, setting = require_rule(connection, 3)
    store.change_rule(connection, setting, rule, value=value)


def change_before(service: WatchedService, route: str, change: Callable[[Connection], None]) -> None:
    """Change the database before the first request to a route is handled."""
    database = service.database
    assert database is not None

    def intercept(_: RecordedRequest) -> None:
        with database.begin() as connection:
            change(connection)

    service.respond_with(route, intercept, times=1)


def test_one_change_is_confirmed_in_the_singular(run: Run, staging: WatchedService) -> None:
    outcome = run("copy", f"{STAGING},user=ann", f"{PROD},user=ann")
    assert (outcome.status, outcome.err) == (1, "Make this change? [y/N]: Aborted!\n")


def test_a_failure_in_the_middle_keeps_the_changes_before(run: Run, staging: WatchedService) -> None:
    """The exit status is that of the failure."""
    staging.respond_with("POST /api/v1/rules", CannedResponse(503, b"not today"))
    outcome = run("copy", STAGING, PROD, "--yes")
    assert (outcome.status, outcome.err.startswith("Made 1 of 2 changes.\nError: ")) == (3, True)
    assert ({"environment": "prod"}, 70) in [rule[:2] for rule in rules(staging)]


def test_large_services_are_read_with_few_requests(run: Run, shop: WatchedService) -> None:
    """50 settings with their rules by one request."""
    for number in range(60):
        shop.declare(f"s{number}", "int", 0, list(FEATURES))
    assert run("copy", STAGING, PROD, "s*").status == 0
    assert len([request for request in shop.requests if request.path == "/api/v1/query"]) == 2
