"""Shell completion, in real shells."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.clients import TIMEOUT_SECONDS
from tests.support.forks import fork_warning_ignored
from tests.support.service import WatchedService

ROOT = Path(__file__).parents[2]
_PROGRAM = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from heksher_client.cli import completion, main
completion._TIMEOUT = completion._REQUEST_TIMEOUT = {TIMEOUT_SECONDS}
main(prog_name="heksher-client")
"""
_SHELLS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}
_SETUP = {
    "bash": 'PS1="ready""> "; bind "set enable-bracketed-paste off"; eval "$(heksher-client completion bash)"',
    "zsh": 'PS1="ready""> "; unset zle_bracketed_paste; autoload -U compinit; compinit -u; '
    'eval "$(heksher-client completion zsh)"',
    "fish": "function fish_prompt; echo -n 'ready''> '; end; heksher-client completion fish | source",
}
_CONTROL = re.compile(r"\x1b\][^\x07]*\x07|\x1b[\[(>=][0-9;?]*[A-Za-z0-9]?|[\x00-\x09\x0b-\x1f\x7f]")


class Shell:
    """An interactive shell with the completion of `heksher-client`."""

    def __init__(self, name: str, variables: dict[str, str], directory: Path) -> None:
        with fork_warning_ignored():
            self._process = pexpect.spawn(
                name, _SHELLS[name], env=variables, cwd=str(directory), encoding="utf-8", timeout=TIMEOUT_SECONDS,
                dimensions=(50, 200),
            )  # fmt: skip
        self._process.delaybeforesend = None
        self.name = name
        self._process.sendline(_SETUP[name])
        self._process.expect("ready> ")

    def result(self, line: str) -> str:
        """Type a line, in which a tab completes a word, run it, and return its output and its status."""
        self._process.send(line)
        self._process.send("; echo status:" + ("$status" if self.name == "fish" else "$?") + ";\r")
        self._process.expect(r"status:([0-9]+)\r?\n")
        output = f"{self._process.before}{self._process.after}"
        self._process.expect("ready> ")
        return _CONTROL.sub("", output)

    def close(self) -> None:
        self._process.close(force=True)


@pytest.fixture(params=list(_SHELLS))
def shell(
    request: pytest.FixtureRequest, profile: None, command_environment: dict[str, str], tmp_path: Path
) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    program = tmp_path / "bin" / "heksher-client"
    program.parent.mkdir()
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    opened = Shell(request.param, command_environment | {"PATH": path, "TERM": "dumb"}, tmp_path)
    yield opened
    opened.close()


@pytest.mark.slow
def test_a_shell_completes_a_setting_after_a_url(shell: Shell, shop: WatchedService) -> None:
    """Bash splits words at the colons of the URL."""
    assert "\n200\n" in shell.result(f"heksher-client get --url {shop.url} cache_\tuser=jim environment=prod")
    assert "\nred\n" in shell.result(f"heksher-client --url={shop.url} get shop\t")
