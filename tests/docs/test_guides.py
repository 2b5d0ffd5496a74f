"""The commands of guides, with the output that the pages show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_examples import PRINTED
from tests.docs.test_tutorial import DEFAULT_PORT, DOCS, all_match, blocks
from tests.support.commands import environment, run_in_process
from tests.support.service import WatchedService

pytestmark = [pytest.mark.unmeasured, pytest.mark.slow]

DIFFERENCES = 5
"""The exit status of commands that compare."""
OTHER_COMMANDS = ("HEKSHER_CA_FILE=", "heksher-client service token add", "pytest ")
"""The beginnings of commands that other tests run."""


@pytest.fixture
def shop() -> Iterator[WatchedService]:
    """A service with rules that give jim a cache of 200 in production, and all others one of 50."""
    with WatchedService(("environment", "user")) as service:
        service.offers_changes = True
        service.declare("cache_size", "int", 10, ["environment", "user"])
        service.add_rule("cache_size", 200, user="jim", environment="prod")
        service.add_rule("cache_size", 50, environment="prod")
        yield service


def test_the_commands_for_troubleshooting_print_what_the_page_shows(shop: WatchedService, tmp_path: Path) -> None:
    """Notes and errors are shown before the output."""
    env = environment(HEKSHER_URL=shop.url, HOME=str(tmp_path))
    example = PRINTED["diagnose.py"].splitlines()
    printed: list[str] = []
    for block in blocks("how-to/troubleshooting.md"):
        if block.kind == "output":
            assert all_match(block.lines, printed or example), (block, printed)
            printed = []
            continue
        (command,) = block.lines
        if command.startswith(OTHER_COMMANDS):
            continue
        program, *arguments = command.split()
        assert program == "heksher-client"
        outcome = run_in_process(arguments, env, tmp_path)
        port = re.escape(shop.url.rpartition(":")[2])
        printed = re.sub(rf"\b{port}\b", DEFAULT_PORT, outcome.err + outcome.out).splitlines()
        assert printed
    assert printed == []


@pytest.mark.parametrize("page", ["use-the-command-line", "many-environments"])
def test_the_commands_of_a_guide_are_valid(page: str, shop: WatchedService, tmp_path: Path) -> None:
    """A service may refuse a command because of its rules, but no option or argument is invalid."""
    shop.declare("shop.color", "str", "blue", ["environment", "user"])
    config = tmp_path / "config.toml"
    config.write_text(f'format = 1\n[profiles.dev]\nurl = "{shop.url}"\n[profiles.prod]\nurl = "{shop.url}"\n')
    env = environment(HEKSHER_URL=shop.url, HOME=str(tmp_path), HEKSHER_CONFIG=str(config))
    commands = commands_of(page)
    assert len(commands) > 5
    for command, arguments in commands:
        assert run_in_process(arguments, env, tmp_path).status in (0, 1, DIFFERENCES), command


def test_a_value_is_rolled_out_with_the_commands_of_the_guide(tmp_path: Path) -> None:
    """They succeed one after another, on a service without rules."""
    with WatchedService(("environment", "user")) as service:
        service.declare("cache_size", "int", 10, ["environment", "user"])
        env = environment(HEKSHER_URL=service.url, HOME=str(tmp_path))
        for command, arguments in commands_of("roll-a-rule-out"):
            outcome = run_in_process(arguments, env, tmp_path)
            assert (outcome.status, outcome.err) == (0, ""), command


def commands_of(page: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a guide with their arguments, except those that do not end or need a shell."""
    text = (DOCS / "how-to" / f"{page}.md").read_text()
    commands = re.findall(r"^ *heksher-client (.+?) *(?:#.*)?$", text, re.MULTILINE)
    return [(command, shlex.split(command)) for command in commands if "watch" not in command and ">" not in command]
