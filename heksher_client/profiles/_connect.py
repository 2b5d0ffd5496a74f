"""Clients out of profiles, and what they show a service that they may ask."""

import re
import ssl
from collections.abc import Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, Unpack, overload

import httpx

from heksher_client._drivers.async_client import AsyncHeksherClient
from heksher_client._drivers.options import ClassOptions, check_names, merged
from heksher_client._drivers.thread_client import ThreadHeksherClient
from heksher_client.credentials import ClientCredentials, Credential, StaticToken
from heksher_client.exceptions import ConfigError
from heksher_client.profiles import _config
from heksher_client.profiles._config import Config, Profile
from heksher_client.profiles._stored_credential import SignedIn, store_of
from heksher_client.profiles._token_store import TokenStore

ThreadT = TypeVar("ThreadT", bound=ThreadHeksherClient)
AsyncT = TypeVar("AsyncT", bound=AsyncHeksherClient)


class ProfileOptions(ClassOptions, total=False):
    """What takes the place of what a profile says: a client's arguments, and what a profile has besides."""

    url: str | None
    """The same as `service_url`."""
    token: str | None
    """An access token that does not change."""
    oauth: Mapping[str, Any] | None
    """The keys of a profile's table `oauth`."""
    ca_file: str | None
    """The certificates that the service's is checked by: a file, in PEM."""
    proxy: str | None
    """For the service, and for the server of tokens."""
    defaults: Mapping[str, Any] | None
    """What `set_defaults` gets."""
    track_contexts: Mapping[str, Any] | None
    """What `track_contexts` gets."""


@overload
def connect(profile: str | None = None, **overrides: Unpack[ProfileOptions]) -> ThreadHeksherClient: ...
@overload
def connect(
    profile: str | None = None, *, client_class: type[ThreadT], **overrides: Unpack[ProfileOptions]
) -> ThreadT: ...
def connect(profile: str | None = None, *, client_class: Any = ThreadHeksherClient, **overrides: Any) -> Any:
    """Make a thread client out of a profile, and set it as main. It can be used as a context manager, or closed.

    In rising priority: the profile in the configuration file, environment variables (`HEKSHER_URL`,
    `HEKSHER_UPDATE_INTERVAL`, `HEKSHER_CONTEXT_FEATURES` with commas, `HEKSHER_TOKEN`, and one for each other option
    that is no table), and arguments.

    Args:
        profile: Its name; None for `HEKSHER_PROFILE`, or the file's default, or its only one.
        client_class: What to make.
        **overrides: A client's arguments; `url`, `token`, `defaults` and `track_contexts`.

    Raises:
        ConfigError: Something is missing or wrong. The message says where, and what to do.
    """
    client = _make(client_class, profile, overrides)
    client.set_as_main()
    return client


class Connecting(Generic[AsyncT]):
    """A client that is about to start: await it, or use it with `async with`."""

    def __init__(self, client: AsyncT) -> None:
        self._client = client

    def __await__(self) -> Generator[Any, None, AsyncT]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AsyncT:
        await self._client.set_as_main()
        return self._client

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()


@overload
def connect_async(
    profile: str | None = None, **overrides: Unpack[ProfileOptions]
) -> Connecting[AsyncHeksherClient]: ...
@overload
def connect_async(
    profile: str | None = None, *, client_class: type[AsyncT], **overrides: Unpack[ProfileOptions]
) -> Connecting[AsyncT]: ...
def connect_async(profile: str | None = None, *, client_class: Any = AsyncHeksherClient, **overrides: Any) -> Any:
    """Make an asyncio client out of a profile, to be awaited, or to be used with `async with`, which starts it.

    Priorities, arguments and errors are those of `connect`; what the start raises is raised when it is awaited.
    """
    return Connecting(_make(client_class, profile, overrides))


def make_client(profile: str | None, **overrides: Unpack[ProfileOptions]) -> ThreadHeksherClient:
    """A client for requests alone; of the service that a profile names, if that is named here."""
    client: ThreadHeksherClient = _make(ThreadHeksherClient, profile, dict(overrides), is_to_start=False)
    return client


def _make(client_class: Any, name: str | None, overrides: dict[str, Any], *, is_to_start: bool = True) -> Any:
    check_names(overrides, ProfileOptions, "connect")
    if overrides.get("service_url") is not None:
        overrides.setdefault("url", overrides["service_url"])
    class_options = client_class._class_options
    config = _config.load(name, overrides, class_options, is_itself=not is_to_start)
    profile = config.profile
    given = {field: value for field in _AS_OPTIONS if (value := getattr(profile, field)) is not None}
    given |= {key: value for key, value in overrides.items() if key in _ONLY_ARGUMENTS and value is not None}
    features = profile.context_features
    if features is None:
        features = class_options.get("context_features")
    if features is None and is_to_start:
        raise ConfigError(f"{config.source} has no context_features: add them, or set HEKSHER_CONTEXT_FEATURES")
    try:
        if "http_client" not in merged(class_options, given) and (ours := http_arguments(config)):
            given["http_client_args"] = {**ours, **given.get("http_client_args", {})}
        has_auth = "auth" in given or "auth" in given.get("http_client_args", {})
        if not has_auth and (credential := credential_of(config)) is not None:
            given["auth"] = credential
        if isinstance(profile.last_known_good, str):
            given["last_known_good"] = Path(profile.last_known_good).expanduser()
        interval = profile.update_interval
        if interval is None:
            interval = class_options.get("update_interval", _INTERVAL)
        client = client_class(profile.url, interval, features or (), **given)
        client.set_defaults(**(profile.defaults or {}))
        client.track_contexts(**(profile.track_contexts or {}))
    except ConfigError:
        raise
    except httpx.InvalidURL:  # No words: they may hold its password.
        raise ConfigError(f"{config.source}, or what takes its place: the proxy is no URL") from None
    except (TypeError, ValueError, ImportError, RuntimeError) as error:  # of a proxy's protocol, of an unknown user
        raise ConfigError(f"{config.source}, or what takes its place: {error}") from error
    return client


_INTERVAL: Final = 60.0
"""Seconds between refreshes where nobody says anything."""
_ELSEWHERE: Final = ("url", "update_interval", "context_features", "defaults", "track_contexts", "token", "oauth")
_HTTP: Final = ("ca_file", "proxy")
_AS_OPTIONS: Final = tuple(f for f in Profile.__struct_fields__ if f not in (*_ELSEWHERE, *_HTTP))
"""What a profile and a client call the same."""
_ONLY_ARGUMENTS: Final = ("auth", "http_client", "http_client_args", "error_classes")
"""What TOML has no words for."""


def http_arguments(config: Config) -> dict[str, Any]:
    """What HTTP clients are made with, for the service and for its server of tokens.

    Raises:
        ConfigError: The certificates cannot be read, or the proxy is none.
    """
    profile = config.profile
    arguments: dict[str, Any] = {}
    if profile.proxy is not None:
        if not re.match("(https?|socks5h?)://.", str(profile.proxy)):  # No words: they may hold its password.
            raise ConfigError(
                f"{config.source}, or what takes its place: the proxy must be an http://, https:// or socks5:// URL"
            )
        arguments["proxy"] = profile.proxy
    if profile.ca_file is not None:
        try:
            arguments["verify"] = ssl.create_default_context(cafile=Path(profile.ca_file).expanduser())
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"the certificates in {profile.ca_file} (ca_file) cannot be read: {error}") from None
    return arguments


def credential_of(config: Config) -> Credential | None:
    """What a profile has to show that a program may ask.

    Raises:
        ConfigError: Something is missing for it.
    """
    profile, oauth = config.profile, config.profile.oauth
    if profile.token is not None:
        try:
            return StaticToken(profile.token)
        except ValueError as error:
            raise ConfigError(f"the token of {config.source}, or what takes its place: {error}") from None
    if oauth is not None and oauth.grant == "client_credentials":
        if oauth.token_url is None or oauth.client_secret is None:
            raise ConfigError(f"{config.source}: the grant client_credentials needs token_url and client_secret")
        try:
            return ClientCredentials(
                oauth.token_url,
                oauth.client_id,
                oauth.client_secret,
                scope=oauth.scope,
                audience=oauth.audience,
                http_client_args=http_arguments(config),
            )
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{config.source}: {error}") from None
    if oauth is None and (config.path is None or not TokenStore(config.path).has(config.name)):
        return None
    return SignedIn(config, store_of(config), http_arguments(config))
