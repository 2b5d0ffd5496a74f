"""The commands `login`, `logout`, `ping` and `profiles`, run in this process."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from heksher_client.cli import main
from tests.support.oauth import OAuthServer
from tests.support.profiles import MemoryKeyring, browse, token_file


def run(*arguments: str, text: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments), input=text)
    return result.exit_code, result.output


@pytest.mark.usefixtures("clock")
def test_commands_sign_in_and_out(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch, keyring_or_file: MemoryKeyring | None
) -> None:
    """`login`, `ping`, `profiles` and `logout`, with all ways to sign in."""
    monkeypatch.setattr("click.launch", browse)
    location = "the system keyring" if keyring_or_file is not None else str(token_file(login_config))
    code, output = run("login", "shop")
    assert (code, f"The tokens are stored in {location}." in output) == (0, True)

    def fail_to_launch(url: str) -> int:
        browse(url)
        return 1

    monkeypatch.setattr("click.launch", fail_to_launch)
    code, output = run("login", "shop")
    assert (code, "Could not open a browser" in output) == (0, True)
    assert run("ping") == (0, "The service is healthy.\n")
    assert run("profiles") == (0, f"Profiles in {login_config}:\n  shop\n")
    assert run("logout") == (0, "Signed out.\n")
    assert run("logout") == (0, "Not signed in.\n")
    code, output = run("ping", "-p", "shop")
    assert code == 4
    assert output.startswith("Error: ")
    assert "sign in with: heksher-client login shop" in output
    code, output = run("login", "--headless")
    assert (code, f"Open {oauth.url}/enter and enter WDJB-MJHT within 60 seconds." in output) == (0, True)
    assert run("login", "--token", text=f"{oauth.issue()}\n")[0] == 0
    assert run("ping", "-p", "shop") == (0, "The service is healthy.\n")
    assert run("login", "--token", "--headless")[0] == 2
    code, output = run("login", "--token", text="\n")
    assert (code, "reads the token from standard input, which is empty" in output) == (2, True)


def test_login_prompts_for_a_token_on_a_terminal(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is not echoed."""
    token = oauth.issue()
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("heksher_client.cli.login.sys", terminal)
    code, output = run("login", "--token", text=f"{token}\n")
    assert code == 0
    assert token not in output


def test_errors_of_the_commands_are_a_single_line(login_config: Path) -> None:
    """It says what to configure."""
    login_config.write_text("")
    assert run("profiles") == (0, f"Profiles in {login_config}:\n  (none)\n")
    for arguments in (["ping"], ["login"], ["logout"]):
        code, output = run(*arguments)
        assert code == 2
        assert output.count("\n") == 1
        assert "no service URL is configured" in output
