"""The commands `login`, `logout`, `ping` and `profiles`, run in this process."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import heksher_client
from heksher_client.cli import main
from heksher_client.exceptions import ConfigError
from heksher_client.profiles._token_store import StoredTokens, TokenStore
from tests.support.http import http_request
from tests.support.in_memory import LoopbackService
from tests.support.oauth import OAuthServer
from tests.support.profiles import MemoryKeyring, browse, token_file, write_config


def run(*arguments: str, text: str | bytes | None = None) -> tuple[int, str]:
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
    assert "is healthy, and " in run("ping")[1]
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
    assert "is healthy, and " in run("ping", "-p", "shop")[1]
    assert run("login", "--token", "--headless")[0] == 2
    code, output = run("login", "--token", text="\n")
    assert (code, "reads the token from standard input, which is empty" in output) == (2, True)


def test_login_headless_prompts_for_a_code_if_the_server_has_no_device_codes(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user may enter the address at which the browser ends."""
    metadata = oauth.metadata()
    del metadata["device_authorization_endpoint"]
    monkeypatch.setattr(oauth, "metadata", lambda: metadata)
    shown: list[str] = []

    def enter(text: str) -> str:
        assert text == "Code or address"
        return http_request("GET", shown[0].split()[1]).headers["Location"]

    monkeypatch.setattr("click.echo", shown.append)
    monkeypatch.setattr("click.prompt", enter)
    assert run("login", "--headless")[0] == 0
    assert shown[0].endswith(" in a browser and sign in within 300 seconds.")
    assert shown[-1].startswith("Signed in.")


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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_l9_a_token_may_be_in_any_encoding_of_unicode(
    oauth: OAuthServer, login_config: Path, service: LoopbackService, encoding: str
) -> None:
    """Windows PowerShell adds a byte order mark to what it pipes, and writes files in UTF-16."""
    token = oauth.issue()
    assert run("login", "--token", text=f"{token}\r\n".encode(encoding))[0] == 0
    assert "is healthy, and " in run("ping")[1]
    assert service.requests[-1].headers["authorization"] == f"Bearer {token}"
    code, output = run("login", "--token", text="é".encode("latin-1"))
    assert (code, "is not text in Unicode" in output) == (2, True)


def test_errors_of_the_commands_are_a_single_line(login_config: Path) -> None:
    """It says what to configure."""
    login_config.write_text("")
    assert run("profiles") == (0, f"Profiles in {login_config}:\n  (none)\n")
    for arguments in (["ping"], ["login"], ["logout"]):
        code, output = run(*arguments)
        assert code == 2
        assert output.count("\n") == 1
        assert "no service URL is configured" in output


@pytest.fixture
def other() -> Iterator[LoopbackService]:
    """Another service, which no profile names and which requires no credentials."""
    with LoopbackService() as service:
        yield service


SIGN_INS = [
    '[profiles.shop.oauth]\nclient_id = "x"\nissuer = "http://127.0.0.1:9"\n',
    '[profiles.shop.oauth]\nclient_id = "x"\ngrant = "client_credentials"\nclient_secret = "s"\n',
    'token = "profile-token"\n',
    'headers = { Authorization = "Bearer profile-token" }\n',
    'headers = { X-Team = "shop" }\ncookies = { c = "profile-token" }\nparams = { key = "profile-token" }\n',
    "",
]
"""Lines of a profile that belong to its own service."""


STORED_TOKENS = StoredTokens(origin="https://shop.example.com:443", access_token="stored-token")  # noqa: S106 - no secret


@pytest.mark.parametrize("sign_in", SIGN_INS)
@pytest.mark.parametrize("default", ["", 'default_profile = "shop"\n'])
def test_k4_a_url_is_enough_and_receives_no_secrets(
    config_file: Path, other: LoopbackService, sign_in: str, default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile has a sign-in, in its file or in the token store. The URL can be in the environment."""
    write_config(config_file, f'{default}[profiles.shop]\nurl = "https://shop.example.com"\n{sign_in}')
    TokenStore(config_file).save("shop", STORED_TOKENS)
    monkeypatch.setenv("HEKSHER_CLIENT_SECRET", "environment-secret")
    assert "is healthy, and " in run("ping", "--url", other.url)[1]
    monkeypatch.setenv("HEKSHER_URL", other.url)
    assert "is healthy, and " in run("ping")[1]
    monkeypatch.setenv("HEKSHER_TOKEN", "environment-token")
    assert run("status")[0] == 0
    authorizations = [request.headers.get("authorization") for request in other.requests]
    assert set(authorizations) == {None, "Bearer environment-token"}
    assert not any("cookie" in request.headers or "x-team" in request.headers for request in other.requests)
    assert all("key" not in request.query for request in other.requests)


def test_k4_a_profile_that_is_not_named_lends_its_other_options(config_file: Path, other: LoopbackService) -> None:
    """Such as its user agent, its timeouts and its certificates."""
    write_config(config_file, '[profiles.shop]\nurl = "https://shop.example.com"\ntoken = "t"\nuser_agent = "shop/1"\n')
    assert run("ping", "--url", other.url)[0] == 0
    assert other.requests[-1].headers["user-agent"] == "shop/1"


def test_k4_a_sign_in_is_used_but_not_required_for_the_url_of_the_profile(
    oauth: OAuthServer, login_config: Path, service: LoopbackService
) -> None:
    """Another path of the same server is its URL as well."""
    service.intercept = lambda request: None
    assert "is healthy, and " in run("ping", "--url", f"{service.url}/")[1]
    assert "authorization" not in service.requests[-1].headers
    token = oauth.issue()
    assert run("login", "--token", text=f"{token}\n")[0] == 0
    assert "is healthy, and " in run("ping", "--url", f"{service.url}/")[1]
    assert service.requests[-1].headers["authorization"] == f"Bearer {token}"
    assert run("logout")[0] == 0
    assert run("ping")[0] == 4


def test_k4_secrets_of_a_named_profile_are_refused_for_another_url(config_file: Path, other: LoopbackService) -> None:
    """The user asked for both."""
    write_config(config_file, '[profiles.shop]\nurl = "https://shop.example.com"\ntoken = "t"\n')
    code, output = run("ping", "-p", "shop", "--url", other.url)
    assert (code, "token cannot be sent to http://127.0.0.1" in output) == (2, True)
    assert other.requests == []


def test_k4_a_token_of_the_environment_belongs_to_the_profile(
    config_file: Path, other: LoopbackService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the environment has a URL."""
    write_config(config_file, '[profiles.shop]\nurl = "https://shop.example.com"\n')
    monkeypatch.setenv("HEKSHER_TOKEN", "environment-token")
    code, output = run("ping", "--url", other.url)
    assert (code, "the environment: token cannot be sent to http://127.0.0.1" in output) == (2, True)
    assert other.requests == []


UNUSABLE = [
    ('default_profile = "gone"\n', ""),
    ("default_profile = 5\n", ""),
    ('default_profile = ["shop"]\n', ""),
    ('[profiles.shop]\nurl = "http://[::1"\ntoken = "t"\n', ""),
    ('[profiles.shop]\nurl = 5\ntoken = 5\nheaders = "x"\noauth = 5\n', ""),
    ('[profiles.shop]\nurl = "https://shop.example.com"\nunknown = 1\n', "there is no key unknown"),
    ('[profiles.shop]\nurl = "https://shop.example.com"\ntimeout = "x"\n', "got `str` - at `$.timeout`"),
    ('[profiles.shop]\nurl = "https://shop.example.com"\nauth = "oauth"\n', "there is no key auth: did you mean oauth"),
    ('[profiles.shop]\nurl = "https://shop.example.com"\njitter = 5\n', "jitter must be"),
    ('[profiles.shop]\nurl = "https://shop.example.com"\nca_file = "/gone"\n', "the certificates in /gone"),
    ("profiles = 5\n", "got `int` - at `$.profiles`"),
    ("unknown = 5\n", "there is no key unknown"),
    ("format = 2\n", "format 2"),
    ("not toml [\n", "is not valid TOML"),
]
"""Configuration files, and the warning about what would be used otherwise."""


@pytest.mark.parametrize(("content", "warning"), UNUSABLE)
def test_k4_a_configuration_that_is_not_needed_may_be_invalid(
    config_file: Path,
    other: LoopbackService,
    content: str,
    warning: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If a command has a URL. Without one, the same is an error in one line."""
    write_config(config_file, content)
    assert "is healthy, and " in run("ping", "--url", other.url)[1]
    messages = [record.getMessage() for record in caplog.records if record.name == "heksher_client"]
    assert len(messages) == bool(warning)
    assert all(warning in text and text.endswith("; it is not used, as the URL is given") for text in messages)
    code, output = run("ping")
    assert (code, output.count("\n")) == (2, 1)
    code, output = run("ping", "-p", "nothing", "--url", other.url)
    assert (code, output.count("\n")) == (2, 1)
    monkeypatch.setenv("HEKSHER_URL", other.url)
    assert "is healthy, and " in run("ping")[1]


def test_k4_a_default_profile_that_does_not_exist_is_not_needed_by_a_program_with_a_url(
    config_file: Path, other: LoopbackService
) -> None:
    """Other errors of the file are errors of the program, which may depend on its options."""
    write_config(config_file, 'default_profile = "gone"\n')
    with heksher_client.connect(url=other.url, context_features=["user"]):
        pass
    write_config(config_file, "not toml [\n")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        heksher_client.connect(url=other.url, context_features=["user"])


def test_k4_the_url_of_a_secret_is_named_if_it_is_not_valid(config_file: Path, other: LoopbackService) -> None:
    write_config(config_file, '[profiles.shop]\nurl = "http://[::1"\ntoken = "t"\n')
    code, output = run("ping", "-p", "shop", "--url", other.url)
    assert (code, f"profile shop in {config_file}: the url is invalid" in output) == (2, True)


def test_l21_a_proxy_with_a_space_is_an_error(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEKSHER_PROXY", "http://a b:3128")
    code, output = run("ping", "--url", "http://x")
    assert (code, "the proxy must be an http://, https:// or socks5:// URL" in output) == (2, True)
