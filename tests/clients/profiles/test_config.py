"""Errors of a configuration: each names its source, the value and the fix."""

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import heksher_client.profiles
from heksher_client import (
    ConfigError,
    CredentialError,
    State,
    connect,
    connect_async,
    login,
    login_headless,
    login_with_token,
    logout,
)
from heksher_client.cli import main
from heksher_client.profiles import config_path
from tests.support.clients import Kind
from tests.support.in_memory import LoopbackService
from tests.support.oauth import OAuthServer
from tests.support.profiles import MINIMAL_PROFILE, Connected, browse, token_file, write_config


def test_the_default_path_is_in_the_configuration_directory_of_the_platform(tmp_path: Path) -> None:
    """It is used if `HEKSHER_CONFIG` is not set."""
    path = config_path()
    assert path is not None
    assert path.name == "config.toml"
    assert path.parent.name == "heksher-client"


def test_a_program_chooses_the_configuration_file(
    kind: Kind, service: LoopbackService, config_file: Path, tmp_path: Path
) -> None:
    """By an argument, which takes precedence over `HEKSHER_CONFIG`. It may be the folder of `config.toml`."""
    write_config(config_file, "not toml [\n")
    folder = tmp_path / "shop"
    folder.mkdir()
    path = folder / "config.toml"
    write_config(path, f'[profiles.shop]\nurl = "{service.url}"\ncontext_features = ["environment", "user", "theme"]\n')
    for given in (path, str(path), folder, f"{folder}/"):
        assert config_path(given) == path
        with Connected(kind, path=given) as client:
            assert client.status().state is State.FRESH
    for missing, name in (
        (folder / "x", "x/config.toml"),
        (folder / "x.toml", "x.toml"),
        (f"{folder}/x/", "x/config.toml"),
        (tmp_path, "config.toml"),
    ):
        with pytest.raises(ConfigError, match=f"^path: the file .*/{name} does not exist$"):
            Connected(kind, path=missing)
    with pytest.raises(ConfigError, match=r"^path: cannot expand ~nobody-of-that-name/x: unknown user"):
        connect(path="~nobody-of-that-name/x")
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        connect(path="x" * 5000)
    with pytest.raises(ConfigError, match=r"^path must not be empty"):
        connect(path="")
    with pytest.raises(TypeError, match=r"^path must be a str or an os\.PathLike, not int"):
        connect(path=5)  # type: ignore[call-overload]


@pytest.mark.usefixtures("clock")
def test_a_sign_in_is_stored_next_to_the_file_of_an_argument(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All functions for it have the argument. The error for a program without a sign-in says which file it is."""
    folder = login_config.parent
    login_config.rename(folder / "config.toml")
    monkeypatch.delenv("HEKSHER_CONFIG")
    for sign_in in (
        partial(login, browse),
        partial(login_headless, lambda code: None),
        partial(login_with_token, oauth.issue()),
    ):
        assert sign_in(path=folder) == str(folder / "config.tokens.json")
        with connect(path=folder) as client:
            client.ping()
        assert logout(path=folder)
    config = re.escape(str(folder / "config.toml"))
    with (
        connect(path=folder) as client,
        pytest.raises(CredentialError, match=rf"heksher-client login shop \(with HEKSHER_CONFIG={config}\)$"),
    ):
        client.ping()


def test_heksher_config_may_be_a_folder(
    kind: Kind, service: LoopbackService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file in it is `config.toml`, for programs and for commands."""
    path = tmp_path / "config.toml"
    write_config(path, MINIMAL_PROFILE.replace("http://h", service.url))
    monkeypatch.setenv("HEKSHER_CONFIG", str(tmp_path))
    assert heksher_client.profiles.config_path() == path
    assert CliRunner().invoke(main, ["profiles"]).output == f"Profiles in {path}:\n  a\n"
    with Connected(kind, context_features=["environment", "user", "theme"]) as client:
        assert client.status().state is State.FRESH


def test_an_empty_environment_variable_is_ignored(service: LoopbackService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments often set variables to an empty string."""
    for name in ("CONFIG", "PROFILE", "TOKEN", "JITTER"):
        monkeypatch.setenv(f"HEKSHER_{name}", "")
    with connect(url=service.url, context_features=["environment", "user", "theme"]) as client:
        assert client._endpoint.auth is None
    monkeypatch.setenv("HEKSHER_CONFIG", "~nobody-of-that-name/x")
    with pytest.raises(ConfigError, match="unknown user"):
        connect()


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("[profiles.a\n", {}, r"is not valid TOML: .*line 1"),
        ("format = 2\nnew = 1\n", {}, r"has format 2, and this version of heksher_client reads format 1: upgrade it"),
        ("formats = 1\n", {}, r"heksher\.toml: there is no key formats: did you mean format\?"),
        ("format = 'x'\n", {}, "format must be 1, not 'x'"),
        ("format = 0\n", {}, "format must be 1, not 0"),
        (f"{MINIMAL_PROFILE}proxy = 'nonsense://h'", {}, "profile a in"),
        (f"{MINIMAL_PROFILE}headers = {{a = 'b'}}\n", {"headers": "abc"}, "headers must be a dict"),
        (MINIMAL_PROFILE, {"headers": "abc"}, "headers must be a dict"),
        (MINIMAL_PROFILE, {"http_client_args": "abc"}, "http_client_args must be a dict"),
        (
            f"{MINIMAL_PROFILE}[profiles.a.oauth]\nclient_id = 'x'\nclient_secret = 's'\n"
            "grant = 'client_credentials'\ntoken_url = 'h'\n",
            {},
            "token_url must be an absolute http",
        ),
        ("[profiles.a]\nurl = 5\n", {}, r"profile a in .*: Expected `str \| null`, got `int` - at `\$.url`"),
        ("[profiles.a]\nurll = 'x'\n", {}, r"profile a in .*: there is no key urll: did you mean url\?"),
        ("[profiles.a]\nupdate_interval = 5\n", {}, "profile a in .* has no url: add one, or set HEKSHER_URL"),
        ("[profiles.a]\nurl = 'h'\ncontext_features = ['user']\n", {}, "profile a in .*: url: 'h' must start with"),
        (f"{MINIMAL_PROFILE}jitter = 2.0", {}, "jitter must be from 0 to 1"),
        (f"{MINIMAL_PROFILE}defaults = {{x = 'y'}}", {}, "no context feature x"),
        (f"{MINIMAL_PROFILE}ca_file = '/nowhere'", {}, "ca_file.*cannot be read"),
        (f"{MINIMAL_PROFILE}token = 'a b'", {}, "token of profile a"),
        ("[profiles.a]\n[profiles.b]\n", {}, "several profiles in .*: name one, or set .*; available profiles: a, b"),
        ("[profiles.a]\n", {"profile": "c"}, "there is no profile c in .*; available profiles: a"),
        ("default_profile = 'c'\n[profiles.a]\n", {}, "the default profile c is not in"),
        ("", {}, "no service URL is configured: set HEKSHER_URL"),
        (
            "[profiles.a.oauth]\nclient_id = 'x'\ngrant = 'password'\n",
            {},
            """profile a in .*: oauth.grant must be "login" or "client_credentials", not 'password'""",
        ),
        ("[profiles.a.oauth]\nwhat = 'y'\n", {}, "no key oauth.what: the keys are client_id, client_secret"),
        ("[profile.a]\n", {}, r"there is no key profile: did you mean .*profiles"),
        (MINIMAL_PROFILE, {"oauth": {"client_id": "x", "isuer": "y"}}, r"oauth: there is no key isuer: did you mean"),
        (
            f"{MINIMAL_PROFILE}[profiles.a.oauth]\nclient_id = 'x'\ngrant = 'client_credentials'\n",
            {},
            "client_credentials needs token_url and client_secret",
        ),
    ],
)  # fmt: skip
def test_an_error_in_a_profile_names_the_source_and_the_fix(
    config_file: Path, text: str, arguments: dict[str, Any], message: str
) -> None:
    """No client is started."""
    write_config(config_file, text)
    with pytest.raises(ConfigError, match=message):
        connect(**arguments)
    with pytest.raises(ValueError, match=message):
        connect_async(**arguments)


def test_a_missing_file_is_an_error_if_heksher_config_names_it(config_file: Path) -> None:
    """So is a path that cannot be read."""
    with pytest.raises(ConfigError, match=r"HEKSHER_CONFIG: the file .*heksher\.toml does not exist"):
        connect()
    config_file.mkdir()
    with pytest.raises(ConfigError, match=r"HEKSHER_CONFIG: the file .*heksher\.toml/config\.toml does not exist"):
        connect()
    (config_file / "config.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        connect()


def test_without_any_configuration_the_error_names_the_path_of_the_file() -> None:
    """The path is in the message whether or not the file exists."""
    with pytest.raises(ConfigError, match=r"set HEKSHER_URL, or add \[profiles.NAME\] with a url in .*config.toml"):
        connect()
    with pytest.raises(ConfigError, match=r"there is no profile x in .*; available profiles: none"):
        connect("x")


def test_without_the_extra_profiles_the_environment_and_arguments_work(
    service: LoopbackService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only errors about the file mention the extra."""
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigError, match="install the extra `profiles`, or set HEKSHER_CONFIG"):
        connect()
    with connect(url=service.url, context_features=["environment", "user", "theme"]) as client:
        assert not client.closed


def test_a_file_that_is_too_large_or_not_toml_is_an_error(config_file: Path) -> None:
    """Invalid UTF-8, huge integers and deep nesting included."""
    config_file.write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigError, match="is not a configuration file: it is larger than"):
        connect()
    for content, message in (
        (b"\xff", "is not valid TOML"),
        (b"format = " + b"9" * 5000, "is not valid TOML: Exceeds the limit"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"\xef\xbb\xbfformat = 2\n", "upgrade it"),  # Some editors write a byte order mark.
    ):
        config_file.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            connect()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("UPDATE_INTERVAL", "a number"), ("MAX_RESPONSE_BYTES", "a whole number"), ("FOLLOW_CHANGES", "true or false")],
)
def test_an_invalid_environment_variable_is_an_error_that_names_it(
    name: str, expected: str, service: LoopbackService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message contains the value and the expected type."""
    monkeypatch.setenv(f"HEKSHER_{name}", "soon")
    with pytest.raises(ConfigError, match=f"HEKSHER_{name} must be {expected}, not 'soon'"):
        connect(url=service.url)


def test_a_rate_limit_may_be_a_fraction_in_a_profile_and_a_variable(
    service: LoopbackService, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request in two intervals, or four."""
    interval = "rate_limit_interval = 0.02"
    write_config(config_file, MINIMAL_PROFILE.replace("http://h", service.url) + f"rate_limit = 0.5\n{interval}\n")
    with connect() as client:
        assert client._options.rate_limit == 0.5
    monkeypatch.setenv("HEKSHER_RATE_LIMIT", "0.25")
    with connect() as client:
        assert client._options.rate_limit == 0.25


# -- a home directory that cannot be read ------------------------------------------------------------------------------


REASONS = [
    "a file as the directory",
    "a directory as the file",
    "no permission",
    "no home directory",
    "an unknown user",
]


@pytest.fixture(params=REASONS)
def unreadable_home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration directory that belongs to another user, or does not exist. Return the reason in errors."""
    home = tmp_path / "another-home"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    if request.param == "a file as the directory":
        home.write_text("")
        return r"config\.toml cannot be read: Not a directory"
    if request.param == "a directory as the file":
        (home / "heksher-client" / "config.toml").mkdir(parents=True)
        (home / "heksher-client" / "config.tokens.json").mkdir()
        return r"config\.toml cannot be read: Is a directory"
    if request.param == "no home directory":
        monkeypatch.setattr("platformdirs.user_config_path", lambda *_, **__: Path("~/.config"))
        return "set HEKSHER_CONFIG"
    if request.param == "an unknown user":  # as in containers that run as any user
        monkeypatch.delenv("XDG_CONFIG_HOME")
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("os.getuid", lambda: 123_456_789)
        return "set HEKSHER_CONFIG"

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if home in path.parents:
            raise PermissionError(13, "Permission denied")
        return open_path(path, *args, **kwargs)

    open_path = Path.open
    monkeypatch.setattr(Path, "open", refuse)
    return r"config\.toml cannot be read: Permission denied"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other paths, and other errors")
def test_k2_the_environment_is_enough_without_a_readable_home(
    kind: Kind, service: LoopbackService, unreadable_home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is not needed. A file that a profile would come from, or a URL, is named by the error."""
    with pytest.raises(ConfigError, match=f"(?s)the environment.* has no url|{unreadable_home}"):
        Connected(kind)
    monkeypatch.setenv("HEKSHER_URL", service.url)
    with Connected(kind) as client:
        assert client.status().state is State.FRESH
        assert client.credential is None
    monkeypatch.setenv("HEKSHER_TOKEN", "t")
    with Connected(kind) as client:
        assert client.credential is not None
    with pytest.raises(ConfigError, match=unreadable_home):
        Connected(kind, "shop")
    monkeypatch.setenv("HEKSHER_PROFILE", "shop")
    with pytest.raises(ConfigError, match=unreadable_home):
        Connected(kind)
    monkeypatch.delenv("HEKSHER_PROFILE")
    monkeypatch.delenv("HEKSHER_URL")
    monkeypatch.delenv("HEKSHER_TOKEN")
    with pytest.raises(ConfigError, match=unreadable_home):
        Connected(kind)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other paths, and other errors")
def test_k2_commands_need_only_a_url_without_a_readable_home(service: LoopbackService, unreadable_home: str) -> None:
    """`profiles` lists the file, and `login` writes next to it."""
    assert "is healthy, and " in CliRunner().invoke(main, ["ping", "--url", service.url]).output
    for command in (["ping"], ["login", "--token"], ["logout"]):
        result = CliRunner().invoke(main, command, input="token\n")
        assert result.exit_code == 2
        assert re.search(unreadable_home, result.output), result.output


def test_k2_a_file_that_heksher_config_names_must_be_readable(config_file: Path, service: LoopbackService) -> None:
    """Even if it is not needed."""
    (config_file / "config.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        connect(url=service.url, context_features=["user"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other errors")
def test_k2_the_token_file_of_a_profile_must_be_readable(config_file: Path, service: LoopbackService) -> None:
    """A user may have signed in for it, and would not be."""
    write_config(config_file, MINIMAL_PROFILE)
    token_file(config_file).mkdir()
    with pytest.raises(ConfigError, match=r"heksher\.tokens\.json cannot be read: Is a directory"):
        connect()
