"""Clients created from profiles, and the credentials that a profile configures."""

import re
from collections.abc import Generator, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, Unpack, overload

import httpx

from heksher_client._auth.http_clients import tls_verification
from heksher_client._drivers.async_client import AsyncHeksherClient
from heksher_client._drivers.client import class_options_of
from heksher_client._drivers.options import (
    ClassOptions,
    check_one_of,
    check_option_names,
    check_verification,
    merge_options,
    pop_own_arguments,
)
from heksher_client._drivers.thread_client import ThreadHeksherClient
from heksher_client._resource import Resource
from heksher_client.credentials import ClientCredentials, Credential, StaticToken
from heksher_client.exceptions import ConfigError
from heksher_client.profiles import _config
from heksher_client.profiles._config import Config, Profile
from heksher_client.profiles._stored_credential import StoredCredential, token_store
from heksher_client.profiles._token_store import TokenStore

ThreadT = TypeVar("ThreadT", bound=ThreadHeksherClient)
AsyncT = TypeVar("AsyncT", bound=AsyncHeksherClient)

_DEFAULT_UPDATE_INTERVAL: Final = 60.0
"""Seconds between refreshes if no source sets an interval."""
_OTHER_FIELDS: Final = (
    "url", "update_interval", "context_features", "defaults", "track_contexts", "token", "oauth", "ca_file", "proxy"
)  # fmt: skip
_OPTION_FIELDS: Final = tuple(field for field in Profile.__struct_fields__ if field not in _OTHER_FIELDS)
"""The fields of a profile that are client options of the same name."""
_ARGUMENT_ONLY_OPTIONS: Final = ("auth", "http_client", "http_client_args", "error_classes", "verify")
"""The client options that a configuration file cannot express."""


class ProfileOptions(ClassOptions, total=False):
    """Arguments that override a profile: the arguments of a client, and the other keys of a profile."""

    url: str | None
    """The same as `service_url`."""
    oauth: Mapping[str, Any] | None
    """The keys of a profile's table `oauth`."""
    proxy: str | None
    """A proxy for requests to the service and to the authorization server."""
    defaults: Mapping[str, Any] | None
    """The arguments of `set_defaults`."""
    track_contexts: Mapping[str, Any] | None
    """The arguments of `track_contexts`."""


@overload
def connect(
    profile: str | None = None, *, path: str | PathLike[str] | None = None, **overrides: Unpack[ProfileOptions]
) -> ThreadHeksherClient: ...
@overload
def connect(
    profile: str | None = None,
    *,
    path: str | PathLike[str] | None = None,
    client_class: type[ThreadT],
    **overrides: Unpack[ProfileOptions],
) -> ThreadT: ...
def connect(
    profile: str | None = None,
    *,
    path: str | PathLike[str] | None = None,
    client_class: Any = ThreadHeksherClient,
    **overrides: Any,
) -> Any:
    """Create a thread client from a profile and set it as main. Close it, or use it as a context manager.

    Ctrl-C during this call closes the client. After its return, only the program can do so.

    The sources of its options are, from the lowest to the highest priority: the profile in the configuration file;
    environment variables (`HEKSHER_URL`, `HEKSHER_TOKEN`, `HEKSHER_CONTEXT_FEATURES` as a comma-separated list, and one
    for each other option that is not a table); and arguments.

    Args:
        profile: The name of the profile. If None, `HEKSHER_PROFILE`, the default profile of the file, or its only one.
        path: The configuration file, or the folder in which it is `config.toml`. A path that does not exist is that of
            a folder, unless it ends with `.toml`. If None, `HEKSHER_CONFIG`, or else the configuration directory of the
            platform.
        client_class: The class of the client.
        **overrides: The arguments of a client, and `url`, `token`, `oauth`, `ca_file`, `proxy`, `defaults` and
            `track_contexts`.

    Raises:
        ConfigError: The configuration is incomplete or invalid. The message names the source and the fix.
        TypeError: The class is not one of thread clients, or an argument is unknown or excludes another one.
    """
    _check_class(client_class, ThreadHeksherClient)
    client = _create_client(client_class, profile, overrides, path=path)
    try:
        client.set_as_main()
        return client
    except BaseException:  # Ctrl-C after the start: the caller does not get the client, so it cannot close it.
        client.close()
        raise


class AsyncConnect(Resource, Generic[AsyncT]):
    """The result of `connect_async`: await it, or use it with `async with`, to start the client."""

    def __init__(self, client: AsyncT) -> None:
        self._client = client

    def __await__(self) -> Generator[Any, None, AsyncT]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AsyncT:
        # This closes the client if the start fails, or is interrupted while nobody else has the client. Not the method
        # of a subclass: the caller may use the client as a context manager, which calls that one.
        return await AsyncHeksherClient.__aenter__(self._client)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()


@overload
def connect_async(
    profile: str | None = None, *, path: str | PathLike[str] | None = None, **overrides: Unpack[ProfileOptions]
) -> AsyncConnect[AsyncHeksherClient]: ...
@overload
def connect_async(
    profile: str | None = None,
    *,
    path: str | PathLike[str] | None = None,
    client_class: type[AsyncT],
    **overrides: Unpack[ProfileOptions],
) -> AsyncConnect[AsyncT]: ...
def connect_async(
    profile: str | None = None,
    *,
    path: str | PathLike[str] | None = None,
    client_class: Any = AsyncHeksherClient,
    **overrides: Any,
) -> Any:
    """Create an asyncio client from a profile. Await the result, or use it with `async with`, to set it as main.

    Arguments, priorities and errors are those of `connect`. Errors of the first refresh are raised by the `await`.
    """
    _check_class(client_class, AsyncHeksherClient)
    return AsyncConnect(_create_client(client_class, profile, overrides, path=path))


@overload
def create_request_client(
    profile: str | None,
    *,
    url_name: str = "--url",
    path: str | PathLike[str] | None = None,
    **overrides: Unpack[ProfileOptions],
) -> ThreadHeksherClient: ...
@overload
def create_request_client(
    profile: str | None,
    *,
    client_class: type[AsyncHeksherClient],
    url_name: str = "--url",
    path: str | PathLike[str] | None = None,
    **overrides: Unpack[ProfileOptions],
) -> AsyncHeksherClient: ...
def create_request_client(
    profile: str | None,
    *,
    client_class: Any = ThreadHeksherClient,
    url_name: str = "--url",
    path: str | PathLike[str] | None = None,
    **overrides: Any,
) -> Any:
    """Create a client that only sends requests and is never set as main, for administration and the command line.

    It needs no context features. A profile that is given by name takes precedence over `HEKSHER_URL` and
    `HEKSHER_TOKEN`. Without a name, a URL is enough: the sign-in and the secrets of the profile that would be used are
    neither required nor sent to another server.

    Args:
        profile: The name of the profile.
        client_class: The class of the client.
        url_name: The option or argument with the URL, for error messages.
        path: As for `connect`.
        **overrides: As for `connect`.
    """
    return _create_client(client_class, profile, dict(overrides), url_name=url_name, path=path)


def _check_class(client_class: Any, base_class: type[Any]) -> None:
    """Check the class of a client before anything is read or created.

    Raises:
        TypeError: It is not a subclass of the class for this kind of client.
    """
    if isinstance(client_class, type) and issubclass(client_class, base_class):
        return
    name = getattr(client_class, "__qualname__", repr(client_class))
    needs = "connect needs a subclass of ThreadHeksherClient, and connect_async one of AsyncHeksherClient"
    raise TypeError(f"client_class must not be {name}: {needs}")


def _create_client(
    client_class: Any,
    name: str | None,
    overrides: dict[str, Any],
    *,
    url_name: str | None = None,
    path: str | PathLike[str] | None = None,
) -> Any:
    """Create a client; for the command line if `url_name` is given."""
    is_main = url_name is None
    own_arguments = pop_own_arguments(client_class, overrides, ProfileOptions)
    check_option_names(overrides, ProfileOptions, "connect" if is_main else "from_profile")
    check_one_of(overrides, "auth", "token")
    check_verification(overrides)
    if overrides.get("service_url") is not None and overrides.get("url") is None:
        overrides["url"], url_name = overrides["service_url"], "service_url"
    class_options = class_options_of(client_class)
    load = partial(
        _config.load,
        name,
        overrides,
        class_options,
        prefer_named=not is_main,
        sends_requests_only=not is_main,
        url_name=url_name or "url",
        path=path,
    )
    config = load()
    make = partial(_make_client, client_class, class_options=class_options, overrides=overrides, own=own_arguments)
    try:
        return make(config)
    except ConfigError as error:
        if not config.lends_options:
            raise
        client = make(load(may_lend_options=False))
        _config.warn_unused(error)
        return client


def _make_client(
    client_class: Any,
    config: Config,
    *,
    class_options: Mapping[str, Any],
    overrides: Mapping[str, Any],
    own: Mapping[str, Any],
) -> Any:
    """Create a client that has a configuration.

    Args:
        client_class: Its class.
        config: The configuration.
        class_options: The options of the class.
        overrides: The arguments of the call.
        own: The arguments for the `__post_init__` of the class.

    Raises:
        ConfigError: The configuration is incomplete or invalid.
    """
    profile = config.profile
    features = profile.context_features
    if features is None:
        features = class_options.get("context_features")
    interval = profile.update_interval
    if interval is None:
        interval = class_options.get("update_interval", _DEFAULT_UPDATE_INTERVAL)
    try:
        options = _options(config, class_options, overrides)
        client = client_class(profile.url, interval, features, **options, **own)
        client.set_defaults(**(profile.defaults or {}))
        client.track_contexts(**(profile.track_contexts or {}))
    except ConfigError:
        raise
    except httpx.InvalidURL:  # The text of the error is left out, as it may contain the password of the proxy.
        raise ConfigError(f"{_value_source(config)}: the proxy is not a valid URL") from None
    # ImportError: a proxy protocol needs another package. RuntimeError: `~user` in a path is an unknown user.
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f"{_value_source(config)}: {error}") from error
    return client


def _options(config: Config, class_options: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a client: those of the profile, and the arguments that take precedence over them."""
    profile = config.profile
    options = {field: value for field in _OPTION_FIELDS if (value := getattr(profile, field)) is not None}
    options |= {key: value for key, value in overrides.items() if key in _ARGUMENT_ONLY_OPTIONS and value is not None}
    if "http_client" not in merge_options(class_options, options) and (arguments := http_client_args(config)):
        options["http_client_args"] = {**arguments, **options.get("http_client_args", {})}
    has_auth = "auth" in options or "auth" in options.get("http_client_args", {})
    if not has_auth and (credential := create_credential(config)) is not None:
        options["auth"] = credential
    return options


def _value_source(config: Config) -> str:
    return f"{config.source}, or an argument"


def http_client_args(config: Config) -> dict[str, Any]:
    """Return the arguments of the httpx clients for the service and the authorization server of a profile.

    Raises:
        ConfigError: The CA certificates cannot be read, or the proxy is not a URL.
    """
    profile = config.profile
    arguments: dict[str, Any] = {}
    if profile.proxy is not None:
        if not re.fullmatch(
            r"(https?|socks5h?)://\S+", str(profile.proxy)
        ):  # Not quoted, as it may contain a password.
            raise ConfigError(f"{_value_source(config)}: the proxy must be an http://, https:// or socks5:// URL")
        arguments["proxy"] = profile.proxy
    if profile.ca_file is not None:
        arguments["verify"] = tls_verification(Path(profile.ca_file))
    return arguments


def create_credential(config: Config) -> Credential | None:
    """Create the credential that a profile configures, or return None if it configures none.

    Raises:
        ConfigError: The credential is incomplete or invalid.
    """
    profile, oauth = config.profile, config.profile.oauth
    if profile.token is not None:
        try:
            return StaticToken(profile.token)
        except ValueError as error:
            raise ConfigError(f"the token of {_value_source(config)}: {error}") from None
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
                http_client_args=http_client_args(config),
                client_auth=oauth.client_auth or "basic",
            )
        except ConfigError:
            raise
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{config.source}: {error}") from None
    is_optional = oauth is None or not config.requires_sign_in
    if is_optional and (
        config.path is None or not TokenStore(config.path).has(config.name, is_required=config.is_profile)
    ):
        return None
    return StoredCredential(config, token_store(config), http_client_args(config))
