"""Profiles that a sign-in adds to the configuration file."""

import asyncio
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from heksher_client import (
    ConfigError,
    connect,
    login,
    login_async,
    login_headless,
    login_headless_async,
    login_with_token,
    logout,
)
from heksher_client.profiles._config_writer import added_profile
from tests.support.clients import FEATURES, Kind
from tests.support.in_memory import LoopbackService
from tests.support.oauth import CLIENT, OAuthServer
from tests.support.profiles import Connected, browse, write_config

URL = "http://service.example"
OTHER = """# ours
default_profile = "dev"

[profiles.dev]  # not to be changed
url = 'http://dev'
[profiles.none]
timeout = 5
[profiles.bad]
url = "http://a:b"
[profiles.shop]
url = "http://shop"
oauth = { client_id = "shop" }
[profiles.open]
url = "http://open/settings"
headers = { x-team = "shop" }
"""


def ensure_profile(*arguments: Any) -> str:
    """Add a profile without further checks, and return its name."""
    with added_profile(*arguments) as added:
        return added.name


def test_a_sign_in_with_a_url_creates_the_profile(
    kind: Kind, service: LoopbackService, oauth: OAuthServer, config_file: Path
) -> None:
    """Clients use it by its name. A second sign-in finds it."""
    table = {"issuer": f"{oauth.url}/", "client_id": CLIENT, "scope": None}
    for _ in range(2):
        login(browse, profile="shop", url=service.url, oauth=table)
        with Connected(kind, "shop", context_features=FEATURES) as client:
            kind.call(client.ping())
        assert config_file.read_text() == (
            f'format = 1\n\n[profiles."shop"]\nurl = "{service.url}"\n'
            f'\n[profiles."shop".oauth]\nissuer = "{oauth.url}/"\nclient_id = "shop"\n'
        )
    if sys.platform != "win32":
        assert stat.S_IMODE(config_file.stat().st_mode) == 0o600


@pytest.mark.usefixtures("clock")
def test_each_function_can_create_the_profile(
    service: LoopbackService, oauth: OAuthServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is the host of the service, unless it is given."""
    monkeypatch.setattr("heksher_client.profiles._login_flows._SHORTEST_POLLING_SECONDS", 0.01)
    table = {"issuer": f"{oauth.url}/", "client_id": CLIENT}
    functions: list[Callable[..., Any]] = [
        partial(login, browse),
        partial(login_headless, lambda code: None),
        partial(login_with_token, oauth.issue()),
        partial(login_with_token, oauth.issue(), refresh_token=oauth.issue_refresh_token()),
        lambda **arguments: asyncio.run(login_async(browse, **arguments)),
        lambda **arguments: asyncio.run(login_headless_async(lambda code: None, **arguments)),
    ]
    for number, function in enumerate(functions):
        path = tmp_path / f"new-{number}"
        assert function(path=f"{path}/", url=service.url, oauth=table) == str(path / "config.tokens.json")
        assert logout(profile="127.0.0.1", path=path)


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_the_rest_of_the_file_is_not_changed(config_file: Path, end: str) -> None:
    """Comments, the default profile and the mode stay as they are."""
    former = OTHER.rstrip() + end
    write_config(config_file, former, mode=0o644)
    assert ensure_profile(None, None, "http://[::1]:8300", None) == "::1"
    assert ensure_profile(None, 'a "b".c\u00e9', "http://host", {"client_id": "x\\y"}) == 'a "b".c\u00e9'
    added = config_file.read_text().removeprefix(former)
    assert added.lstrip("\n") == (
        '[profiles."::1"]\nurl = "http://[::1]:8300"\n'
        '\n[profiles."a \\"b\\".c\u00e9"]\nurl = "http://host"\n'
        '\n[profiles."a \\"b\\".c\u00e9".oauth]\nclient_id = "x\\\\y"\n'
    )
    if sys.platform != "win32":
        assert stat.S_IMODE(config_file.stat().st_mode) == 0o644
    assert ensure_profile(None, "dev", "http://dev", None) == "dev"
    assert config_file.read_text() == former + added


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("dev", "http://other", None),
            "profile dev in .* has another url: pass another name as profile, or change it",
        ),
        (("dev", "http://dev:81/", None), "profile dev in .* has another url"),
        (("none", "http://dev", {"client_id": "x"}), "profile none in .* has another url"),
        (("bad", "http://dev", None), "profile bad in .* has another url"),
        (
            ("shop", "http://shop", {"client_id": "x"}),
            "profile shop in .* has another oauth: pass another name as profile",
        ),
        (("new", "host", None), "url: 'host' must start with http"),
        (("new", "http://host", {"issuer": "x"}), "oauth: Object missing required field `client_id`"),
        (
            ("new", "http://host", {"client_id": "x", "isuer": "y"}),
            r"oauth: there is no key isuer: did you mean issuer\?",
        ),
        (
            ("new", "http://host", {"client_id": "x", "client_auth": "client_secret_post"}),
            """oauth: client_auth must be "basic" or "post", not 'client_secret_post'""",
        ),
        (("new", "http://host", "shop"), "oauth must be a dict, not str"),
        (("new", "http://host", {"client_id": 5}), "oauth: Expected `str`, got `int`"),
        (("new\ud800", "http://host", None), "has a form in which no profile can be added to it"),
    ],
)
def test_a_profile_that_cannot_be_added_is_an_error(config_file: Path, arguments: Any, message: str) -> None:
    """The file is not changed."""
    write_config(config_file, OTHER)
    with pytest.raises(ConfigError, match=message):
        ensure_profile(None, *arguments)
    assert config_file.read_text() == OTHER


def test_the_authorization_server_is_added_to_a_profile_without_one(config_file: Path) -> None:
    """The same URL may be written in another way."""
    write_config(config_file, OTHER)
    login_with_token("t", url="http://7.example")
    former = config_file.read_text()
    with pytest.raises(ConfigError, match=r"profile 7\.example in .* has no authorization server: pass oauth="):
        login(browse, url="http://7.example")
    for url in ("http://7.EXAMPLE:80/", "http://7.example"):
        assert ensure_profile(None, None, url, {"client_id": "x"}) == "7.example"
        added = '\n[profiles."7.example".oauth]\nclient_id = "x"\n'
        assert config_file.read_text() == former + added
    assert ensure_profile(None, "open", "http://open/settings/", {"client_id": "y"}) == "open"
    assert config_file.read_text() == former + added + '\n[profiles."open".oauth]\nclient_id = "y"\n'
    write_config(config_file, "[profiles.dev]\n")
    with pytest.raises(ConfigError, match=r"no profile can be added to it: add dev with an editor"):
        ensure_profile(None, "dev", "http://dev", {"client_id": "x"})
    write_config(config_file, "profiles = { dev = { url = 'http://dev' } }\n")
    with pytest.raises(ConfigError, match=r"no profile can be added to it: add dev\.oauth with an editor"):
        ensure_profile(None, "dev", "http://dev", {"client_id": "x"})


ONLY = '# ours\n[profiles.dev]\nurl = "http://dev"\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_only_profile_remains_the_one_that_is_used_by_default(
    config_file: Path, service: LoopbackService, encoding: str
) -> None:
    """Programs that do not name a profile continue to use it after a program has added another one."""
    former = f'# our caf\u00e9\n[profiles.dev]\nurl = "{service.url}"\n'
    config_file.write_text(former, encoding=encoding)
    ensure_profile(None, "prod", "http://prod", None)
    added = '\n[profiles."prod"]\nurl = "http://prod"\n'
    assert config_file.read_bytes() == f'default_profile = "dev"\n{former}{added}'.encode(encoding)
    with connect(context_features=FEATURES) as client:
        client.ping()
    ensure_profile(None, "test", "http://test", None)
    assert config_file.read_bytes().startswith(f'default_profile = "dev"\n{former}{added}'.encode(encoding))


def test_added_lines_end_like_those_of_the_file(config_file: Path) -> None:
    """Editors on Windows write other line ends."""
    config_file.write_bytes(ONLY.replace("\n", "\r\n").encode())
    ensure_profile(None, "prod", "http://prod", {"client_id": "x"})
    content = config_file.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") > ONLY.count("\n")


@pytest.mark.parametrize("default", ['default_profile = "dev"\n', ""])
def test_without_a_name_the_profile_of_the_url_is_used(
    service: LoopbackService, oauth: OAuthServer, config_file: Path, default: str
) -> None:
    """A client that is created without a name has the tokens of the sign-in."""
    config_file.write_text(f'{default}[profiles.dev]\nurl = "{service.url}"\n')
    login(browse, url=service.url, oauth={"issuer": f"{oauth.url}/", "client_id": CLIENT})
    with connect(context_features=FEATURES) as client:
        client.ping()
    assert logout(profile="dev")


@pytest.mark.parametrize(
    ("default", "variable", "expected"),
    [('default_profile = "b"\n', None, "b"), ('default_profile = "b"\n', "a", "a"), ("", "b", "b")],
)
def test_of_several_profiles_of_the_url_the_default_one_is_used(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, default: str, variable: str | None, expected: str
) -> None:
    """The variable takes precedence over the file, as in `connect`. A default profile of another URL is not used."""
    profiles = "".join(
        f'[profiles.{name}]\nurl = "{url}"\n' for name, url in (("a", URL), ("b", URL), ("c", f"{URL}/c"))
    )
    if variable is not None:
        monkeypatch.setenv("HEKSHER_PROFILE", variable)
    config_file.write_text(default + profiles)
    assert ensure_profile(None, None, URL, None) == expected
    monkeypatch.delenv("HEKSHER_PROFILE", raising=False)
    for other in ("", 'default_profile = "c"\n'):
        config_file.write_text(other + profiles)
        with pytest.raises(
            ConfigError, match=r"several profiles in .* have this url: pass one of their names .*: a, b$"
        ):
            ensure_profile(None, None, URL, None)
        assert config_file.read_text() == other + profiles


SIGN_INS: list[Callable[..., str]] = [
    partial(login, browse),
    partial(login_headless, print),
    partial(login_with_token, "t"),
    partial(login_with_token, "t", refresh_token="r"),  # noqa: S106 - a token of this test
]


@pytest.mark.parametrize(
    ("function", "oauth", "message"),
    [
        (SIGN_INS[0], None, "profile new in .* has no authorization server: pass oauth="),
        (SIGN_INS[1], None, "profile new in .* has no authorization server: pass oauth="),
        (SIGN_INS[0], {"grant": "client_credentials", "token_url": URL}, "has its own client secret"),
        (SIGN_INS[0], {"issuer": "login.example"}, "issuer must be an absolute http"),
        (SIGN_INS[0], {"scope": "settings"}, "oauth has no token_url, and no issuer"),
        (SIGN_INS[0], {"token_url": URL}, "oauth has no authorization_url, and no issuer"),
        (SIGN_INS[1], {"token_url": URL}, "oauth has no device_authorization_url, and no issuer"),
        (SIGN_INS[2], {"token_url": "login.example"}, "token_url must be an absolute http"),
        (SIGN_INS[3], None, "pass oauth=.*, or leave out the refresh token"),
        (SIGN_INS[3], {}, "oauth has no token_url, and no issuer"),
    ],
)
def test_a_sign_in_with_invalid_arguments_does_not_add_a_profile(
    config_file: Path, function: Callable[..., Any], oauth: dict[str, str] | None, message: str
) -> None:
    """Nor a table to an existing one: it could only be removed with an editor."""
    table = None if oauth is None else {"client_id": "x", **oauth}
    for former in (None, f"[profiles.new]\nurl = '{URL}'\n"):
        if former is not None:
            config_file.write_text(former)
        with pytest.raises(ConfigError, match=message):
            function(profile="new", url=URL, oauth=table)
        assert config_file.exists() == (former is not None)
        assert former is None or config_file.read_text() == former


def test_a_sign_in_for_a_profile_with_a_token_does_not_change_it(config_file: Path) -> None:
    """The token would be used instead."""
    write_config(config_file, f"[profiles.new]\nurl = '{URL}'\ntoken = 't'\n")
    former = config_file.read_text()
    with pytest.raises(ConfigError, match=r"profile new in .* has a token, .* remove it first"):
        login(browse, url=URL, oauth={"client_id": "x", "issuer": URL})
    assert config_file.read_text() == former


def test_the_path_of_a_new_file_may_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that does not exist is that of a folder, unless it ends with `.toml`."""
    for name, file in ((".shop", ".shop/config.toml"), ("shop-1.2", "shop-1.2/config.toml"), ("x.toml", "x.toml")):
        login_with_token("t", path=tmp_path / name, url=URL)
        assert (tmp_path / file).is_file()
        monkeypatch.setenv("HEKSHER_CONFIG", str(tmp_path / "variable" / name))
        login_with_token("t", url=URL)
        assert (tmp_path / "variable" / file).is_file()
    (tmp_path / "conf").write_text("")
    login_with_token("t", path=tmp_path / "conf", url=URL)
    assert (tmp_path / "conf").read_text()


@pytest.mark.parametrize("content", [OTHER.encode("utf-16"), b"profiles = { dev = { url = 'http://dev' } }\n"])
def test_a_file_of_another_form_is_not_changed(config_file: Path, content: bytes) -> None:
    """Its user has to add the profile. If it is not valid at all, the error says so."""
    config_file.write_bytes(content)
    with pytest.raises(ConfigError, match="has a form in which no profile can be added to it: add new with an editor"):
        ensure_profile(None, "new", "http://host", None)
    assert config_file.read_bytes() == content
    config_file.write_bytes(b"[")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        ensure_profile(None, "new", "http://host", None)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_a_secret_is_not_written_into_a_file_that_other_users_can_read(config_file: Path) -> None:
    """It is accepted in a private file."""
    write_config(config_file, OTHER, mode=0o644)
    arguments = ("new", "http://host", {"client_id": "x", "client_secret": "s"})
    with pytest.raises(ConfigError, match=r"other users can read .*, and profile new has a secret"):
        ensure_profile(None, *arguments)
    assert config_file.read_text() == OTHER
    config_file.chmod(0o600)
    assert ensure_profile(None, *arguments) == "new"


def test_a_profile_that_is_written_in_part_is_removed(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make the file invalid."""
    write_config(config_file, OTHER)

    class FullDisk:
        def __init__(self, descriptor: int, mode: str) -> None:
            self.descriptor = descriptor

        def __enter__(self) -> "FullDisk":
            return self

        def __exit__(self, *_: object) -> None:
            os.close(self.descriptor)

        def write(self, content: bytes) -> None:
            os.write(self.descriptor, content[:5])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", FullDisk)
        with pytest.raises(ConfigError, match=r"heksher\.toml cannot be written: No space left on device"):
            ensure_profile(None, "new", "http://host", None)
    assert config_file.read_text() == OTHER


def test_the_location_of_a_new_profile_must_be_known(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And an authorization server is for a new profile only."""
    with pytest.raises(ConfigError, match="oauth is for a new profile, so it needs url"):
        login(oauth={"client_id": "x"})
    monkeypatch.delenv("HEKSHER_CONFIG")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigError, match="location of the configuration file is unknown: install the extra `login`"):
        login_with_token("t", url="http://host")
