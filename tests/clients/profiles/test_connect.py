"""Clients from profiles: `connect` and `connect_async` with a configuration file, the environment and arguments."""

import asyncio
import ssl
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from heksher_client import (
    AsyncHeksherClient,
    ConfigError,
    HeksherError,
    Setting,
    ThreadHeksherClient,
    connect,
    connect_async,
)
from heksher_client._core.settings.registry import registry
from heksher_client.credentials import ClientCredentials, StaticToken
from heksher_client.profiles._connect import create_request_client
from heksher_client.testing import SyncStubHeksherClient
from tests.support.clients import Kind, ThreadKind
from tests.support.http import http_client
from tests.support.in_memory import LoopbackService
from tests.support.oauth import CLIENT, SECRET, OAuthServer, put_behind_gateway
from tests.support.profiles import TWO_PROFILES, Connected, write_config

TLS = Path(__file__).parents[2] / "data" / "tls"


def test_connect_creates_a_client_from_a_profile(kind: Kind, service: LoopbackService, config_file: Path) -> None:
    """Without a name, the default profile is used. Defaults, headers and options are those of the profile."""
    write_config(config_file, TWO_PROFILES.format(url=service.url))
    setting = Setting("s", int, ["environment", "user"], 1)
    with Connected(kind) as client:
        service.add_rule("s", 2, environment="dev")
        kind.call(client.reload())
        assert setting.get(user="jim") == 2
        assert client._session._options.update_interval == 5
        assert client._session._options.jitter == 0
        assert service.requests[-1].headers["x-team"] == "shop"
    with Connected(kind, "prod") as client:
        assert client._session._options.update_interval == 60
        assert service.requests[-1].headers["authorization"] == "Bearer prod-token"


def test_arguments_override_the_environment_and_the_environment_overrides_the_file(
    kind: Kind, service: LoopbackService, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each option is overridden on its own; dicts are merged."""
    write_config(config_file, TWO_PROFILES.format(url=service.url))
    monkeypatch.setenv("HEKSHER_UPDATE_INTERVAL", "7.5")
    monkeypatch.setenv("HEKSHER_JITTER", "0.25")
    monkeypatch.setenv("HEKSHER_FOLLOW_CHANGES", "false")
    monkeypatch.setenv("HEKSHER_CONTEXT_FEATURES", "environment, user,theme")
    monkeypatch.setenv("HEKSHER_USER_AGENT", "")
    with Connected(kind, jitter=0.5, headers={"X-Own": "1"}, defaults={"user": "jim"}) as client:
        options = client._session._options
        assert (options.update_interval, options.jitter, options.follow_changes) == (7.5, 0.5, False)
        sent = service.requests[-1].headers
        assert (sent["x-team"], sent["x-own"]) == ("shop", "1")
        assert sent["user-agent"].startswith("heksher-client/")
        assert client._session.defaults == {"environment": "dev", "theme": "dark", "user": "jim"}


def test_the_environment_alone_can_configure_a_client(
    kind: Kind, service: LoopbackService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No configuration file is needed, for example in a container."""
    monkeypatch.setenv("HEKSHER_URL", service.url)
    monkeypatch.setenv("HEKSHER_CONTEXT_FEATURES", "environment,user,theme")
    monkeypatch.setenv("HEKSHER_TOKEN", "from-environment")
    with Connected(kind, track_contexts={"user": ["jim"]}) as client:
        assert service.requests[-1].headers["authorization"] == "Bearer from-environment"
        assert client._session._refresher.tracking.options == {"user": {"jim"}}


def test_arguments_alone_can_configure_a_client(kind: Kind, service: LoopbackService) -> None:
    """They have the same names as the arguments of a client."""
    with Connected(kind, service_url=service.url, context_features=["environment", "user", "theme"]) as client:
        assert not client.closed


def test_the_profile_is_chosen_by_argument_environment_or_as_the_only_one(
    service: LoopbackService, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument takes precedence over `HEKSHER_PROFILE`."""
    write_config(config_file, TWO_PROFILES.format(url=service.url))
    monkeypatch.setenv("HEKSHER_PROFILE", "prod")
    with connect():
        assert "authorization" in service.requests[-1].headers
    with connect("dev"):
        assert "authorization" not in service.requests[-1].headers
    monkeypatch.delenv("HEKSHER_PROFILE")
    write_config(
        config_file, f'[profiles.only]\nurl = "{service.url}"\ncontext_features = ["environment", "user", "theme"]'
    )
    with connect() as client:
        assert not client.closed
    assert client.closed


@pytest.mark.anyio
async def test_connect_async_is_awaited_or_used_as_a_context_manager(
    service: LoopbackService, config_file: Path
) -> None:
    """Both start the client; the context manager closes it on exit."""
    write_config(config_file, TWO_PROFILES.format(url=service.url))
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


def test_connect_creates_clients_of_a_given_class(service: LoopbackService, config_file: Path) -> None:
    """A subclass can define hooks, for example."""

    class CustomClient(ThreadHeksherClient):
        pass

    class CustomAsyncClient(AsyncHeksherClient):
        pass

    write_config(config_file, TWO_PROFILES.format(url=service.url))
    with connect(client_class=CustomClient) as client:
        assert isinstance(client, CustomClient)
    assert isinstance(connect_async(client_class=CustomAsyncClient)._client, CustomAsyncClient)


@pytest.mark.parametrize("is_other_kind", [True, False])
def test_c21_class_of_the_other_kind_of_client(kind: Kind, is_other_kind: bool, config_file: Path) -> None:
    """It is refused before a configuration file is read, as is anything that is not a class of clients."""

    class CustomClient(AsyncHeksherClient if isinstance(kind, ThreadKind) else ThreadHeksherClient):  # type: ignore[misc]
        pass

    function: Any = connect if isinstance(kind, ThreadKind) else connect_async
    other: tuple[Any, ...] = (CustomClient, CustomClient.__mro__[1])
    others: tuple[Any, ...] = (dict, SyncStubHeksherClient, ThreadHeksherClient("http://s", 1, ["user"]), len, None)
    write_config(config_file, "not TOML")
    for client_class in other if is_other_kind else others:
        with pytest.raises(TypeError, match=r"^client_class must not be .*: connect needs a subclass"):
            function(client_class=client_class)
    assert registry.main is None


def test_options_of_the_client_class_have_the_lowest_priority(service: LoopbackService, config_file: Path) -> None:
    """Its URL, update interval and context features included."""

    class Shop(
        ThreadHeksherClient,
        service_url=service.url,
        update_interval=5,
        context_features=["environment", "user", "theme"],
        headers={"X-Team": "class", "X-Class": "1"},
    ):
        pass

    write_config(config_file, 'profiles = { a = { headers = { x-team = "profile", X-Key = "secret" } } }')
    with connect(client_class=Shop, headers={"x-key": "argument"}) as client:
        assert client._session._options.update_interval == 5
        sent = service.requests[-1].headers
        assert (sent["x-team"], sent["x-class"], sent["x-key"]) == ("profile", "1", "argument")


def test_a_profile_needs_no_context_features(kind: Kind, service: LoopbackService, config_file: Path) -> None:
    """Those of the service are used. An empty list still means that there are none."""
    write_config(config_file, f'[profiles.a]\nurl = "{service.url}"\ndefaults = {{ user = "jim" }}\n')
    with Connected(kind) as client:
        assert client._session.context_features == ("environment", "user", "theme")
    command = create_request_client(None)
    command.ping()
    command.close()
    with pytest.raises(ConfigError, match="this client has no context feature user"):
        Connected(kind, context_features=[])


def test_auth_in_http_client_args_overrides_the_token_of_a_profile(service: LoopbackService, config_file: Path) -> None:
    """It has the priority of an argument."""
    write_config(config_file, TWO_PROFILES.format(url=service.url))
    with connect("prod", http_client_args={"auth": StaticToken("mine")}):
        assert service.requests[-1].headers["authorization"] == "Bearer mine"


def test_the_token_of_a_class_is_used_if_no_other_source_has_a_credential(
    kind: Kind, service: LoopbackService, config_file: Path
) -> None:
    """A profile and arguments override it, which can be an object that does not show it. Two at once are an error."""
    base = ThreadHeksherClient if isinstance(kind, ThreadKind) else AsyncHeksherClient
    shop: Any = type("Shop", (base,), {}, service_url=service.url, token=SecretStr("of-the-class"))
    write_config(config_file, TWO_PROFILES.format(url=service.url))
    sent = []
    for profile, options in (("dev", {}), ("prod", {}), ("prod", {"token": SecretStr("mine")})):
        with Connected(kind, profile, client_class=shop, **options):
            sent.append(service.requests[-1].headers["authorization"])
    assert sent == ["Bearer of-the-class", "Bearer prod-token", "Bearer mine"]
    function: Any = connect if isinstance(kind, ThreadKind) else connect_async
    with pytest.raises(TypeError, match=r"^give auth or token, not both$"):
        function("dev", token="mine", auth=StaticToken("mine"))  # noqa: S106


def test_a_token_argument_takes_precedence_over_an_oauth_argument(service: LoopbackService) -> None:
    """The token is sent, and no sign-in is needed."""
    options: dict[str, Any] = {"url": service.url, "context_features": ["environment", "user", "theme"]}
    with connect(**options, token="mine", oauth={"client_id": "x"}):  # noqa: S106
        assert service.requests[-1].headers["authorization"] == "Bearer mine"


def test_a_tilde_in_the_path_of_a_profile_is_expanded(
    service: LoopbackService, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced by the home directory, as in a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_config(
        config_file, TWO_PROFILES.format(url=service.url).replace("jitter = 0", 'last_known_good = "~/settings.json"')
    )
    with connect() as client:
        client.reload()
    assert (tmp_path / "settings.json").exists()


def test_an_unknown_argument_is_a_type_error() -> None:
    """As for any Python function."""
    with pytest.raises(TypeError, match="'intervall'"):
        connect(intervall=5)  # type: ignore[call-overload]


def test_keys_that_only_profiles_have_are_arguments_too(config_file: Path, service: LoopbackService) -> None:
    """Invalid values are errors that do not contain passwords."""
    write_config(config_file, "")
    options: dict[str, Any] = {"url": service.url, "context_features": ["user"]}
    connecting = connect_async(**options, proxy="http://127.0.0.1:1", oauth={"client_id": "x"})
    assert connecting._client._endpoint._client_arguments["proxy"] == "http://127.0.0.1:1"
    with pytest.raises(ConfigError, match=r"oauth: .*client_id"):
        connect(**options, oauth={})
    invalid: dict[str, tuple[Any, str]] = {
        "oauth": (5, "oauth: "),
        "proxy": ("us:se#cret@p:1", "the proxy must be an http://"),
        "timeout": ("x", "timeout must be a number of seconds"),
    }
    for name, (value, message) in invalid.items():
        with pytest.raises(ConfigError, match=message) as raised:
            connect(**options, **{name: value})
        assert "cret" not in str(raised.value)
    with pytest.raises(ConfigError, match="the proxy is not a valid URL") as raised:
        connect(**options, proxy="http://us:se#cret@p:1")
    assert "se" not in str(raised.value).partition("overrides it:")[2].replace("proxy is not a valid URL", "")
    with pytest.raises(ConfigError, match="update_interval must be a positive"):
        connect(**options, update_interval=0)
    with pytest.raises(ConfigError, match=r"~nobody-of-that-name|home"):
        connect(**options, last_known_good="~nobody-of-that-name/x")
    asyncio.run(connecting._client.aclose())


def test_a_profile_with_client_credentials_fetches_and_refreshes_tokens(
    kind: Kind, service: LoopbackService, config_file: Path
) -> None:
    """The client secret is not in the `repr` of the credential."""
    with OAuthServer() as oauth:
        put_behind_gateway(service, oauth)
        write_config(
            config_file,
            f'[profiles.a]\nurl = "{service.url}"\ncontext_features = ["environment", "user", "theme"]\n'
            f'[profiles.a.oauth]\ngrant = "client_credentials"\nclient_id = "{CLIENT}"\n'
            f'client_secret = "{SECRET}"\ntoken_url = "{oauth.token_url}"\n',
        )
        with Connected(kind) as client:
            oauth.expire_all()
            kind.call(client.ping())
            assert isinstance(client._endpoint.auth, ClientCredentials)
            assert SECRET not in repr(client._endpoint.auth)


def test_the_client_secret_of_an_argument_may_be_a_secret_string(kind: Kind, service: LoopbackService) -> None:
    """As for the credentials that a program creates."""
    with OAuthServer() as oauth:
        put_behind_gateway(service, oauth)
        table = {"grant": "client_credentials", "client_id": CLIENT, "token_url": oauth.token_url}
        with Connected(kind, url=service.url, oauth={**table, "client_secret": SecretStr(SECRET)}) as client:
            kind.call(client.ping())
    cases: list[tuple[Any, str]] = [("shop", "Expected `object`, got `str`"), ({"client_id": b"x"}, "Expected `str`")]
    for invalid, words in cases:
        with pytest.raises(ConfigError, match=f"^oauth: {words}"):
            connect(url=service.url, oauth=invalid)


def test_the_arguments_auth_and_http_client_override_a_profile(service: LoopbackService, config_file: Path) -> None:
    """`ca_file` and `proxy` are not applied to an HTTP client of the program."""
    write_config(config_file, TWO_PROFILES.format(url=service.url))
    with http_client() as http, connect("prod", auth=StaticToken("mine"), http_client=http) as client:
        client.ping()
        assert service.requests[-1].headers["authorization"] == "Bearer mine"


def test_ca_file_and_proxy_become_arguments_of_the_http_client(config_file: Path, service: LoopbackService) -> None:
    """They are merged with `http_client_args`."""
    ca_file = TLS / "certificate.pem"
    write_config(
        config_file,
        f'[profiles.a]\nurl = "{service.url}"\ncontext_features = ["user"]\nca_file = "{ca_file}"\nproxy = "http://127.0.0.1:1"',
    )
    connecting = connect_async(http_client_args={"http2": False})
    arguments = connecting._client._endpoint._client_arguments
    assert arguments["proxy"] == "http://127.0.0.1:1"
    assert arguments["http2"] is False
    assert isinstance(arguments["verify"], ssl.SSLContext)
    asyncio.run(connecting._client.aclose())


def test_a_class_can_have_arguments_of_its_own(kind: Kind, service: LoopbackService, config_file: Path) -> None:
    """Those that neither a client nor a profile has are passed to its `__post_init__`."""
    base: Any = ThreadHeksherClient if isinstance(kind, ThreadKind) else AsyncHeksherClient

    class Shop(base):  # type: ignore[misc]
        def __post_init__(self, *, team: str) -> None:
            self.team = team

    write_config(config_file, TWO_PROFILES.format(url=service.url))
    with Connected(kind, client_class=Shop, team="shop", jitter=0.5) as client:
        assert (client.team, client.options.jitter) == ("shop", 0.5)


def test_verify_is_an_argument_of_connect(config_file: Path, service: LoopbackService) -> None:
    """For requests to the service it overrides the `ca_file` of a profile. Both as arguments are an error."""
    write_config(config_file, f'[profiles.a]\nurl = "{service.url}"\nca_file = "{TLS / "certificate.pem"}"')
    connecting = connect_async(verify=False)
    assert connecting._client._endpoint._client_arguments["verify"] is False
    asyncio.run(connecting._client.aclose())
    with pytest.raises(TypeError, match=r"^give verify or ca_file, not both$"):
        connect(verify=False, ca_file="ca.pem")
    with pytest.raises(TypeError, match=r"^give ca_file or verify in http_client_args, not both$"):
        connect(ca_file="ca.pem", http_client_args={"verify": False})
    other: dict[str, Any]
    for other in ({"ca_file": "ca.pem"}, {"verify": False}):
        with http_client() as http, pytest.raises(TypeError, match=r"^give http_client or (ca_file|verify), not both$"):
            connect(http_client=http, **other)


def test_connect_closes_a_client_that_does_not_start(service: LoopbackService, config_file: Path) -> None:
    """Ctrl-C, for example: the program has not received the client, so it cannot close it."""

    class Interrupted(ThreadHeksherClient):
        clients: ClassVar[list[ThreadHeksherClient]] = []

        def set_as_main(self, *, timeout: float | None = None) -> None:
            super().set_as_main(timeout=timeout)
            self.clients.append(self)
            raise KeyboardInterrupt

    write_config(config_file, TWO_PROFILES.format(url=service.url))
    with pytest.raises(KeyboardInterrupt):
        connect(client_class=Interrupted)
    assert Interrupted.clients[0].closed


def test_n12_a_variable_that_client_credentials_cannot_use_is_named(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message does not name the profile, which is not the cause."""
    monkeypatch.setenv("ALL_PROXY", "ftp://proxy")
    write_config(
        config_file,
        '[profiles.a]\nurl = "https://heksher.example"\ncontext_features = ["user"]\n'
        f'[profiles.a.oauth]\ngrant = "client_credentials"\nclient_id = "{CLIENT}"\n'
        f'client_secret = "{SECRET}"\ntoken_url = "https://tokens.example/token"\n',
    )
    with pytest.raises(ConfigError, match=r"^ALL_PROXY: ftp://proxy"):
        connect()
