"""The commands of guides, with the output that the pages show."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_examples import PRINTED
from tests.docs.test_tutorial import DEFAULT_PORT, all_match, blocks
from tests.support.commands import environment, run_in_process
from tests.support.service import WatchedService

pytestmark = [pytest.mark.unmeasured, pytest.mark.slow]

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
