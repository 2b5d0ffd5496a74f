"""The commands that read a service and change its rules: `status`, `settings`, `get`, `rules`, `diff`."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from heksher_client.admin import AdminClient
from heksher_client.cli.comparison import Difference
from heksher_client.cli.errors import CommandError, report_errors
from heksher_client.cli.export_file import ExportFile, write_document
from heksher_client.service import store
from heksher_client.service.operations import require_rule
from tests.support.clients import TIMEOUT_SECONDS
from tests.support.commands import COMMAND, FEATURES, Outcome, Run
from tests.support.service import CannedResponse, RecordedRequest, WatchedService

RULES = "GET /api/v1/settings/cache_size/rules"


def test_status_shows_the_health_and_the_contents_of_a_service(run: Run, shop: WatchedService) -> None:
    """As text, and as JSON."""
    summary = run("status", "--json").json
    assert summary.pop("milliseconds") > 0
    assert summary.pop("revision") > 0
    assert summary == {
        "service": shop.url,
        "context_features": ["environment", "user"],
        "settings": 2,
        "rules": 3,
        "offers_changes": True,
    }
    outcome = run("status")
    assert (outcome.status, outcome.err) == (0, "")
    assert "context features          environment, user\n" in outcome.out
    assert "rules                     3\n" in outcome.out


def test_settings_lists_the_settings_that_match_a_pattern(run: Run) -> None:
    """As a table, without escape codes outside a terminal; JSON has all attributes."""
    plain = run("settings")
    assert [line.split()[0] for line in plain.out.splitlines()] == ["name", "cache_size", "shop.color"]
    assert "\x1b" not in plain.out
    (color,) = run("settings", "shop.*", "--json").json
    assert (color["name"], color["default_value"], color["metadata"]) == ("shop.color", "red", {"owner": "jane"})


def test_get_shows_the_value_that_a_program_would_read(run: Run) -> None:
    """With the defaults of the profile. `--why` shows the reason."""
    assert run("get", "cache_size", "user=jim").out == "200\n"
    assert run("get", "cache_size", "user=jim", "environment=dev").out == "100\n"
    assert run("get", "shop.color", "user=jim").out == "red\n"
    outcome = run("get", "cache_size")
    assert (outcome.status, outcome.out) == (0, "50\n")
    assert outcome.err == "Note: user was not given, so rules with conditions on it do not match.\n"
    assert json.loads(run("get", "shop.color", "user=jim", "--json").out) == "red"
    assert run("get", "cache_size", "user=jim", "--why").out.splitlines() == [
        "200",
        "Rule 1 (environment=prod user=jim) matches environment=prod user=jim.",
        "It outranks rule 2 (user=jim) with the value 100.",
        "It outranks rule 3 (environment=prod) with the value 50.",
    ]
    assert "No rule matches user=jim: this is the default value." in run("get", "shop.color", "user=jim", "--why").out
    assert run("get", "cache_size", "user=ann", "--why", "--json").json == {
        "value": 50,
        "reason": "rule",
        "context": {"environment": "prod", "user": "ann"},
        "rule": {"rule_id": 3, "conditions": {"environment": "prod"}, "value": 50},
        "outranked": [],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "cache_size", "user=jim", "planet=mars"), "cache_size does not depend on planet"),
        (("get", "cache_size", "user"), "'user' must have the form FEATURE=VALUE"),
        (("get", "cache_size", "user=jim", "user=ann"), "context feature user is given twice"),
        (("get", "cache_size", "ü=é"), "FEATURE consists of letters, digits and underscores"),
        (("get", "cache_size", "user="), "the value of context feature user must have 1 to 255 characters"),
        (("get", "cache_size", "user=a\tb"), "without control characters, not 'a\\tb'"),
        (("rules", "add", "cache_size"), "Missing argument 'VALUE'"),
        (("rules", "add", "cache_size", "5"), "a rule requires a condition, for example user=jim"),
        (("rules", "add", "cache_size", "--dry-run", "user=jim"), "--dry-run"),
        (("rules", "set", "cache_size", "-x", "user=jim"), "-x"),
        (("watch", "--interval", "0"), "--interval"),
        (("rules", "--json", "add", "cache_size", "5", "user=ann"), "options must follow the command: rules add"),
        (("rules", "add", "cache_size", "1", "planet=mars"), "cache_size does not depend on planet"),
        (("nonsense",), "No such command 'nonsense'"),
    ],
)
def test_invalid_usage_exits_with_status_2(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """The message says what is valid."""
    outcome = run(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err


def test_rules_lists_the_rules_strongest_first(run: Run) -> None:
    """With a column for each context feature, and the default value in the last row."""
    assert [line.split() for line in run("rules", "cache_size").out.splitlines()] == [
        ["rule", "environment", "user", "value"],
        ["1", "prod", "jim", "200"],
        ["2", "*", "jim", "100"],
        ["3", "prod", "*", "50"],
        ["default", "*", "*", "10"],
    ]
    assert run("rules", "list", "cache_size").out == run("rules", "-p", "shop", "cache_size").out
    (first, *_) = run("rules", "cache_size", "--json").json
    assert first.pop("changed_at") is not None
    assert first == {
        "rule_id": 1,
        "conditions": {"environment": "prod", "user": "jim"},
        "value": 200,
        "metadata": {},
        "starts_at": None,
        "ends_at": None,
        "in_effect": True,
        "changed_by": None,
    }


def test_rules_are_added_changed_and_removed_by_their_conditions(run: Run, shop: WatchedService) -> None:
    """Values are JSON; for a setting of type str, plain text works as well."""
    assert run("rules", "add", "cache_size", "-5", "user=ann").out == "Added rule 4 (user=ann).\n"
    assert run("rules", "set", "cache_size", "-6", "user=ann", "--json").json == {"rule_id": 4}
    assert run("get", "cache_size", "user=ann", "environment=dev").out == "-6\n"
    assert run("rules", "set", "cache_size", "7", "user=ann").out == "Changed rule 4 (user=ann) from -6 to 7.\n"
    assert run("rules", "remove", "cache_size", "user=ann").out == "Removed rule 4 (user=ann).\n"
    assert run("rules", "add", "shop.color", "5", "user=jim").status == 0
    assert run("rules", "set", "shop.color", "light blue", "user=jim").status == 0
    assert run("rules", "set", "shop.color", "5", "user=jim").status == 0
    assert shop.call("GET", "/api/v1/rules/5").json()["value"] == "5"


@pytest.mark.parametrize("expected", ["100", "100.0"])
def test_l15_a_rule_with_the_expected_value_is_changed_and_removed(
    run: Run, shop: WatchedService, expected: str
) -> None:
    """Numbers are compared by value."""
    assert run("rules", "set", "cache_size", "7", "user=jim", "--expected", expected).status == 0
    assert run("rules", "remove", "cache_size", "user=jim", "--expected=7", "--json").json == {"rule_id": 2}
    shop.declare("color", "str", "red", ["user"])
    assert run("rules", "add", "color", "light blue", "user=jim").status == 0
    assert run("rules", "set", "color", "5", "user=jim", "--expected", "light blue").status == 0


def test_l15_a_large_number_can_be_expected(run: Run) -> None:
    """It has more than 64 bits."""
    assert run("rules", "set", "cache_size", "9" * 30, "user=jim").status == 0
    assert run("rules", "set", "cache_size", "7", "user=jim", "--expected", "9" * 30).status == 0


@pytest.mark.parametrize("command", [("set", "cache_size", "7"), ("remove", "cache_size")])
@pytest.mark.parametrize("expected", ["200", "true", "1"])
def test_l15_a_rule_with_another_value_is_neither_changed_nor_removed(
    run: Run, shop: WatchedService, command: tuple[str, ...], expected: str
) -> None:
    """Somebody else has changed it."""
    failed = run("rules", *command, "user=jim", "--expected", expected)
    assert failed.status == 1
    assert f"rule 2 has the value 100, and not {expected}: somebody else has changed it" in failed.err
    assert shop.call("GET", "/api/v1/rules/2").json()["value"] == 100


@pytest.mark.parametrize("command", [("set", "cache_size", "7"), ("remove", "cache_size")])
def test_l15_a_rule_that_changes_meanwhile_is_neither_changed_nor_removed(
    run: Run, shop: WatchedService, command: tuple[str, ...]
) -> None:
    """Between the check and the change."""

    def change(request: RecordedRequest) -> None:
        if request.method in ("PUT", "DELETE"):
            assert shop.database is not None
            with shop.database.begin() as connection:
                rule, setting = require_rule(connection, 2)
                store.change_rule(connection, setting, rule, value=101)

    shop.intercept = change
    failed = run("rules", *command, "user=jim", "--expected=100")
    assert (failed.status, "412" in failed.err, "changed since it was read" in failed.err) == (1, True, True)
    assert shop.call("GET", "/api/v1/rules/2").json()["value"] == 101


def test_l15_a_rule_that_is_removed_before_the_check(run: Run, shop: WatchedService) -> None:
    """Nothing is changed."""
    shop.respond_with("GET /api/v1/rules/2", CannedResponse(404))
    failed = run("rules", "set", "cache_size", "7", "user=jim", "--expected=100")
    assert (failed.status, failed.err.endswith("rule 2 no longer exists: somebody else has removed it\n")) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "nothing", "user=jim"), "setting nothing does not exist in http://"),
        (("rules", "nothing"), "setting nothing does not exist in http://"),
        (("rules", "add", "cache_size", "1", "user=jim"), "rule 2 already has these conditions"),
        (("rules", "set", "cache_size", "1", "user=ann"), "no rule with exactly these conditions: user=ann"),
        (("rules", "remove", "cache_size"), "no rule with exactly these conditions: (none)"),
        (
            ("rules", "add", "cache_size", "many", "user=ann"),
            "'many' is not valid JSON, and setting cache_size has type",
        ),
        (("rules", "add", "cache_size", '"x"', "user=ann"), "cannot have the value x: use a whole number"),
        (("rules", "add", "cache_size", "1.5", "user=ann"), "cannot have the value 1.5: use a whole number"),
        (("settings", "show", "cache_siz"), "did you mean cache_size?"),
        (("changes", "cache_siz"), "did you mean cache_size?"),
        (("diff", "nothing.json", "shop"), "cannot read nothing.json: No such file"),
        (("diff", "heksher.json", "shop"), "heksher.json, line 1: context_features: Field required"),
        (("rules", "add", "cache_size", "NaN", "user=ann"), "NaN is not valid JSON"),
        (
            ("rules", "add", "cache_size", "1e999", "user=ann"),
            "1e999 is too large a number, and setting cache_size has",
        ),
        (("rules", "add", "cache_size", "[-1e999]", "user=ann"), "-1e999 is too large a number, and setting"),
        (("rules", "set", "cache_size", "-1e999", "user=jim"), "-1e999 is too large a number, and setting"),
        (("rules", "set", "cache_size", "1" * 5000, "user=jim"), "1… has more than 4,300 digits, and setting"),
        (("rules", "set", "cache_size", "x" * 5000, "user=jim"), "xxx… is not valid JSON, and setting"),
        (("rules", "remove", "cache_size", "user=jim", "--expected", "1e999"), "1e999 is too large a number"),
        (("diff", "./nothing", "shop"), "cannot read ./nothing: No such file"),
        (("diff", "latin.json", "shop"), "latin.json, line 1: the text is not valid UTF-8"),
        (("diff", "newer.json", "shop"), "newer.json, line 1: heksher: unsupported document format 2"),
        (("diff", "twice.json", "shop"), "twice.json, line 1: setting s: name: the name of a setting s is repeated"),
    ],
)
def test_a_failed_command_prints_one_line_and_exits_with_status_1(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    """Standard output is empty."""
    (tmp_path / "heksher.json").write_text('{"heksher": 1}')
    (tmp_path / "latin.json").write_bytes(b'{"heksher": "\xe9"}')
    (tmp_path / "newer.json").write_text('{"heksher": 2, "context_features": [], "settings": []}')
    setting = '{"name": "s", "type": "int", "default_value": 1, "configurable_features": ["a"]}'
    (tmp_path / "twice.json").write_text(
        f'{{"heksher": 1, "context_features": ["a"], "settings": [{setting}, {setting}]}}'
    )
    outcome = run(*arguments)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_an_unavailable_service_is_status_3_and_missing_permission_is_status_4(run: Run, shop: WatchedService) -> None:
    """So a script can decide whether to try again."""
    outcome = run("ping", "--url", "http://127.0.0.1:9")
    assert (outcome.status, outcome.err.count("\n")) == (3, 1)
    assert "check that the service runs at http://127.0.0.1:9" in outcome.err
    shop.intercept = lambda request: CannedResponse(503, b"not today")
    assert run("status").status == 3
    outcome = run("ping", "-p", "other")
    assert (outcome.status, outcome.err.count("\n"), "there is no profile other" in outcome.err) == (2, 1, True)
    shop.intercept = lambda request: CannedResponse(401, b"who are you?")
    outcome = run("status")
    assert (outcome.status, outcome.err.count("\n")) == (4, 1)
    assert "heksher-client login" in outcome.err


@pytest.mark.parametrize(
    ("request_", "response", "arguments"),
    [
        (RULES, CannedResponse(200, b'{"rules": {"cache_size": []}}'), ("rules", "cache_size")),
        (RULES, CannedResponse(400, b"not today"), ("rules", "cache_size")),
        ("POST /api/v1/rules", CannedResponse.of({}, 201), ("rules", "add", "cache_size", "1", "user=ann")),
        ("DELETE /api/v1/rules/2", CannedResponse(409, b"not today"), ("rules", "remove", "cache_size", "user=jim")),
    ],
)
def test_an_invalid_response_is_reported_in_one_line(
    run: Run, shop: WatchedService, request_: str, response: CannedResponse, arguments: tuple[str, ...]
) -> None:
    """Either its status or its content is unexpected."""
    shop.respond_with(request_, response)
    outcome = run(*arguments)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)


def test_a_setting_that_is_deleted_between_two_requests_is_omitted(run: Run, shop: WatchedService) -> None:
    """The other settings are shown."""
    settings = shop.call("GET", "/api/v1/settings?include_additional_data=true").json()
    deleted = {**settings["settings"][0], "name": "deleted"}
    shop.respond_with("GET /api/v1/settings", CannedResponse.of({"settings": [deleted, *settings["settings"]]}))
    assert run("status", "--json").json["settings"] == 2
    shop.respond_with("GET /api/v1/settings", CannedResponse.of({"settings": [deleted]}))
    assert run("status", "--json").json["settings"] == 0


def test_a_process_has_the_output_and_the_exit_status_of_its_command(
    run: Run, run_separately: Run, tmp_path: Path
) -> None:
    """Most tests run commands in their own process. The installed program does the same, without a traceback."""
    (tmp_path / "empty.json").write_text('{"heksher": 1, "context_features": [], "settings": []}')
    for arguments, status in (
        (("get", "cache_size", "user=jim"), 0),
        (("get", "nothing"), 1),
        (("ping", "--url", "http://127.0.0.1:9"), 3),
        (("diff", "empty.json", "shop"), 5),
    ):
        outcome = run_separately(*arguments)
        assert (outcome, outcome.status) == (run(*arguments), status)
    completing = {
        "_HEKSHER_CLIENT_COMPLETE": "bash_complete",
        "COMP_WORDS": "heksher-client login s",
        "COMP_CWORD": "2",
    }
    assert run_separately(**completing) == Outcome(0, "plain,shop\n", "")


def test_names_from_a_service_are_escaped() -> None:
    """Control characters and line breaks reach neither the terminal nor the structure of the output."""
    difference = Difference("a\x1b[31m\nb", "setting", None, None, "int", "added")
    assert str(difference) == "+ a\\x1b[31m\\nb int"
    assert CommandError("a\x1b[31mb").message == "a\\x1b[31mb"


def test_characters_that_the_encoding_lacks_are_escaped(
    run: Run, run_separately: Run, shop: WatchedService, tmp_path: Path
) -> None:
    """JSON output uses the escapes of JSON."""
    shop.add_rule("shop.color", "é", user="ann")
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    outcome = run_separately("rules", "shop.color", **ascii_only)
    assert (outcome.status, outcome.err, "\\xe9" in outcome.out) == (0, "", True)
    assert run("rules", "shop.color", "--json", **ascii_only).json[0]["value"] == "é"


@pytest.mark.parametrize("depth", [300, 60_000])
def test_a_value_that_is_nested_too_deeply_is_reported_in_one_line(run: Run, tmp_path: Path, depth: int) -> None:
    """Python's JSON parser may accept it or not, depending on the version and the size of the stack."""
    value = "[" * depth + "]" * depth
    outcome = run("rules", "add", "cache_size", value, "user=x")
    assert (outcome.status, outcome.err) == (1, "Error: the value is nested too deeply\n")
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(value)
    outcome = run("diff", "a.json", "b.json")
    assert outcome.status == 1
    assert outcome.err.startswith("Error: a.json, line 1: 0.0.0.0.")
    assert outcome.err.endswith("…: more than 200 nested lists and objects\n")


def test_a_web_page_in_place_of_the_service_is_not_healthy(run: Run, shop: WatchedService) -> None:
    """A sign-in page of a proxy has status 200, for example."""
    shop.respond_with("GET /api/health", CannedResponse(200, b"<html>"))
    outcome = run("ping")
    assert (outcome.status, outcome.err) == (1, f"Error: {shop.url} is not a Heksher service (200)\n")


def test_a_missing_package_is_reported_in_one_line() -> None:
    """The message is that of the `ImportError`."""
    with pytest.raises(CommandError, match="requires more") as caught, report_errors():
        raise ImportError("this requires more:\npip install it")
    assert (caught.value.exit_code, "\n" in caught.value.message) == (1, False)


def test_ping_and_profiles_print_json(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """As all other commands that read a service."""
    assert run("ping", "--json").json == {
        "service": shop.url,
        "is_well": True,
        "is_authorized": True,
        "has_credentials": False,
        "requires_token": False,
    }
    assert run("profiles", "--json").json == {"file": str(tmp_path / "heksher.toml"), "profiles": ["shop"]}


def test_a_temporary_rule_is_known_to_get_and_diff(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """A rule that is not in effect does not apply. The period is in exports, and is compared."""
    period = {"starts_at": "2999-01-01T00:00:00+00:00", "ends_at": None}
    shop.call("PUT", "/api/v1/rules/1/period", period)
    assert run("get", "cache_size", "user=jim", "--why").out.splitlines()[0] == "100"
    with AdminClient(shop.url) as admin:
        document = admin.export()
    (tmp_path / "now.json").write_text(json.dumps(document))
    assert run("diff", "now.json", "shop").status == 0
    shop.call("PUT", "/api/v1/rules/1/period", {"starts_at": None, "ends_at": period["starts_at"]})
    assert run("diff", "now.json", "shop").out == (
        "~ cache_size rule period environment=prod user=jim: "
        '{"starts_at": "2999-01-01T00:00:00+00:00"} -> {"ends_at": "2999-01-01T00:00:00+00:00"}\n'
    )


def test_diff_compares_services_profiles_and_files(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """It exits with status 0 if nothing differs, and with 5 otherwise."""
    document: dict[str, Any] = {
        "heksher": 1,
        "context_features": ["environment", "user"],
        "settings": [
            {
                "name": "cache_size", "type": "int", "default_value": 10.0, "version": "1.0",
                "configurable_features": ["user", "environment"],
                "rules": [
                    {"feature_values": {"user": "jim", "environment": "prod"}, "value": 200},
                    {"feature_values": {"user": "jim"}, "value": 99, "metadata": {"why": "a test"}},
                    {"feature_values": {"user": "ann"}, "value": 5},
                ],
            },
            {"name": "gone", "type": "str", "default_value": "", "version": "1.0", "configurable_features": ["user"]},
        ],
    }  # fmt: skip
    (tmp_path / "before.json").write_text(json.dumps(document))
    assert run("diff", "shop", shop.url).status == 0
    outcome = run("diff", "before.json", "shop")
    assert (outcome.status, outcome.err) == (5, "")
    assert outcome.out.splitlines() == [
        "- cache_size rule user=ann: 5",
        "~ cache_size rule user=jim: 99 -> 100",
        '~ cache_size rule metadata user=jim: {"why": "a test"} -> {}',
        "+ cache_size rule environment=prod: 50",
        "- gone str",
        "+ shop.color str",
    ]
    first = run("diff", "before.json", "shop", "--json").json[0]
    assert first == {
        "setting": "cache_size", "what": "rule", "conditions": {"user": "ann"}, "before": 5, "after": None,
        "kind": "removed",
    }  # fmt: skip
    document["context_features"] = ["user", "environment"]
    document["settings"][0]["rules"] = []
    document["settings"][1] = {**document["settings"][1], "name": "shop.color", "metadata": {"owner": True}}
    document["settings"][1]["rules"] = [{"feature_values": {"user": "jim"}, "value": "2026-11-22"}]
    (tmp_path / "before.yaml").write_text(json.dumps(document))
    out = run("diff", "before.yaml", "shop").out
    assert '~ context features ["user", "environment"] -> ["environment", "user"]' in out
    assert "~ shop.color default value  -> red" in out
    assert "- shop.color rule user=jim: 2026-11-22" in out
    assert '~ shop.color metadata {"owner": true} -> {"owner": "jane"}' in out


def test_diff_shows_a_renamed_setting_as_renamed(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """Not as one that was removed with all its rules, and another one that was added."""
    settings = [
        {
            "name": "shop.color", "type": "str", "default_value": "red", "version": "1.0",
            "configurable_features": ["user"], "metadata": {"owner": "jane"},
            "rules": [{"feature_values": {"user": "ann"}, "value": "blue"}],
        },
        {
            "name": "cache_size", "type": "int", "default_value": 10, "version": "1.0", "aliases": ["size"],
            "configurable_features": ["user", "environment"],
        },
    ]  # fmt: skip
    document = {"heksher": 1, "context_features": ["environment", "user"], "settings": settings}
    (tmp_path / "before.json").write_text(json.dumps(document))
    shop.call("PUT", "/api/v1/settings/shop.color/name", {"name": "shop.colour", "version": "1.1"})
    assert [line for line in run("diff", "before.json", "shop").out.splitlines() if "cache_size rule" not in line] == [
        '~ cache_size aliases ["size"] -> []',
        "~ shop.colour name shop.color -> shop.colour",
        "~ shop.colour version 1.0 -> 1.1",
        "- shop.colour rule user=ann: blue",
    ]


SETTINGS = ("cache_size", "shop.color")


@pytest.mark.parametrize(("shell", "text"), [("bash", "complete -o nosort"), ("zsh", "#compdef"), ("fish", "function")])
def test_completion_prints_the_script_of_a_shell(run: Run, shell: str, text: str) -> None:
    """The script calls the command to complete words."""
    assert text in run("completion", shell).out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("heksher-client se", {"search", "serve", "service", "settings"}),
        ("heksher-client get c", {"cache_size"}),
        ("heksher-client rules add shop", {"shop.color"}),
        ("heksher-client rules s", {"set", "shop.color"}),
        ("heksher-client diff s", {"shop", "s"}),
        ("heksher-client rules cache_size --lim", {"--limit"}),
        ("heksher-client rules --verb", {"--verbose"}),
        (
            "heksher-client settings ",
            {"add", "alias", "list", "show", "rename", "retype", "describe", "delete", *SETTINGS},
        ),
        ("heksher-client --profile shop get cache_", {"cache_size"}),
        ("heksher-client login s", {"shop"}),
        ("heksher-client ping --profile s", {"shop"}),
        ("heksher-client get --url http://127.0.0.1:9 c", set()),
    ],
)
def test_a_shell_completes_commands_profiles_and_settings(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: str, completed: set[str]
) -> None:
    """If the service cannot be reached, nothing is completed."""
    for name in ("_TIMEOUT", "_REQUEST_TIMEOUT"):
        monkeypatch.setattr(f"heksher_client.cli.completion.{name}", TIMEOUT_SECONDS)
    outcome = run(_HEKSHER_CLIENT_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert {line.partition(",")[2] for line in outcome.out.split()} == completed


def test_a_shell_completes_nothing_if_the_configuration_is_invalid(run: Run, tmp_path: Path) -> None:
    """Errors would corrupt the command line."""
    (tmp_path / "heksher.toml").write_text("[")
    completing = {"_HEKSHER_CLIENT_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    for command in ("login", "get"):
        outcome = run(COMP_WORDS=f"heksher-client {command} ", **completing)
        assert (outcome.out.split(), outcome.err) == ([], "")


def test_an_explicit_profile_overrides_environment_variables(run: Run, shop: WatchedService) -> None:
    """Without `--profile`, the variables apply."""
    variables = {"HEKSHER_URL": "http://127.0.0.1:1", "HEKSHER_TOKEN": "t"}
    assert run("status", "-p", "shop", "--json", **variables).json["service"] == shop.url
    assert run("diff", "shop", shop.url, HEKSHER_URL="http://127.0.0.1:1").status == 0
    assert run("ping", HEKSHER_URL="http://127.0.0.1:1").status == 3


def test_values_are_printed_unchanged(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """Including rich's codes for emoji and styles, and long strings of wide characters."""
    wide = "\u6f22" * 100
    shop.add_rule("shop.color", "a:b:c :key: [bold]x[/bold]", user="jim")
    shop.add_rule("shop.color", wide, user="ann")
    lines = run("rules", "shop.color").out.splitlines()
    assert [line.split(None, 2)[-1].strip() for line in lines[1:3]] == [wide, "a:b:c :key: [bold]x[/bold]"]
    empty = {"heksher": 1, "context_features": ["environment", "user"], "settings": []}
    (tmp_path / "empty.JSON").write_text(json.dumps(empty))
    assert "shop.color rule user=jim: a:b:c :key: [bold]x[/bold]\n" in run("diff", "empty.JSON", "shop").out


def test_a_value_may_begin_with_a_dash(run: Run) -> None:
    """A negative number needs no separator; anything else needs `--`, because it may be a mistyped option."""
    assert run("rules", "set", "cache_size", "-5", "user=jim").status == 0
    assert run("rules", "add", "shop.color", "user=ann", "--", "-x").status == 2
    assert run("rules", "add", "shop.color", "--", "-x", "user=ann").status == 0
    assert run("get", "shop.color", "user=ann").out == "-x\n"
    refused = run("rules", "add", "shop.color", "-x", "user=tom")
    assert (refused.status, "put -- before it" in refused.err) == (2, True)


def test_output_that_cannot_be_written_is_reported_in_one_line(run: Run, command_environment: dict[str, str]) -> None:
    """For example on a full disk."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        command = [*COMMAND, "profiles"]
        completed = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=command_environment, check=False
        )
    assert (completed.returncode, completed.stderr) == (1, "Error: [Errno 28] No space left on device\n")


def test_a_command_exits_silently_if_the_reader_of_its_output_has_gone(command_environment: dict[str, str]) -> None:
    """As with `head`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "completion", "bash"]
    completed = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, env=command_environment, check=False
    )
    os.close(writing)
    assert (completed.returncode, completed.stderr) == (1, "")


@pytest.mark.parametrize("name", ["", "ca\nche", "*", "cache size"])
def test_an_invalid_name_is_rejected_without_a_request(run: Run, shop: WatchedService, name: str) -> None:
    """It may come from an empty variable of a script."""
    outcome = run("get", name)
    assert (outcome.status, "is not a valid setting name" in outcome.err) == (1, True)
    assert not [request for request in shop.requests if request.path.startswith("/api/v1/settings/")]


def test_an_empty_context_is_called_empty(run: Run) -> None:
    """Rules may match other contexts."""
    assert "No rule matches an empty context" in run("get", "shop.color", "--why").out


def test_a_service_without_settings_offers_a_change_stream_too(run: Run) -> None:
    """Every service begins without settings."""
    with WatchedService(FEATURES) as empty:
        empty.offers_changes = True
        assert run("status", "--url", empty.url, "--json").json["offers_changes"]


def test_an_invalid_file_is_rejected(run: Run, tmp_path: Path) -> None:
    """Two rules may have the same conditions, or a number may not be valid JSON."""
    rule = '{"feature_values": {"user": "jim"}, "value": 1}'
    setting = (
        '{"name": "s", "configurable_features": ["user"], "type": "int", "default_value": %s, "version": "1.0", '
        '"rules": [%s]}'
    )
    document = '{"heksher": 1, "context_features": ["user"], "settings": [%s]}'
    (tmp_path / "twice.json").write_text(document % (setting % ("1", f"{rule}, {rule}")))
    (tmp_path / "nan.json").write_text(document % (setting % ("NaN", rule)))
    for file, message in (
        ("twice", "line 1: setting s: rules.1: two rules have the conditions user=jim"),
        ("nan", "NaN is not valid JSON"),
    ):
        outcome = run("diff", f"{file}.json", "shop")
        assert (outcome.status, message in outcome.err) == (1, True)


def test_the_suffix_of_an_exported_file_selects_its_format(tmp_path: Path) -> None:
    """In upper case as well, both to write and to read."""
    file = tmp_path / "file.YAML"
    write_document(str(file), {"heksher": 1, "context_features": [], "settings": []})
    assert file.read_text() == "heksher: 1\ncontext_features: []\nsettings: []\n"
    assert ExportFile(str(file)).document().settings == []


def test_an_interval_must_be_a_number(run: Run) -> None:
    """NaN passes the range check of click."""
    assert run("watch", "--interval", "nan").status == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("diff", "", "a.json"), ("diff", "a.json", ""), ("serve", "--host", ""), ("serve", "--database", ""),
        ("service", "export", ""), ("service", "import", ""), ("service", "changes", ""),
        ("service", "export", "a.json", "--database", ""), ("service", "changes", "-", "--after", "9" * 30),
    ],
)  # fmt: skip
def test_an_empty_argument_or_a_huge_number_is_an_error_in_usage(run: Run, arguments: tuple[str, ...]) -> None:
    """An empty host would be all addresses, an empty database a temporary one, and an empty source the default one."""
    outcome = run(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert "\nError: Invalid value for " in outcome.err
