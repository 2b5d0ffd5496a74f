"""The commands that list, show and change settings and context features."""

import pytest

from heksher_client.admin import AdminClient
from heksher_client.cli.output import local_time
from tests.support.commands import Run
from tests.support.service import CannedResponse, WatchedService


def test_a_part_of_the_name_finds_settings(run: Run) -> None:
    """Patterns with wildcards are for the whole name. If nothing is found, the status is 1."""
    assert [row["name"] for row in run("settings", "color", "--json").json] == ["shop.color"]
    assert [row["name"] for row in run("settings", "list", "shop.*", "--json").json] == ["shop.color"]
    outcome = run("settings", "colour", "--json")
    assert (outcome.status, outcome.json) == (1, [])
    assert outcome.err == "Error: no setting matches 'colour'; did you mean shop.color?\n"
    outcome = run("settings", "xyzzy*")
    assert (outcome.status, outcome.out) == (1, "")
    assert "no setting matches 'xyzzy*'; list all 2 settings with `heksher-client settings`" in outcome.err


def test_a_service_without_settings_has_an_empty_list(run: Run, shop: WatchedService) -> None:
    shop.reset()
    assert (run("settings").out, run("settings").status) == ("No settings.\n", 0)


def test_show_has_all_attributes(run: Run, shop: WatchedService) -> None:
    """As text, and as JSON. The description comes first."""
    run("settings", "describe", "shop.color", "Color of the shop")
    lines = [line.split(None, 1) for line in run("settings", "show", "shop.color").out.splitlines()]
    assert lines[:2] == [["name", "shop.color"], ["description", "Color of the shop"]]
    assert ["default", "red"] in lines
    assert ["metadata", "owner            jane"] in lines
    assert lines[-1] == ["rules", "0"]
    shown = run("settings", "show", "cache_size", "--json").json
    assert (shown["name"], shown["rules"], shown["version"]) == ("cache_size", 3, "1.0")
    assert run("settings", "show", "nothing").status == 1


def test_a_setting_is_renamed_retyped_described_and_deleted(run: Run, shop: WatchedService) -> None:
    """Each change has the next minor version, unless another one is given."""
    out = run("settings", "rename", "cache_size", "size").out
    assert out == "Renamed setting cache_size to size; its version is 1.1 now.\n"
    assert run("get", "cache_size", "user=jim").out == "200\n"
    refused = run("settings", "retype", "size", "float")
    assert refused.status == 1
    assert refused.err == (
        "Error: the service has refused the request (409): cannot change type to non-subtype float in a minor version "
        "bump; use the next major version, such as --version 2.0\n"
    )
    out = run("settings", "retype", "size", "float", "--version", "2.0").out
    assert out == "Changed the type of setting size from int to float; its version is 2.0 now.\n"
    assert run("settings", "describe", "size", "Entries", "--json").json == {"name": "size", "version": "2.1"}
    assert run("settings", "show", "size", "--json").json["metadata"] == {"description": "Entries"}
    assert run("settings", "describe", "size", "").out == (
        "Removed the description of setting size; its version is 2.2 now.\n"
    )
    assert "setting size has no description" in run("settings", "describe", "size", "").err
    refused = run("settings", "delete", "size")
    assert (refused.status, "Delete setting size with 3 rules and its aliases cache_size? [y/N]" in refused.err) == (
        1,
        True,
    )
    assert run("settings", "delete", "size", "--yes").out == (
        "Deleted setting size with 3 rules and its aliases cache_size.\n"
    )
    assert run("settings", "delete", "shop.color", "--yes", "--json").json == {"name": "shop.color"}
    assert run("settings", "--json").json == []


def test_a_setting_is_created(run: Run, shop: WatchedService) -> None:
    """So that it can have rules before a program declares it."""
    features = ("--feature", "user", "--feature", "environment")
    assert run("settings", "add", "limit", "int", "-5", *features, "--description", "Orders").out == (
        "Created setting limit; its version is 1.0 now.\n"
    )
    assert run("settings", "add", "title", "str", "a shop", "--feature", "user", "--json").json == {
        "name": "title",
        "version": "1.0",
    }
    (limit, title) = (run("settings", "show", name, "--json").json for name in ("limit", "title"))
    assert (limit["type"], limit["default_value"], limit["metadata"]) == ("int", -5, {"description": "Orders"})
    assert (limit["configurable_features"], title["default_value"]) == (["environment", "user"], "a shop")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("cache_size", "int", "5", "--feature", "user"), 1, "setting cache_size already exists"),
        (("limit", "int", "x", "--feature", "user"), 1, "'x' is not valid JSON, and setting limit has type int"),
        (("limit", "Sequence<int>", "[true]", "--feature", "user"), 1, "422"),
        (("limit", "int", "5", "--feature", "usr"), 1, "context feature usr does not exist; did you mean user?"),
        (("limit", "flot", "5", "--feature", "user"), 1, "type: cannot resolve setting type flot; use int, float, str"),
        (("a b", "int", "5", "--feature", "user"), 1, "'a b' is not a valid setting name"),
        (("limit", "int", "5"), 2, "Missing option '--feature'"),
        (("limit", "int", "--five", "--feature", "user"), 2, "no such option: --five (for a value that begins with a"),
        (("limit", "int", "--descriptoin", "x", "--feature", "user"), 2, "--descriptoin; did you mean --description?"),
    ],
)
def test_an_impossible_setting_is_not_created(run: Run, arguments: tuple[str, ...], status: int, message: str) -> None:
    refused = run("settings", "add", *arguments)
    assert (refused.status, message in refused.err) == (status, True), refused.err
    assert len(run("settings", "--json").json) == 2


def test_aliases_are_added_and_deleted(run: Run, shop: WatchedService) -> None:
    """By the name of the setting, or another alias."""
    assert run("settings", "alias", "cache_size", "size").out == "Added alias size to setting cache_size.\n"
    added = run("settings", "alias", "size", "cache.size", "--json")
    assert added.json == {"name": "cache_size", "alias": "cache.size"}
    assert run("settings", "show", "size", "--json").json["aliases"] == ["cache.size", "size"]
    assert "setting cache_size already has the alias size" in run("settings", "alias", "cache_size", "size").err
    refused = run("settings", "alias", "cache_size", "shop.color")
    assert refused.err.startswith("Error: the service has refused the request (409): ")
    deleted = run("settings", "alias", "cache_size", "size", "--delete")
    assert deleted.out == "Deleted alias size of setting cache_size.\n"
    refused = run("settings", "alias", "cache_size", "size", "--delete")
    assert (refused.status, "setting cache_size has no alias size" in refused.err) == (1, True)


def test_the_number_of_rules_is_read_without_the_rules(run: Run, shop: WatchedService) -> None:
    """Changes of the declaration read neither."""
    shop.requests.clear()
    assert run("settings", "show", "cache_size").status == 0
    assert run("settings", "describe", "cache_size", "Entries").status == 0
    (listed,) = [request for request in shop.requests if str(request) == "GET /api/v1/settings/cache_size/rules"]
    assert listed.query["limit"] == "1"


def test_context_features_are_listed_added_moved_and_deleted(run: Run, shop: WatchedService) -> None:
    """In their order, with the number of settings that depend on each."""
    assert [line.split() for line in run("features").out.splitlines()[1:]] == [["environment", "1"], ["user", "2"]]
    assert run("features", "add", "theme").out == (
        "Added context feature theme. The order is: environment, user, theme\n"
    )
    assert run("features", "list", "--json").json[2] == {"name": "theme", "settings": 0}
    assert run("features", "move", "theme", "--before", "user", "--yes").out.endswith(": environment, theme, user\n")
    for move in (("environment", "--after", "user"), ("user", "--before", "environment")):
        refused = run("features", "move", *move)
        question = f"Move {move[0]}? This may change which rules win in 1 setting [y/N]: Aborted!\n"
        assert (refused.status, refused.err) == (1, question)
    moved = run("features", "move", "environment", "--after", "user", "--yes", "--json").json
    assert moved == {"context_features": ["theme", "user", "environment"]}
    assert run("features", "delete", "theme").out.endswith("The order is: user, environment\n")


def test_a_move_that_changes_no_setting_is_not_confirmed(run: Run, shop: WatchedService) -> None:
    """No setting depends on the context feature and on one that it passes."""
    run("features", "add", "theme")
    for place in (("--before", "user"), ("--after", "user"), ("--before", "theme")):
        assert run("features", "move", "theme", *place).status == 0
    shop.declare("page", "int", 1, ["environment", "theme"])
    assert run("features", "move", "theme", "--before", "user").status == 0
    assert "win in 1 setting " in run("features", "move", "theme", "--before", "environment").err
    assert "win in 2 settings " in run("features", "move", "environment", "--after", "user").err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("add", "user"), 1, "context feature user already exists"),
        (("delete", "user"), 1, "cannot be deleted: setting cache_size and 1 more depends on it"),
        (("delete", "environment"), 1, "cannot be deleted: setting cache_size depends on it"),
        (("delete", "usr"), 1, "context feature usr does not exist; did you mean user?"),
        (("move", "user", "--before", "xyzzy"), 1, "xyzzy does not exist; the context features are: environment, user"),
        (("move", "user"), 2, "use either --before or --after"),
        (("move", "user", "--before", "environment", "--after", "environment"), 2, "use either --before or --after"),
        (("add", ""), 2, "it is empty"),
    ],
)
def test_an_impossible_change_of_context_features_is_refused(
    run: Run, arguments: tuple[str, ...], status: int, message: str
) -> None:
    outcome = run("features", *arguments)
    assert (outcome.status, message in outcome.err) == (status, True), outcome.err


def test_rules_are_listed_by_their_conditions(run: Run, shop: WatchedService) -> None:
    assert [rule["rule_id"] for rule in run("rules", "cache_size", "environment=prod", "--json").json] == [1, 3]
    assert [rule["rule_id"] for rule in run("rules", "cache_size", "--json", "--limit", "2").json] == [1, 2]
    assert run("rules", "cache_size", "user=ann").out == "No rule meets these criteria.\n"


def test_a_temporary_rule_has_a_start_and_an_end(run: Run, shop: WatchedService) -> None:
    """As a time, in the local time zone if it has no offset, or as a duration from now."""
    variables = {"TZ": "UTC"}
    period = ("--from", "2120-01-01T09:30+01:00", "--until", "2120-02-01T00:00Z")
    assert run("rules", "add", "cache_size", "5", "user=ann", *period, "--comment", "a sale").status == 0
    assert run("rules", "add", "cache_size", "6", "user=tom", "--until", "2d").status == 0
    ann, tom = (run("rules", "cache_size", f"user={user}", "--json").json[0] for user in ("ann", "tom"))
    assert (ann["starts_at"][:16], ann["ends_at"][:16], ann["in_effect"]) == (
        "2120-01-01T08:30",
        "2120-02-01T00:00",
        False,
    )
    assert (tom["starts_at"], tom["in_effect"]) == (None, True)
    lines = run("rules", "cache_size", **variables).out.splitlines()
    assert lines[0].split() == ["rule", "environment", "user", "value", "period", "comment"]
    (line,) = [line for line in lines if " ann " in line]
    assert line.split("5", 1)[1].strip() == f"{_period(ann)} (not in effect)  a sale"
    assert run("get", "cache_size", "user=ann", "environment=dev").out == "10\n"
    refused = run("rules", "add", "cache_size", "5", "user=x", "--from", "tomorrow")
    assert (refused.status, "'tomorrow' is not a time" in refused.err) == (2, True)
    refused = run("rules", "add", "cache_size", "5", "user=x", "--until", "999999w")
    assert (refused.status, "'999999w' is not a time" in refused.err) == (2, True)
    refused = run("rules", "add", "cache_size", "5", "user=x", "--until", "2020-02-01T00:00Z", **variables)
    assert (refused.status, "2020-02-01 00:00 has passed" in refused.err) == (2, True)


def _period(rule: dict[str, str]) -> str:
    return f"from {local_time(rule['starts_at'])} until {local_time(rule['ends_at'])}"


def metadata_of(run: Run, user: str) -> dict[str, str]:
    (rule,) = run("rules", "cache_size", f"user={user}", "--json").json
    return dict(rule["metadata"])


def test_a_rule_has_a_comment_and_a_link(run: Run, shop: WatchedService) -> None:
    """They are the reason for its value, so a new value does not keep them. All is one entry in the change log."""
    comment = ("--comment", "slow queries", "--link", "https://example.com/1")
    assert run("rules", "add", "cache_size", "5", "user=ann", *comment).status == 0
    reason = {"comment": "slow queries", "link": "https://example.com/1"}
    assert metadata_of(run, "ann") == reason
    shop.call("POST", "/api/v1/rules/4/metadata", {"metadata": {"team": "shop"}})
    last = run("changes", "--json", "--limit", "1").json["revision"]
    assert run("rules", "set", "cache_size", "6", "user=ann", "--comment", "as before").status == 0
    change = run("changes", "--json", "--after", str(last)).json
    assert (change["former"]["value"], change["new"]["value"]) == (5, 6)
    assert change["new"]["metadata"] == {"team": "shop", "comment": "as before"}
    assert run("rules", "set", "cache_size", "6.0", "user=ann").status == 0
    assert metadata_of(run, "ann")["comment"] == "as before"
    assert run("rules", "set", "cache_size", "7", "user=ann").status == 0
    assert metadata_of(run, "ann") == {"team": "shop"}
    for command in ("add", "set"):
        refused = run("rules", command, "cache_size", "7", "user=ann", "--link", "ftp://example.com")
        assert (refused.status, "'ftp://example.com' must begin with http:// or https://" in refused.err) == (2, True)


def test_the_reason_for_a_removal_is_in_the_change_log(run: Run) -> None:
    assert run("rules", "remove", "cache_size", "user=jim", "--comment", "the test is over").status == 0
    (line,) = run("changes", "--limit", "1").out.splitlines()[1:]
    assert line.endswith("user=jim: 100 (the test is over)")


def test_conditions_period_and_comment_of_a_rule_are_changed(run: Run, shop: WatchedService) -> None:
    """With one entry in the change log each time. The value stays, and so does what is not given."""
    last = run("changes", "--json", "--limit", "1").json["revision"]
    start = "2120-01-01T00:00Z"
    changed = run(
        "rules", "change", "cache_size", "user=jim", "--to", "user=ann", "--from", start, "--comment", "a sale"
    )
    assert changed.out == "Changed rule 2 (user=jim) to user=ann.\n"
    assert run("rules", "change", "cache_size", "user=ann", "--until", "2120-02-01T00:00Z").status == 0
    (rule,) = run("rules", "cache_size", "user=ann", "--json").json
    assert (rule["rule_id"], rule["value"], rule["metadata"]) == (2, 100, {"comment": "a sale"})
    assert (rule["starts_at"][:10], rule["ends_at"][:10]) == ("2120-01-01", "2120-02-01")
    assert run("rules", "change", "cache_size", "user=ann", "--no-from", "--comment", "").out == (
        "Changed rule 2 (user=ann).\n"
    )
    assert run("rules", "set", "cache_size", "7", "user=ann", "--no-until", "--json").json == {"rule_id": 2}
    (rule,) = run("rules", "cache_size", "user=ann", "--json").json
    assert (rule["value"], rule["metadata"], rule["starts_at"], rule["ends_at"]) == (7, {}, None, None)
    with AdminClient(shop.url) as admin:
        assert [change.action for change in admin.changes(after=last)] == ["rule changed"] * 4


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("user=jim",), 2, "use --to, --from, --until, --no-from, --no-until, --comment or --link"),
        (("user=jim", "--from", "1d", "--no-from"), 2, "use either --from or --no-from"),
        (("user=jim", "--until", "2020-02-01T00:00Z"), 2, "has passed"),
        (("user=jim", "--to", "user"), 2, "'user' must have the form FEATURE=VALUE"),
        (("user=jim", "--to", "planet=mars"), 2, "cache_size does not depend on planet"),
        (("user=jim", "--to", "environment=prod"), 1, "refused the request (409): rule 3 has these conditions already"),
        (("user=jim", "--no-from", "--expected", "5"), 1, "rule 2 has the value 100, and not 5"),
        (("user=tom", "--no-from"), 1, "no rule with exactly these conditions: user=tom"),
    ],
)
def test_an_impossible_change_of_a_rule_is_refused(
    run: Run, shop: WatchedService, arguments: tuple[str, ...], status: int, message: str
) -> None:
    before = shop.call("GET", "/api/v1/rules/2").text
    refused = run("rules", "change", "cache_size", *arguments)
    assert (refused.status, message in refused.err) == (status, True), refused.err
    assert shop.call("GET", "/api/v1/rules/2").text == before


def test_an_unknown_option_is_not_taken_for_a_condition(run: Run, shop: WatchedService) -> None:
    outcome = run("rules", "set", "cache_size", "8", "user=jim", "--days", "3")
    assert (outcome.status, "no such option: --days" in outcome.err) == (2, True)


def test_a_refusal_is_shown_in_sentences(run: Run, shop: WatchedService) -> None:
    """With the place in the request, if there is one; a text of the service as it is."""
    refusals = {
        '{"detail": [{"loc": ["body", "value"], "msg": "Input is too long"}]}': "refused the request (422): value: Inp",
        '{"detail": [{"loc": ["body"], "msg": "Input is invalid"}]}': "refused the request (422): Input is invalid",
        '{"detail": "no"}': "responded with 422",
        "no": "responded with 422",
    }
    for body, message in refusals.items():
        shop.respond_with("POST /api/v1/context_features", CannedResponse(422, body.encode()))
        outcome = run("features", "add", "x")
        assert (outcome.status, message in outcome.err) == (1, True), outcome.err


@pytest.mark.parametrize("command", [("add", "cache_size", "5"), ("set", "cache_size", "6"), ("remove", "cache_size")])
def test_a_command_for_one_rule_does_not_read_all_rules(
    run: Run, shop: WatchedService, command: tuple[str, ...]
) -> None:
    """The service selects those with its conditions: there may be 100,000 others."""
    user = "ann" if command[0] == "add" else "jim"
    shop.requests.clear()
    assert run("rules", *command, f"user={user}").status == 0
    (listed,) = [request for request in shop.requests if str(request) == "GET /api/v1/settings/cache_size/rules"]
    assert listed.query["conditions"] == f"user:{user}"


def test_a_list_of_rules_reads_only_what_it_shows(run: Run, shop: WatchedService) -> None:
    """The service selects the strongest ones."""
    shop.requests.clear()
    assert run("rules", "cache_size", "--limit", "2").status == 0
    (listed,) = [request for request in shop.requests if str(request) == "GET /api/v1/settings/cache_size/rules"]
    assert (listed.query["sort"], listed.query["limit"]) == ("priority", "2")
