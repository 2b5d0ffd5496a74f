"""The commands and programs of guides, followed literally."""

import gc
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_examples import PRINTED, PROCESSES, SEPARATE_TESTS
from tests.docs.test_tutorial import DEFAULT_PORT, DOCS, all_match, blocks, follow, terminals
from tests.support.commands import environment, run_in_process, run_program, run_script_in_process
from tests.support.service import WatchedService

pytestmark = [pytest.mark.unmeasured, pytest.mark.slow]

STATUSES = {
    "many-environments: heksher-client compare environment=staging environment=prod": 5,
    "many-environments: heksher-client compare environment=staging environment=prod 'cache*'": 5,
    "troubleshooting: heksher-client get cache_size users=jim": 2,
    "troubleshooting: heksher-client ping --url http://127.0.0.1:1": 3,
}
"""The exit statuses of commands that find differences or nothing, ask a question, or show an error."""
SEPARATE = SEPARATE_TESTS - {"rename_before.py", "rename_after.py", "validators.py"}
"""The programs that need a server, a library or input; other tests run them."""
OTHER_STEPS = (
    "HEKSHER_CA_FILE=", "celery ", "curl ", "eval ", "gunicorn ", "heksher-client log", "heksher-client service token",
    "pip ", "pytest ", "uvicorn ",
)  # fmt: skip
"""The beginnings of commands that other tests run."""

OTHER_OUTPUTS = {"troubleshooting", "web-frameworks"}
"""The pages whose outputs other tests compare."""


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
        if command.startswith(OTHER_STEPS):
            continue
        program, *arguments = command.split()
        assert program == "heksher-client"
        outcome = run_in_process(arguments, env, tmp_path)
        port = re.escape(shop.url.rpartition(":")[2])
        printed = re.sub(rf"\b{port}\b", DEFAULT_PORT, outcome.err + outcome.out).splitlines()
        assert printed
    assert printed == []


def test_all_guides_work_after_the_tutorial_in_the_order_of_the_navigation(tmp_path: Path) -> None:
    """Readers keep one service, so no page may leave rules or settings that a later page does not expect."""
    with terminals(tmp_path, "thread") as opened:
        follow("tutorial.md", opened)
        reader = Reader(tmp_path, opened.url)
        for page in guides():
            for step in steps(page):
                reader.read(page, step)
    assert reader.programs > 20
    assert reader.commands > 50


def guides() -> list[str]:
    """Return the pages in the order of the navigation."""
    text = (DOCS / "how-to" / "index.md").read_text()
    blocks_of_pages = re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    pages = re.findall(r"^[\w-]+$", "".join(blocks_of_pages), re.MULTILINE)
    assert len(pages) == len(list((DOCS / "how-to").glob("*.md"))) - 1
    return pages


def steps(page: str) -> Iterator[list[str]]:
    """Yield the blocks of commands of a guide, and `python` with each whole program that the guide shows.

    The output that the guide shows after commands begins with an empty line.
    """
    text = (DOCS / "how-to" / f"{page}.md").read_text()
    for name, commands, output in re.findall(
        r"^```\{literalinclude\} \.\./examples/(\w+\.py)$|^ *```sh\n(.*?)^ *```$|^```text\n(.*?)^```$",
        text,
        re.DOTALL | re.MULTILINE,
    ):
        yield ["", *output.splitlines()] if output else [f"python {name}"] if name else commands.splitlines()


class Reader:
    """A reader who has saved all programs of the guides in one folder, and follows the pages with one service."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        config = folder / "config.toml"
        config.write_text(f'format = 1\n[profiles.dev]\nurl = "{url}"\n[profiles.prod]\nurl = "{url}"\n')
        # Python 3.12 warns about each fork of a process with threads.
        filters = "ignore:This process:DeprecationWarning"
        self._env = environment(
            HEKSHER_URL=url, HEKSHER_PROFILE="dev", HOME=str(folder), HEKSHER_CONFIG=str(config), PYTHONWARNINGS=filters
        )
        self.programs = self.commands = 0
        self._printed: list[str] = []

    def read(self, page: str, block: list[str]) -> None:
        """Run commands, or compare their output with the one that the page shows."""
        if block[0]:
            self._printed = [self._do(page, command.strip()) for command in block]
        elif page not in OTHER_OUTPUTS:
            assert all_match(block[1:], "".join(self._printed).splitlines()), (page, block, self._printed)

    def _do(self, page: str, step: str) -> str:
        """Run a command or a program, unless other tests run it, check that it succeeds, and return its output."""
        if step.startswith(OTHER_STEPS) or " > " in step or "watch" in step or step.split()[-1] in SEPARATE:
            return ""
        program, *arguments = shlex.split(step, comments=True)
        if program == "python":
            gc.collect()  # settings of former programs in this process
            path = DOCS / "examples" / arguments[0]
            if path.name in PROCESSES:
                outcome = run_program([sys.executable, str(path)], self._env, self._folder)
            else:
                outcome = run_script_in_process(path, self._env, self._folder)
            assert (outcome.status, outcome.err) == (0, ""), (page, step)
            self.programs += 1
        else:
            assert program == "heksher-client", (page, step)
            outcome = run_in_process(arguments, self._env, self._folder)
            expected = STATUSES.get(f"{page}: {step.split('  ')[0]}", 0)
            assert outcome.status == expected, (page, step, outcome)
            self.commands += 1
        return outcome.out
