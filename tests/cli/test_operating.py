"""The commands that ask a service, and change its rules: `status`, `settings`, `get`, `rules`, `diff`."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from heksher_client.cli.connection import Failure, in_words
from heksher_client.cli.differences import Difference
from tests.support.commands import COMMAND, FEATURES, Run
from tests.support.service import QUERY, Answer, WatchedService


def test_status_tells_how_a_service_fares_and_what_it_holds(run: Run, shop: WatchedService) -> None:
    """For people, and for scripts."""
    told = run("status", "--json").json
    assert told.pop("milliseconds") > 0
    assert told.pop("revision") > 0
    assert told == {
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


def test_settings_are_listed_by_a_pattern(run: Run) -> None:
    """In a table without escape codes where there is no terminal, and whole in JSON."""
    plain = run("settings")
    assert [line.split()[0] for line in plain.out.splitlines()] == ["name", "cache_size", "shop.color"]
    assert "\x1b" not in plain.out
    (color,) = run("settings", "shop.*", "--json").json
    assert (color["name"], color["default_value"], color["metadata"]) == ("shop.color", "red", {"owner": "jane"})
    assert run("settings", "nothing.*").out == "No settings.\n"


def test_get_gives_what_a_program_would_read(run: Run) -> None:
    """With the defaults of the profile, and the reason."""
    assert run("get", "cache_size", "user=jim").out == "200\n"
    assert run("get", "cache_size", "user=jim", "environment=dev").out == "100\n"
    assert run("get", "shop.color", "user=jim").out == "red\n"
    outcome = run("get", "cache_size")
    assert (outcome.status, outcome.out) == (0, "50\n")
    assert outcome.err == "Note: user not given, so that no rule on it matches.\n"
    assert json.loads(run("get", "shop.color", "user=jim", "--json").out) == "red"
    assert run("get", "cache_size", "user=jim", "--why").out.splitlines() == [
        "200",
        "Rule 1 (environment=prod user=jim) matches environment=prod user=jim.",
        "It outranks rule 2 (user=jim), which gives 100.",
        "It outranks rule 3 (environment=prod), which gives 50.",
    ]
    assert "No rule matches user=jim: it is the default." in run("get", "shop.color", "user=jim", "--why").out
    assert run("get", "cache_size", "user=ann", "--why", "--json").json == {
        "value": 50,
        "reason": "rule",
        "context": {"environment": "prod", "user": "ann"},
        "rule": {"rule_id": 3, "conditions": {"environment": "prod"}, "value": 50},
        "outranked": [],
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("get", "cache_size", "user=jim", "planet=mars"), "does not depend on planet"),
        (("get", "cache_size", "user"), "'user' is not like user=jim"),
        (("get", "cache_size", "user=jim", "user=ann"), "user is there twice"),
        (("get", "cache_size", "user=é"), "of letters, digits and underscores"),
        (("rules", "add", "cache_size"), "Missing argument 'VALUE'"),
        (("rules", "add", "cache_size", "5"), "a rule needs a condition, like user=jim"),
        (("rules", "add", "cache_size", "--dry-run", "user=jim"), "--dry-run"),
        (("rules", "set", "cache_size", "-x", "user=jim"), "-x"),
        (("watch", "--interval", "0"), "--interval"),
        (("rules", "-p", "shop", "add", "cache_size", "5", "user=ann"), "options come after the command: rules add"),
        (("nonsense",), "No such command 'nonsense'"),
    ],
)
def test_wrong_usage_is_said_with_status_2(run: Run, arguments: tuple[str, ...], words: str) -> None:
    """And with what is right."""
    outcome = run(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert words in outcome.err


def test_rules_are_shown_the_strongest_first(run: Run) -> None:
    """With a column for each context feature, and the default at the end."""
    assert [line.split() for line in run("rules", "cache_size").out.splitlines()] == [
        ["rule", "environment", "user", "value"],
        ["1", "prod", "jim", "200"],
        ["2", "*", "jim", "100"],
        ["3", "prod", "*", "50"],
        ["default", "*", "*", "10"],
    ]
    assert run("rules", "list", "cache_size").out == run("rules", "-p", "shop", "cache_size").out
    (first, *_) = run("rules", "cache_size", "--json").json
    assert first == {
        "rule_id": 1,
        "conditions": {"environment": "prod", "user": "jim"},
        "value": 200,
        "metadata": {},
    }


def test_rules_are_added_changed_and_removed_by_their_conditions(run: Run, shop: WatchedService) -> None:
    """Values are JSON; for text, text as it is."""
    assert run("rules", "add", "cache_size", "-5", "user=ann").out == "Rule 4 (user=ann) was added.\n"
    assert run("rules", "set", "cache_size", "-6", "user=ann", "--json").json == {"rule_id": 4}
    assert run("get", "cache_size", "user=ann", "environment=dev").out == "-6\n"
    assert run("rules", "remove", "cache_size", "user=ann").out == "Rule 4 (user=ann) was removed.\n"
    assert run("rules", "add", "shop.color", "5", "user=jim").status == 0
    assert run("rules", "set", "shop.color", "light blue", "user=jim").status == 0
    assert run("rules", "set", "shop.color", "5", "user=jim").status == 0
    assert shop.call("GET", "/api/v1/rules/5").json()["value"] == "5"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("get", "nothing", "user=jim"), "there is no setting nothing at"),
        (("rules", "nothing"), "there is no setting nothing at"),
        (("rules", "add", "cache_size", "1", "user=jim"), "rule 2 has these conditions already"),
        (("rules", "set", "cache_size", "1", "user=ann"), "no rule with just these conditions: user=ann"),
        (("rules", "remove", "cache_size"), "no rule with just these conditions: every context"),
        (("rules", "add", "cache_size", "many", "user=ann"), "'many' is no JSON, and cache_size is of the type int"),
        (("rules", "add", "cache_size", '"x"', "user=ann"), "rule value is incompatible with setting type int"),
        (("rules", "add", "cache_size", "1", "planet=mars"), "not configurable at context features"),
        (("diff", "nothing.json", "shop"), "nothing.json cannot be read: No such file"),
        (("diff", "heksher.json", "shop"), "heksher.json is no document that `service export` writes"),
        (("rules", "add", "cache_size", "NaN", "user=ann"), "'NaN' is no JSON"),
        (("diff", "./nothing", "shop"), "./nothing cannot be read: No such file"),
        (("diff", "latin.json", "shop"), "latin.json cannot be read"),
        (("diff", "newer.json", "shop"), "newer.json is of the format 2, and this version knows 1"),
        (("diff", "twice.json", "shop"), "twice.json has a setting twice"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_status_1(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """With nothing on the standard output."""
    (tmp_path / "heksher.json").write_text('{"heksher": 1}')
    (tmp_path / "latin.json").write_bytes(b'{"heksher": "\xe9"}')
    (tmp_path / "newer.json").write_text('{"heksher": 2, "context_features": [], "settings": []}')
    setting = '{"name": "s", "type": "int", "default_value": 1, "version": "1.0", "configurable_features": []}'
    (tmp_path / "twice.json").write_text(
        f'{{"heksher": 1, "context_features": [], "settings": [{setting}, {setting}]}}'
    )
    outcome = run(*arguments)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("\n") == 1
    assert words in outcome.err


def test_no_answer_is_status_3_and_no_permission_status_4(run: Run, shop: WatchedService) -> None:
    """So that a script can tell whether another try may help."""
    outcome = run("ping", "--url", "http://127.0.0.1:9")
    assert (outcome.status, outcome.err.count("\n")) == (3, 1)
    assert "is http://127.0.0.1:9 where the service is?" in outcome.err
    shop.intercept = lambda asked: Answer(503, b"not today")
    assert run("status").status == 3
    outcome = run("ping", "-p", "other")
    assert (outcome.status, outcome.err.count("\n"), "there is no profile other" in outcome.err) == (2, 1, True)
    shop.intercept = lambda asked: Answer(401, b"who are you?")
    outcome = run("status")
    assert (outcome.status, outcome.err.count("\n")) == (4, 1)
    assert "heksher-client login" in outcome.err


@pytest.mark.parametrize(
    ("request_", "answer", "arguments"),
    [
        (QUERY, Answer(200, b'{"settings": {"cache_size": []}}'), ("rules", "cache_size")),
        (QUERY, Answer(400, b"not today"), ("rules", "cache_size")),
        ("POST /api/v1/rules", Answer.of({}, 201), ("rules", "add", "cache_size", "1", "user=ann")),
        ("DELETE /api/v1/rules/2", Answer(409, b"not today"), ("rules", "remove", "cache_size", "user=jim")),
    ],
)
def test_an_answer_that_is_none_is_an_error_in_one_line(
    run: Run, shop: WatchedService, request_: str, answer: Answer, arguments: tuple[str, ...]
) -> None:
    """Whatever it says."""
    shop.answering(request_, answer)
    outcome = run(*arguments)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)


def test_a_setting_that_goes_while_it_is_asked_for_is_left_out(run: Run, shop: WatchedService) -> None:
    """The others are shown."""
    settings = shop.call("GET", "/api/v1/settings?include_additional_data=true").json()
    gone = {**settings["settings"][0], "name": "gone"}
    shop.answering("GET /api/v1/settings", Answer.of({"settings": [gone, *settings["settings"]]}))
    assert run("status", "--json").json["settings"] == 2
    shop.answering("GET /api/v1/settings", Answer.of({"settings": [gone]}))
    assert run("status", "--json").json["settings"] == 0


def test_names_from_a_service_are_printed_in_one_line() -> None:
    """Whatever is in them."""
    difference = Difference("a\x1b[31m\nb", "setting", None, None, "int", "added")
    assert str(difference) == "+ a\\x1b[31m\\nb int"
    assert Failure("a\x1b[31mb").message == "a\\x1b[31mb"


def test_characters_that_cannot_be_written_are_escaped(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """In JSON by its own escapes."""
    shop.add_rule("shop.color", "é", user="ann")
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    told = run("rules", "shop.color", **ascii_only)
    assert (told.status, told.err, "\\xe9" in told.out) == (0, "", True)
    assert run("rules", "shop.color", "--json", **ascii_only).json[0]["value"] == "é"
    for name, value in (("0.json", "\ud800"), ("1.json", "\ud801")):
        settings = [{"name": "s", "type": "str", "default_value": value, "version": "1.0",
                     "configurable_features": ["user"]}]  # fmt: skip
        document = {"heksher": 1, "context_features": ["user"], "settings": settings}
        (tmp_path / name).write_text(json.dumps(document))
    told = run("diff", "0.json", "1.json", "--json")
    assert (told.status, told.json[0]["after"]) == (5, "\ud801")


def test_what_is_nested_beyond_measure_is_refused_in_one_line(run: Run) -> None:
    """As what is no JSON."""
    told = run("rules", "add", "cache_size", "[" * 20_000, "user=x")
    assert (told.status, told.err) == (1, "Error: the value is nested too deeply\n")


def test_a_page_in_place_of_the_service_is_not_well(run: Run, shop: WatchedService) -> None:
    """One to sign in, say, which comes with status 200."""
    shop.answering("GET /api/health", Answer(200, b"<html>"))
    told = run("ping")
    assert (told.status, "200, but not in JSON" in told.err) == (1, True)


def test_what_is_not_installed_is_an_error_in_one_line() -> None:
    """With the words of whoever misses it."""
    with pytest.raises(Failure, match="this needs more") as caught, in_words():
        raise ImportError("this needs more:\npip install it")
    assert (caught.value.exit_code, "\n" in caught.value.message) == (1, False)


def test_ping_and_profiles_answer_in_json(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """As all others do."""
    assert run("ping", "--json").json == {"service": shop.url, "is_well": True}
    assert run("profiles", "--json").json == {"file": str(tmp_path / "heksher.toml"), "profiles": ["shop"]}


def test_diff_compares_services_profiles_and_files(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """Status 0 where nothing differs, and 5 where something does."""
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
                    {"feature_values": {"user": "ann"}, "value": True},
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
        "- cache_size rule user=ann: true",
        "~ cache_size rule user=jim: 99 -> 100",
        '~ cache_size rule metadata user=jim: {"why": "a test"} -> {}',
        "+ cache_size rule environment=prod: 50",
        "- gone str",
        "+ shop.color str",
    ]
    first = run("diff", "before.json", "shop", "--json").json[0]
    assert first == {
        "setting": "cache_size", "what": "rule", "conditions": {"user": "ann"}, "before": True, "after": None,
        "kind": "removed",
    }  # fmt: skip
    document["context_features"] = ["user", "environment"]
    document["settings"][0]["rules"] = []
    document["settings"][1] = {**document["settings"][1], "name": "shop.color", "metadata": {"owner": True}}
    document["settings"][1]["rules"] = [{"feature_values": {"user": "jim"}, "value": "2026-11-22"}]
    (tmp_path / "before.yaml").write_text(json.dumps(document).replace('"2026-11-22"', "2026-11-22"))
    told = run("diff", "before.yaml", "shop").out
    assert '~ context features ["user", "environment"] -> ["environment", "user"]' in told
    assert "~ shop.color default value  -> red" in told
    assert '- shop.color rule user=jim: "2026-11-22"' in told
    assert '~ shop.color metadata {"owner": true} -> {"owner": "jane"}' in told


def test_a_setting_that_was_renamed_is_shown_as_that(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """And not as one that is gone, with all its rules, and another one that is new."""
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


@pytest.mark.parametrize(
    ("shell", "words"), [("bash", "complete -o nosort"), ("zsh", "#compdef"), ("fish", "function")]
)
def test_a_shell_gets_its_script(run: Run, shell: str, words: str) -> None:
    """Which asks the program itself what there is."""
    assert words in run("completion", shell).out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("heksher-client se", {"serve", "service", "settings"}),
        ("heksher-client get c", {"cache_size"}),
        ("heksher-client rules add shop", {"shop.color"}),
        ("heksher-client rules s", {"set", "shop.color"}),
        ("heksher-client diff s", {"shop", "s"}),
        ("heksher-client login s", {"shop"}),
        ("heksher-client ping --profile s", {"shop"}),
        ("heksher-client get --url http://127.0.0.1:9 c", set()),
    ],
)
def test_a_shell_completes_commands_profiles_and_settings(run: Run, words: str, completed: set[str]) -> None:
    """Those that there are, and nothing where nobody answers."""
    outcome = run(_HEKSHER_CLIENT_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert {line.partition(",")[2] for line in outcome.out.split()} == completed


def test_a_shell_completes_nothing_from_a_file_that_cannot_be_used(run: Run, tmp_path: Path) -> None:
    """It has no place for errors."""
    (tmp_path / "heksher.toml").write_text("[")
    completing = {"_HEKSHER_CLIENT_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    for command in ("login", "get"):
        outcome = run(COMP_WORDS=f"heksher-client {command} ", **completing)
        assert (outcome.out.split(), outcome.err) == ([], "")


def test_a_profile_that_is_named_is_meant_whatever_variables_say(run: Run, shop: WatchedService) -> None:
    """Whoever types its name does not think of them; without a name, they count."""
    elsewhere = {"HEKSHER_URL": "http://127.0.0.1:1", "HEKSHER_TOKEN": "t"}
    assert run("status", "-p", "shop", "--json", **elsewhere).json["service"] == shop.url
    assert run("diff", "shop", shop.url, HEKSHER_URL="http://127.0.0.1:1").status == 0
    assert run("ping", HEKSHER_URL="http://127.0.0.1:1").status == 3


def test_values_are_shown_as_they_are(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """Whatever stands in them: what a terminal program may take for a picture, and what is wider than a letter."""
    wide = "\u6f22" * 100
    shop.add_rule("shop.color", "a:b:c :key: [bold]x[/bold]", user="jim")
    shop.add_rule("shop.color", wide, user="ann")
    lines = run("rules", "shop.color").out.splitlines()
    assert [line.split(None, 2)[-1].strip() for line in lines[1:3]] == ["a:b:c :key: [bold]x[/bold]", wide]
    empty = {"heksher": 1, "context_features": ["environment", "user"], "settings": []}
    (tmp_path / "empty.JSON").write_text(json.dumps(empty))
    assert "shop.color rule user=jim: a:b:c :key: [bold]x[/bold]\n" in run("diff", "empty.JSON", "shop").out


def test_a_value_may_begin_with_a_dash(run: Run) -> None:
    """A number does; anything else after two dashes, as an option that is misspelt looks like it."""
    assert run("rules", "set", "cache_size", "-5", "user=jim").status == 0
    assert run("rules", "add", "shop.color", "user=ann", "--", "-x").status == 2
    assert run("rules", "add", "shop.color", "--", "-x", "user=ann").status == 0
    assert run("get", "shop.color", "user=ann").out == "-x\n"
    refused = run("rules", "add", "shop.color", "-x", "user=tom")
    assert (refused.status, "comes after --" in refused.err) == (2, True)


def test_output_that_cannot_be_written_is_an_error_in_one_line(run: Run, surroundings: dict[str, str]) -> None:
    """As on a disk that is full."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        command = [*COMMAND, "profiles"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=surroundings, check=False)
    assert (ended.returncode, ended.stderr) == (1, "Error: [Errno 28] No space left on device\n")


def test_who_stops_reading_ends_a_command_without_a_word(surroundings: dict[str, str]) -> None:
    """As `head` does."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "completion", "bash"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=surroundings, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.parametrize("name", ["", "ca\nche", "*", "cache size"])
def test_what_is_no_name_is_refused_without_asking(run: Run, shop: WatchedService, name: str) -> None:
    """A variable of a script may be empty, say."""
    outcome = run("get", name)
    assert (outcome.status, "is no name of a setting" in outcome.err) == (1, True)
    assert not [asked for asked in shop.asked if asked.path.startswith("/api/v1/settings/")]


def test_a_context_of_which_nothing_is_known_is_called_so(run: Run) -> None:
    """Not every context: there are rules that might match."""
    assert "No rule matches a context of which nothing is known" in run("get", "shop.color", "--why").out


def test_a_service_without_settings_tells_of_changes_too(run: Run) -> None:
    """It is what everybody begins with."""
    with WatchedService(FEATURES) as empty:
        empty.offers_changes = True
        assert run("status", "--url", empty.url, "--json").json["offers_changes"]


def test_a_file_that_contradicts_itself_is_refused(run: Run, tmp_path: Path) -> None:
    """With two rules of the same conditions, or what is no JSON."""
    rule = '{"feature_values": {"user": "jim"}, "value": 1}'
    setting = (
        '{"name": "s", "configurable_features": ["user"], "type": "int", "default_value": %s, "version": "1.0", '
        '"rules": [%s]}'
    )
    document = '{"heksher": 1, "context_features": ["user"], "settings": [%s]}'
    (tmp_path / "twice.json").write_text(document % (setting % ("1", f"{rule}, {rule}")))
    (tmp_path / "nan.json").write_text(document % (setting % ("NaN", rule)))
    for file, words in (("twice", "has two rules of s with the same conditions"), ("nan", "NaN is no JSON")):
        outcome = run("diff", f"{file}.json", "shop")
        assert (outcome.status, words in outcome.err) == (1, True)


def test_seconds_that_are_no_number_are_refused(run: Run) -> None:
    """They would be no interval at all."""
    assert run("watch", "--interval", "nan").status == 2
