"""Clients out of profiles: the configuration file, the environment, and arguments."""

import asyncio
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from heksher_client import AsyncHeksherClient, ConfigError, HeksherError, Setting, ThreadHeksherClient, connect_async
from heksher_client import connect as connect_in_thread
from heksher_client.credentials import ClientCredentials, StaticToken
from heksher_client.profiles._config import OAuth, Profile, config_path
from heksher_client.profiles._stored_credential import StoredCredential
from tests.support.clients import Kind
from tests.support.oauth import CLIENT, SECRET, OAuthServer, put_behind_gateway
from tests.support.service import WatchedService


@pytest.fixture(autouse=True)
def _an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("HEKSHER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the configuration file is."""
    path = tmp_path / "heksher.toml"
    monkeypatch.setenv("HEKSHER_CONFIG", str(path))
    return path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


TWO = """
default_profile = "dev"

[profiles.dev]
url = "{url}"
update_interval = 5
context_features = ["environment", "user", "theme"]
defaults = {{ environment = "dev", theme = "dark" }}
headers = {{ X-Team = "shop" }}
jitter = 0

[profiles.prod]
url = "{url}/"
context_features = ["environment", "user", "theme"]
token = "prod-token"
"""


class Connected:
    """A client that a profile gave, of either kind."""

    def __init__(self, kind: Kind, *args: Any, **kwargs: Any) -> None:
        self.kind = kind
        if kind.raises_at_start:
            connecting = connect_async(*args, **kwargs)

            async def begin() -> Any:
                return await connecting

            self.client: Any = kind.call(begin())
        else:
            self.client = connect_in_thread(*args, **kwargs)

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.kind.call(self.client.aclose() if self.kind.raises_at_start else self.client.close())


def test_a_profile_gives_a_client_that_runs(kind: Kind, service: WatchedService, config: Path) -> None:
    """The default one, or one by name; with its defaults, headers and options."""
    write(config, TWO.format(url=service.url))
    setting = Setting("s", int, ["environment", "user"], 1)
    with Connected(kind) as client:
        service.add_rule("s", 2, environment="dev")
        kind.call(client.reload())
        assert setting.get(user="jim") == 2
        assert client._session._options.update_interval == 5
        assert client._session._options.jitter == 0
        assert service.asked[-1].headers["x-team"] == "shop"
    with Connected(kind, "prod") as client:
        assert client._session._options.update_interval == 60
        assert service.asked[-1].headers["authorization"] == "Bearer prod-token"


def test_the_environment_wins_over_the_file_and_arguments_over_both(
    kind: Kind, service: WatchedService, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Option by option; dicts are merged."""
    write(config, TWO.format(url=service.url))
    monkeypatch.setenv("HEKSHER_UPDATE_INTERVAL", "7.5")
    monkeypatch.setenv("HEKSHER_JITTER", "0.25")
    monkeypatch.setenv("HEKSHER_FOLLOW_CHANGES", "false")
    monkeypatch.setenv("HEKSHER_CONTEXT_FEATURES", "environment, user,theme")
    monkeypatch.setenv("HEKSHER_USER_AGENT", "")
    with Connected(kind, jitter=0.5, headers={"X-Own": "1"}, defaults={"user": "jim"}) as client:
        options = client._session._options
        assert (options.update_interval, options.jitter, options.follow_changes) == (7.5, 0.5, False)
        asked = service.asked[-1].headers
        assert (asked["x-team"], asked["x-own"]) == ("shop", "1")
        assert asked["user-agent"].startswith("heksher-client/")
        assert client._session._defaults.values == {"environment": "dev", "theme": "dark", "user": "jim"}


def test_no_file_is_needed_where_the_environment_says_it_all(
    kind: Kind, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container."""
    monkeypatch.setenv("HEKSHER_URL", service.url)
    monkeypatch.setenv("HEKSHER_CONTEXT_FEATURES", "environment,user,theme")
    monkeypatch.setenv("HEKSHER_TOKEN", "from-environment")
    with Connected(kind, track_contexts={"user": ["jim"]}) as client:
        assert service.asked[-1].headers["authorization"] == "Bearer from-environment"
        assert client._session._refresher.tracking.options == {"user": {"jim"}}


def test_arguments_alone_are_enough(kind: Kind, service: WatchedService) -> None:
    """By the names that a client has for them."""
    with Connected(kind, service_url=service.url, context_features=["environment", "user", "theme"]) as client:
        assert not client.closed


def test_a_profile_is_chosen_by_the_environment_or_because_it_is_the_only_one(
    service: WatchedService, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument wins."""
    write(config, TWO.format(url=service.url))
    monkeypatch.setenv("HEKSHER_PROFILE", "prod")
    with connect_in_thread():
        assert "authorization" in service.asked[-1].headers
    with connect_in_thread("dev"):
        assert "authorization" not in service.asked[-1].headers
    monkeypatch.delenv("HEKSHER_PROFILE")
    write(config, f'[profiles.only]\nurl = "{service.url}"\ncontext_features = ["environment", "user", "theme"]')
    with connect_in_thread() as client:
        assert not client.closed
    assert client.closed


@pytest.mark.anyio
async def test_the_asyncio_client_is_awaited_or_a_context_manager(service: WatchedService, config: Path) -> None:
    """Either starts it; what it started with as a context manager, it ends with."""
    write(config, TWO.format(url=service.url))
    async with connect_async() as client:
        assert client.status().is_main
    assert client.closed
    client = await connect_async("prod")
    async with client:
        assert client.status().is_main
    assert client.closed
    with pytest.raises(HeksherError):
        async with connect_async(url="http://127.0.0.1:1"):
            raise AssertionError


def test_a_class_of_the_programs_own_can_be_made(service: WatchedService, config: Path) -> None:
    """With hooks, say."""

    class Mine(ThreadHeksherClient):
        pass

    class MineAsync(AsyncHeksherClient):
        pass

    write(config, TWO.format(url=service.url))
    with connect_in_thread(client_class=Mine) as client:
        assert isinstance(client, Mine)
    assert isinstance(connect_async(client_class=MineAsync)._client, MineAsync)


def test_the_file_is_in_the_platforms_folder(tmp_path: Path) -> None:
    """Unless it is said otherwise."""
    path = config_path()
    assert path is not None
    assert path.name == "config.toml"
    assert path.parent.name == "heksher-client"


GOOD = "[profiles.a]\nurl = 'http://h'\ncontext_features = ['user']\n"


def test_what_the_class_chooses_is_for_what_nobody_else_says(service: WatchedService, config: Path) -> None:
    """Its URL, its interval and its context features are as good as a profile's."""

    class Shop(
        ThreadHeksherClient,
        service_url=service.url,
        update_interval=5,
        context_features=["environment", "user", "theme"],
        headers={"X-Team": "class", "X-Class": "1"},
    ):
        pass

    write(config, 'profiles = { a = { headers = { x-team = "profile", X-Key = "secret" } } }')
    with connect_in_thread(client_class=Shop, headers={"x-key": "argument"}) as client:
        assert client._session._options.update_interval == 5
        headers = service.asked[-1].headers
        assert (headers["x-team"], headers["x-class"], headers["x-key"]) == ("profile", "1", "argument")


def test_a_credential_may_be_among_the_arguments_of_the_http_client(service: WatchedService, config: Path) -> None:
    """It wins as any argument does."""
    write(config, TWO.format(url=service.url))
    with connect_in_thread("prod", http_client_args={"auth": StaticToken("mine")}):
        assert service.asked[-1].headers["authorization"] == "Bearer mine"


def test_an_empty_variable_is_none(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those that a deployment leaves empty."""
    for name in ("CONFIG", "PROFILE", "TOKEN", "JITTER"):
        monkeypatch.setenv(f"HEKSHER_{name}", "")
    with connect_in_thread(url=service.url, context_features=["environment", "user", "theme"]) as client:
        assert client._route.auth is None
    monkeypatch.setenv("HEKSHER_CONFIG", "~nobody-of-that-name/x")
    with pytest.raises(ConfigError, match="unknown user"):
        connect_in_thread()


def test_files_of_a_profile_may_be_in_the_home(
    service: WatchedService, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(config, TWO.format(url=service.url).replace("jitter = 0", 'last_known_good = "~/kept"'))
    with connect_in_thread() as client:
        client.reload()
    assert (tmp_path / "kept").exists()


# -- what may be wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("[profiles.a\n", {}, r"is not valid TOML: .*line 1"),
        ("format = 2\nnew = 1\n", {}, r"has format 2, and this version of heksher_client reads format 1: upgrade it"),
        ("formats = 1\n", {}, "unknown field `formats`"),
        ("format = 'x'\n", {}, "format must be 1, not 'x'"),
        ("format = 0\n", {}, "format must be 1, not 0"),
        (f"{GOOD}proxy = 'nonsense://h'", {}, "profile a in"),
        (f"{GOOD}headers = {{a = 'b'}}\n", {"headers": "abc"}, "headers must be a dict"),
        (GOOD, {"headers": "abc"}, "headers must be a dict"),
        (GOOD, {"http_client_args": "abc"}, "http_client_args must be a dict"),
        (
            f"{GOOD}[profiles.a.oauth]\nclient_id = 'x'\nclient_secret = 's'\n"
            "grant = 'client_credentials'\ntoken_url = 'h'\n",
            {},
            "token_url must be an absolute http",
        ),
        ("[profiles.a]\nurl = 5\n", {}, r"profile a in .*: Expected `str \| null`, got `int` - at `\$.url`"),
        ("[profiles.a]\nurll = 'x'\n", {}, "unknown field `urll`"),
        ("[profiles.a]\nupdate_interval = 5\n", {}, "profile a in .* has no url: add one, or set HEKSHER_URL"),
        ("[profiles.a]\nurl = 'http://h'\n", {}, "has no context_features: add them, or set HEKSHER_CONTEXT_FEATURES"),
        ("[profiles.a]\nurl = 'h'\ncontext_features = ['user']\n", {}, "profile a in .*must be an absolute http"),
        (f"{GOOD}jitter = 2.0", {}, "jitter must be from 0 to 1"),
        (f"{GOOD}defaults = {{x = 'y'}}", {}, "no context feature x"),
        (f"{GOOD}ca_file = '/nowhere'", {}, "ca_file.*cannot be read"),
        (f"{GOOD}token = 'a b'", {}, "token of profile a"),
        ("[profiles.a]\n[profiles.b]\n", {}, "several profiles in .*: name one, or set .*; available profiles: a, b"),
        ("[profiles.a]\n", {"profile": "c"}, "there is no profile c in .*; available profiles: a"),
        ("default_profile = 'c'\n[profiles.a]\n", {}, "the default profile c is not in"),
        ("", {}, "no service URL is configured: set HEKSHER_URL"),
        ("[profiles.a.oauth]\nclient_id = 'x'\ngrant = 'password'\n", {}, "Invalid enum value 'password'"),
        (
            f"{GOOD}[profiles.a.oauth]\nclient_id = 'x'\ngrant = 'client_credentials'\n",
            {},
            "client_credentials needs token_url and client_secret",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_profile_is_said_with_where_it_is(
    config: Path, text: str, arguments: dict[str, Any], words: str
) -> None:
    """And what to do about it; nothing is started."""
    write(config, text)
    with pytest.raises(ConfigError, match=words):
        connect_in_thread(**arguments)
    with pytest.raises(ValueError, match=words):
        connect_async(**arguments)


def test_a_file_that_is_not_there_is_an_error_where_it_was_named(config: Path) -> None:
    """Or where nothing else says where the service is."""
    with pytest.raises(ConfigError, match=r"HEKSHER_CONFIG: the file .*heksher\.toml does not exist"):
        connect_in_thread()
    config.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        connect_in_thread()


def test_without_file_and_environment_it_is_said_where_they_would_be() -> None:
    """By the name of the file."""
    with pytest.raises(ConfigError, match=r"set HEKSHER_URL, or add \[profiles.NAME\] with a url in .*config.toml"):
        connect_in_thread()
    with pytest.raises(ConfigError, match=r"there is no profile x in .*; available profiles: none"):
        connect_in_thread("x")


def test_without_the_extra_the_environment_still_serves(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is named where it is needed."""
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigError, match="install the extra `profiles`, or set HEKSHER_CONFIG"):
        connect_in_thread()
    with connect_in_thread(url=service.url, context_features=["environment", "user", "theme"]) as client:
        assert not client.closed


def test_a_large_file_and_one_that_is_no_text_are_refused(config: Path) -> None:
    """They are something else."""
    config.write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigError, match="is not a configuration file: it is larger than"):
        connect_in_thread()
    for content, words in (
        (b"\xff", "is not valid TOML"),
        (b"format = " + b"9" * 5000, "is not valid TOML: Exceeds the limit"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"\xef\xbb\xbfformat = 2\n", "upgrade it"),  # some editors mark the beginning
    ):
        config.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            connect_in_thread()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("UPDATE_INTERVAL", "a number"), ("MAX_RESPONSE_BYTES", "a whole number"), ("FOLLOW_CHANGES", "true or false")],
)
def test_a_variable_that_is_no_such_value_is_refused_by_its_name(
    name: str, wanted: str, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not known which file would be wrong."""
    monkeypatch.setenv(f"HEKSHER_{name}", "soon")
    with pytest.raises(ConfigError, match=f"HEKSHER_{name} must be {wanted}, not 'soon'"):
        connect_in_thread(url=service.url)


def test_an_argument_that_does_not_exist_is_refused() -> None:
    """As by the clients."""
    with pytest.raises(TypeError, match="'intervall'"):
        connect_in_thread(intervall=5)  # type: ignore[call-overload]


# -- secrets -----------------------------------------------------------------------------------------------------------

SECRETS = [
    'token = "t"',
    'headers = { Authorization = "t" }',
    'params = { api_key = "t" }',
    'cookies = { c = "t" }',
    'proxy = "http://jim:t@host"',
    'oauth = { client_id = "x", client_secret = "t" }',
    'headers = { X-JWT = "t" }',
    'headers = { X-Upstream = "Bearer t" }',
    'params = { sig = "t" }',
]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such permissions")
@pytest.mark.parametrize("mode", [0o640, 0o604])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_file_with_a_secret_that_others_may_read_is_refused(config: Path, secret: str, mode: int) -> None:
    """With what to do; one without secrets may be anybody's."""
    write(config, f'[profiles.a]\nurl = "http://h"\n{secret}\n', mode)
    with pytest.raises(ConfigError, match=r"other users can read .*, and profile a has a secret .*\(chmod 600\)"):
        connect_in_thread()
    write(config, '[profiles.a]\nurl = "http://h"\nheaders = { X-Team = "t" }\n', mode)
    with pytest.raises(ConfigError, match="no context_features"):
        connect_in_thread()


@pytest.mark.parametrize("secret", [secret for secret in SECRETS if "jim:" not in secret])
def test_a_profiles_secrets_are_for_its_own_server_alone(
    config: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL from elsewhere needs a token of its own."""
    write(config, f'[profiles.a]\nurl = "https://h/path"\n{secret}\n')
    monkeypatch.setenv("HEKSHER_URL", "https://other")
    with pytest.raises(ConfigError, match="cannot be sent to https://other:443, as it belongs to https://h:443"):
        connect_in_thread()
    monkeypatch.setenv("HEKSHER_URL", "https://h/other-path")
    with pytest.raises(ConfigError, match="no context_features"):
        connect_in_thread()


def test_the_password_of_a_proxy_is_for_the_proxy_whatever_is_behind_it(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So another service may be asked through it."""
    write(config, '[profiles.a]\nurl = "https://h"\nproxy = "http://jim:t@host"\n')
    monkeypatch.setenv("HEKSHER_URL", "https://other")
    with pytest.raises(ConfigError, match="no context_features"):
        connect_in_thread()


def test_another_token_takes_the_place_of_one_and_of_nothing_else(
    service: WatchedService, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else a profile holds is not sent to another server either."""
    monkeypatch.setenv("HEKSHER_TOKEN", "another")
    monkeypatch.setenv("HEKSHER_URL", service.url)
    good = 'context_features = ["environment", "user", "theme"]\n'
    write(config, f'[profiles.a]\nurl = "https://h"\ntoken = "t"\nheaders = {{ X-Api-Key = "k" }}\n{good}')
    with pytest.raises(ConfigError, match=r"profile a in .*: headers cannot be sent to http://127\.0\.0\.1"):
        connect_in_thread()
    write(config, f'[profiles.a]\nurl = "https://h"\ntoken = "t"\n{good}')
    with connect_in_thread():
        assert service.asked[-1].headers["authorization"] == "Bearer another"
    with pytest.raises(ConfigError, match="the url is invalid"):
        connect_in_thread(url="http://[h")


def test_a_token_is_for_the_server_that_came_with_it(
    service: WatchedService, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or with something weaker; None is as good as nothing."""
    write(config, '[profiles.a]\nurl = "https://h"\ntoken = "t"\ncontext_features = ["user"]\n')
    monkeypatch.setenv("HEKSHER_URL", "https://other")
    with pytest.raises(ConfigError, match=r"profile a in .*: token cannot be sent to https://other"):
        connect_in_thread(url=None)
    monkeypatch.setenv("HEKSHER_TOKEN", "env")
    write(config, "")
    with pytest.raises(ConfigError, match="the environment: token cannot be sent to http://127"):
        connect_in_thread(url=service.url)


def test_an_oauth_server_among_the_arguments_takes_the_place_of_a_weaker_token(
    service: WatchedService, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one in the profile, and in the environment; nothing that the profile shows its own server goes elsewhere."""
    write(config, '[profiles.a]\nurl = "https://h"\ntoken = "t"\ncontext_features = ["user"]\n')
    monkeypatch.setenv("HEKSHER_TOKEN", "env")
    with connect_in_thread(url=service.url, oauth={"client_id": "x"}) as client:
        assert isinstance(client._route.auth, StoredCredential)
        assert not service.asked
    monkeypatch.delenv("HEKSHER_CONFIG")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigError, match="the location of the token store is unknown"):
        connect_in_thread(url=service.url, context_features=["user"], oauth={"client_id": "x"})


def test_the_credential_of_a_class_is_for_its_own_server(service: WatchedService, config: Path) -> None:
    """A profile of another one needs its own."""

    class Shop(ThreadHeksherClient, service_url="https://a.example", auth=StaticToken("of-the-class")):
        pass

    class Other(ThreadHeksherClient, service_url="https://a.example", http_client_args={"auth": ("jim", "x")}):
        pass

    class Keyed(ThreadHeksherClient, service_url="https://a.example", headers={"X-Key": "k"}, auth=StaticToken("t")):
        pass

    hidden = {"headers": httpx.Headers({"X-Key": "k"})}

    class Hidden(ThreadHeksherClient, service_url="https://a.example", http_client_args=hidden):
        pass

    http = httpx.Client(headers={"Authorization": "Bearer of-the-class"}, verify=False)  # noqa: S501 - there is no TLS

    class Shared(ThreadHeksherClient, service_url="https://a.example", http_client=http):
        pass

    write(config, TWO.format(url=service.url))
    holding: dict[str, type[ThreadHeksherClient]] = {"http_client_args": Hidden, "http_client": Shared}
    for what, holder in holding.items():
        with pytest.raises(ConfigError, match=f"the client class: {what} cannot be sent to .*: remove it"):
            connect_in_thread("dev", client_class=holder)
    http.close()
    for class_ in (Shop, Other):
        with pytest.raises(ConfigError, match=r"the client class: auth cannot be sent to .*: set a token"):
            connect_in_thread("dev", client_class=class_)
    with pytest.raises(ConfigError, match=r"the client class: headers cannot be sent to .*: remove it"):
        connect_in_thread("dev", client_class=Keyed, token="another")  # noqa: S106
    with connect_in_thread("dev", client_class=Shop, token="another"):  # noqa: S106
        assert service.asked[-1].headers["authorization"] == "Bearer another"


def test_what_only_profiles_have_can_be_an_argument(config: Path, service: WatchedService) -> None:
    """As the server of tokens, and the way to it."""
    write(config, "")
    options: dict[str, Any] = {"url": service.url, "context_features": ["user"]}
    connecting = connect_async(**options, proxy="http://127.0.0.1:1", oauth={"client_id": "x"})
    assert connecting._client._route._arguments["proxy"] == "http://127.0.0.1:1"
    with pytest.raises(ConfigError, match=r"oauth: .*client_id"):
        connect_in_thread(**options, oauth={})
    impossible: dict[str, tuple[Any, str]] = {
        "oauth": (5, "oauth: "),
        "proxy": ("us:se#cret@p:1", "the proxy must be an http://"),
        "timeout": ("x", "timeout must be a number of seconds"),
    }
    for name, (value, words) in impossible.items():
        with pytest.raises(ConfigError, match=words) as refused:
            connect_in_thread(**options, **{name: value})
        assert "cret" not in str(refused.value)
    with pytest.raises(ConfigError, match="the proxy is not a valid URL") as refused:
        connect_in_thread(**options, proxy="http://us:se#cret@p:1")
    assert "se" not in str(refused.value).partition("overrides it:")[2].replace("proxy is not a valid URL", "")
    with pytest.raises(ConfigError, match="update_interval must be a positive"):
        connect_in_thread(**options, update_interval=0)
    with pytest.raises(ConfigError, match=r"~nobody-of-that-name|home"):
        connect_in_thread(**options, last_known_good="~nobody-of-that-name/x")
    asyncio.run(connecting._client.aclose())


def test_the_secret_of_any_profile_makes_the_file_its_owners(config: Path) -> None:
    """Others may read all of it."""
    write(config, f'{GOOD}[profiles.b]\ntoken = "t"\n', 0o644)
    with pytest.raises(ConfigError, match=r"profile b has a secret \(token\)"):
        connect_in_thread("a")


def test_no_secret_is_in_an_error_or_a_repr(config: Path) -> None:
    """Nor in what an error was caused by."""
    secret = "the-secret-itself"  # noqa: S105
    write(config, f'[profiles.a]\nurl = 5\ntoken = "{secret}"\n[profiles.b]\nurl = "http://jim:{secret}@"\n')
    for name in ("a", "b"):
        with pytest.raises(ConfigError) as raised:
            connect_in_thread(name, context_features=["user"])
        error: BaseException | None = raised.value
        while error is not None:
            assert secret not in repr(error)
            error = error.__cause__ or error.__context__
    assert secret not in repr(Profile(url="u", token=secret, oauth=OAuth(client_id="x", client_secret=secret)))
    assert secret not in repr(OAuth(client_id="x", client_secret=secret))


def test_a_profile_with_client_credentials_opens_the_gateway(kind: Kind, service: WatchedService, config: Path) -> None:
    """And renews its tokens."""
    with OAuthServer() as oauth:
        put_behind_gateway(service, oauth)
        write(
            config,
            f'[profiles.a]\nurl = "{service.url}"\ncontext_features = ["environment", "user", "theme"]\n'
            f'[profiles.a.oauth]\ngrant = "client_credentials"\nclient_id = "{CLIENT}"\n'
            f'client_secret = "{SECRET}"\ntoken_url = "{oauth.token_url}"\n',
        )
        with Connected(kind) as client:
            oauth.expire_all()
            kind.call(client.ping())
            assert isinstance(client._route.auth, ClientCredentials)
            assert SECRET not in repr(client._route.auth)


def test_the_secret_of_a_client_may_be_a_variable(
    service: WatchedService, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the file need not be anybody's alone; it is for the profile's server, as whatever stands there."""
    with OAuthServer() as oauth:
        put_behind_gateway(service, oauth)
        table = f'client_id = "{CLIENT}"\ngrant = "client_credentials"\ntoken_url = "{oauth.token_url}"\n'
        features = 'context_features = ["environment", "user", "theme"]'
        write(config, f'[profiles.a]\nurl = "{service.url}"\n{features}\n[profiles.a.oauth]\n{table}', 0o644)
        monkeypatch.setenv("HEKSHER_CLIENT_SECRET", SECRET)
        with connect_in_thread() as client:
            client.ping()
            assert client.credential is not None
            client.credential.force_refresh()
        monkeypatch.setenv("HEKSHER_URL", "https://other")
        with pytest.raises(ConfigError, match="cannot be sent to https://other"):
            connect_in_thread()


def test_an_argument_replaces_the_credential_of_a_profile(service: WatchedService, config: Path) -> None:
    """And the HTTP client, whose certificates and proxy are then its own."""
    write(config, TWO.format(url=service.url))
    with httpx.Client() as http, connect_in_thread("prod", auth=StaticToken("mine"), http_client=http) as client:
        client.ping()
        assert service.asked[-1].headers["authorization"] == "Bearer mine"


TLS = Path(__file__).parents[1] / "data" / "tls"


def test_certificates_and_proxy_are_for_the_http_client(config: Path, service: WatchedService) -> None:
    """Beside arguments of the program's own."""
    ca = TLS / "certificate.pem"
    write(
        config,
        f'[profiles.a]\nurl = "{service.url}"\ncontext_features = ["user"]\nca_file = "{ca}"\nproxy = "http://127.0.0.1:1"',
    )
    connecting = connect_async(http_client_args={"http2": False})
    arguments = connecting._client._route._arguments
    assert arguments["proxy"] == "http://127.0.0.1:1"
    assert arguments["http2"] is False
    assert isinstance(arguments["verify"], ssl.SSLContext)
    asyncio.run(connecting._client.aclose())
