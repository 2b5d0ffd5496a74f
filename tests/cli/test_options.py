"""Options of all commands, help, and suggestions for mistyped names."""

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest

from heksher_client import ThreadHeksherClient
from heksher_client._core.refresh.effects import Flow, Pause
from heksher_client.cli import main
from heksher_client.cli.command_client import CommandClient
from tests.support.commands import Run
from tests.support.service import CannedResponse, RecordedRequest, WatchedService


def all_commands(command: click.Command, context: click.Context) -> list[tuple[str, click.Command]]:
    """Return a command, and all commands of a group, with their names."""
    found = [(context.command_path, command)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            found += all_commands(child, click.Context(child, parent=context, info_name=name))
    return found


COMMANDS = dict(all_commands(main, click.Context(main, info_name="heksher-client", **main.context_settings)))


@pytest.mark.parametrize("path", [path for path in COMMANDS if path != "heksher-client"])
def test_the_summary_of_each_command_fits_into_the_help_of_its_group(path: str) -> None:
    """It is a sentence of its own, so that click does not cut the description."""
    summary = COMMANDS[path].short_help
    assert summary
    assert len(summary) < 45
    assert summary.endswith(".")


def test_the_help_of_all_commands_is_available_at_once(run: Run) -> None:
    """For a search with `grep`, for example."""
    out = run("--help-all").out
    for path in COMMANDS:
        assert f"Usage: {path}" in out
    assert "..." not in re.sub(r"\[ARGS\]\.\.\.|\[OPTIONS\]|\]\.\.\.|\.\.\. and", "", out)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "{url}", "settings"),
        ("settings", "--url", "{url}"),
        ("settings", "--url", "{url}", "list"),
        ("settings", "list", "--url={url}"),
        ("--url", "http://127.0.0.1:9", "settings", "--url", "{url}"),
        ("-p", "shop", "settings", "cache"),
        ("settings", "-p", "shop", "cache"),
        ("settings", "-pshop", "cache"),
        ("settings", "--profile=shop", "cache"),
        ("rules", "-p", "shop", "cache_size"),
        ("rules", "-p", "shop", "--json", "cache_size"),
        ("--profile", "shop", "rules", "list", "cache_size"),
        ("features", "--url", "{url}"),
        ("settings", "-h"),
        ("-p", "shop", "logout"),
    ],
)
def test_the_service_may_be_selected_before_or_after_the_command(
    run: Run, shop: WatchedService, arguments: tuple[str, ...]
) -> None:
    """Also between a group and its command. The last option counts."""
    outcome = run(*(argument.format(url=shop.url) for argument in arguments), HEKSHER_URL="http://127.0.0.1:9")
    assert (outcome.status, outcome.err) == (0, "")


@pytest.mark.parametrize(
    "arguments", [("-v", "get", "cache_size"), ("get", "cache_size", "-v"), ("get", "-v", "cache_size")]
)
def test_requests_are_logged_to_standard_error(run: Run, shop: WatchedService, arguments: tuple[str, ...]) -> None:
    """With their status, size and time, and without the token."""
    variables = {"HEKSHER_TOKEN": "s3cr3t-token", "HEKSHER_URL": shop.url}
    outcome = run(*arguments, **variables)
    assert outcome.out == "50\n"
    lines = [re.sub(r"[0-9,]+ bytes, [0-9]+ ms", "N bytes, N ms", line) for line in outcome.err.splitlines()]
    assert lines[0] == "GET /api/v1/settings/cache_size: 200, N bytes, N ms"
    assert lines[2] == "GET /api/v1/context_features: 200, N bytes, N ms"
    assert "s3cr3t" not in outcome.err


def test_changes_and_failures_are_logged(run: Run, shop: WatchedService) -> None:
    """A request without a response, and the size of what is sent."""
    assert "POST /api/v1/rules (" in run("-v", "rules", "add", "cache_size", "1", "user=ann").err
    outcome = run("-v", "ping", "--url", "http://127.0.0.1:9")
    assert outcome.err.startswith("GET /api/health: no response (ConnectError), ")
    shop.intercept = lambda _: CannedResponse(200, b"x" * 2_000)
    assert "GET /api/health: 200, " in run("-v", "ping", HEKSHER_MAX_RESPONSE_BYTES="1000").err
    shop.intercept = lambda _: None
    assert run("watch", "--count", "1", "-v", "--url", "http://127.0.0.1:9").status == 3
    assert "GET /api/v1/settings" in run("diff", "-v", "shop", "shop").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rule", "cache_size"), "No such command 'rule'; did you mean rules?"),
        (("service", "tokn"), "No such command 'tokn'; did you mean token?"),
        (("rules", "ad", "cache_size", "5", "user=ann"), "No such command 'ad'; did you mean add?"),
        (("settings", "renam", "a", "b"), "No such command 'renam'; did you mean rename?"),
        (("features", "xyzzy"), "unexpected extra argument (xyzzy)"),
        (("-p", "shop", "profiles"), "`profiles` does not have the option --profile"),
        (("--url", "http://x", "diff", "a", "b"), "`diff` does not have the option --url"),
        (("get", "cache_size", "usr=jim"), "are: environment, user; did you mean user?"),
        (("rules", "add", "cache_size", "5", "usr=jim"), "are: environment, user; did you mean user?"),
        (("rules", "list", "cache_size", "usr=jim"), "are: environment, user; did you mean user?"),
    ],
)
def test_a_mistyped_word_is_an_error_with_similar_words(run: Run, arguments: tuple[str, ...], message: str) -> None:
    outcome = run(*arguments)
    assert (outcome.status, message in outcome.err) == (2, True), outcome.err


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cache_siz", "; did you mean cache_size?"),
        ("color", "; did you mean shop.color?"),
        ("nothing", "; list the settings with `heksher-client settings`"),
    ],
)
def test_a_mistyped_setting_is_an_error_with_similar_settings(
    run: Run, shop: WatchedService, name: str, hint: str
) -> None:
    """Or with the command that lists them."""
    outcome = run("get", name)
    assert (outcome.status, outcome.err) == (1, f"Error: setting {name} does not exist in {shop.url}{hint}\n")


@pytest.mark.parametrize(
    ("type_", "default", "value", "message"),
    [
        ("bool", True, "True", "'True' is not valid JSON, and setting s has type bool: use true or false"),
        ("bool", True, "1", "setting s cannot have the value 1: use true or false"),
        ("int", 1, "many", "'many' is not valid JSON, and setting s has type int: use a whole number"),
        ("float", 1, "many", "has type float: use a number"),
        ('Enum["a","b"]', "a", "c", 'has type Enum["a","b"]: use one of a, b'),
        ('Enum["a","b"]', "a", "5", "setting s cannot have the value 5: use one of a, b"),
        (f"Enum[{','.join(map(str, range(30)))}]", 1, "30", "25, 26 and 10 more"),
        ('Flags["a","b"]', ["a"], "a", "use a JSON list with any of a, b"),
        ("Sequence<str>", [], "a", """use a JSON list, such as '["a", "b"]'"""),
        ("Mapping<int>", {}, "a", """use a JSON object, such as '{"a": 1}'"""),
    ],
)
def test_the_error_for_an_invalid_value_says_which_are_allowed(
    run: Run, shop: WatchedService, type_: str, default: Any, value: str, message: str
) -> None:
    shop.declare("s", type_, default, ["user"])
    outcome = run("rules", "add", "s", value, "user=jim")
    assert (outcome.status, message in outcome.err) == (1, True), outcome.err


def test_a_member_of_an_enum_needs_no_quotes(run: Run, shop: WatchedService) -> None:
    """Also one that looks like a number. A type that cannot be read is left to the service."""
    shop.declare("s", 'Enum["a","5"]', "a", ["user"])
    assert run("rules", "add", "s", "5", "user=jim").status == 0
    assert run("rules", "set", "s", '"a"', "user=jim").status == 0
    assert run("get", "s", "user=jim").out == "a\n"
    setting = {"name": "s", "type": "Enum[a,b]", "default_value": "a", "configurable_features": ["user"],
               "metadata": {}, "aliases": [], "version": "1.0"}  # fmt: skip
    shop.respond_with("GET /api/v1/settings/s", CannedResponse.of(setting))
    assert "has type Enum[a,b]\n" in run("rules", "add", "s", "b", "user=ann").err


def test_effects_other_than_requests_are_not_logged(shop: WatchedService) -> None:
    """For example the pauses of `watch`."""
    log: list[str] = []
    with closing(CommandClient(ThreadHeksherClient(shop.url, 60, ()), log.append)) as client:

        def pause() -> Flow[str]:
            yield Pause(0.0)
            return "done"

        assert client._run(pause()) == "done"
    assert log == []


def test_a_missing_permission_is_status_4(run: Run, shop: WatchedService) -> None:
    """Another sign-in does not help: the message has the required role."""
    shop.intercept = lambda _: CannedResponse(403, b"this request needs the role admin")
    outcome = run("features", "add", "x")
    assert (outcome.status, "'this request needs the role admin'; use a token with" in outcome.err) == (4, True)
    assert "credentials are missing" not in outcome.err


def _require_token(request: RecordedRequest) -> CannedResponse | None:
    return None if "authorization" in request.headers else CannedResponse(401, b"no")


def test_a_token_that_cannot_be_left_out_counts_as_checked(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """One in the headers of a profile."""
    profile = f'[profiles.shop]\nurl = "{shop.url}"\nheaders = {{ Authorization = "Bearer s3cr3t" }}\n'
    (tmp_path / "heksher.toml").write_text(profile)
    (tmp_path / "heksher.toml").chmod(0o600)
    assert "accepts the token or password" in run("ping").out


def test_an_error_of_the_request_without_credentials_is_reported(run: Run, shop: WatchedService) -> None:
    def fail_without(request: RecordedRequest) -> CannedResponse | None:
        return None if "authorization" in request.headers else CannedResponse(503, b"busy")

    shop.respond_with("GET /api/v1/context_features", fail_without)
    token = {"HEKSHER_TOKEN": "s3cr3t", "HEKSHER_URL": shop.url}
    assert run("ping", **token).status == 3


def test_ping_checks_the_health_and_the_token(run: Run, shop: WatchedService) -> None:
    """It says which of both, and whether there was a token, and whether the service needs one."""
    assert run("ping").out == f"{shop.url} is healthy, and requires no token.\n"
    accepted = f"{shop.url} is healthy, and accepts the token or password (its role was not checked).\n"
    token = {"HEKSHER_TOKEN": "s3cr3t", "HEKSHER_URL": shop.url}
    unchecked = f"{shop.url} is healthy, and requires no token; yours was not checked.\n"
    assert run("ping", **token).out == unchecked
    assert run("ping", "--json", **token).json["requires_token"] is False
    shop.respond_with("GET /api/v1/context_features", _require_token)
    assert run("ping", **token).out == accepted
    assert run("ping", "--json", **token).json["requires_token"] is True
    shop.respond_with("GET /api/v1/context_features", CannedResponse(401, b"no"))
    hint = "(401); sign in with `heksher-client login`, or set HEKSHER_TOKEN\n"
    outcome = run("ping")
    assert (outcome.status, outcome.err) == (4, f"Error: {shop.url} requires a token {hint}")
    outcome = run("ping", **token)
    assert (outcome.status, outcome.err) == (4, f"Error: {shop.url} refused the token or password {hint}")


def test_a_port_in_use_is_an_error_with_the_option(run: Run, shop: WatchedService) -> None:
    port = shop.url.rpartition(":")[2]
    outcome = run("serve", "--port", port, "--database", "sqlite://")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert f"port {port} of 127.0.0.1 is in use" in outcome.err
    assert "another port with --port" in outcome.err
    assert "in use" not in run("serve", "--host", "192.0.2.1", "--database", "sqlite://").err
