"""The options of a client, and how those of a profile, a class and a call are merged."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict

from heksher_client._auth.secret_string import SecretString, plain_text
from heksher_client._core.settings.user_functions import HookOwner
from heksher_client.exceptions import UnexpectedResponseError

if TYPE_CHECKING:  # stubs take these options as well, and need no HTTP library
    import ssl

    import httpx

    from heksher_client.credentials import Credential

AuthTypes: TypeAlias = "Credential | httpx.Auth | tuple[str, str] | Callable[[Any], Any] | None"
"""A credential of `heksher_client.credentials`, or any `auth` argument of the HTTP client: a pair of user name and
password, say."""


class ClientOptions(TypedDict, total=False):
    """Optional settings of a client. All times are in seconds. None means "use the default".

    Options of a call override those of the class. Dicts are merged key by key.
    """

    headers: Mapping[str, str | SecretString] | None
    """Headers of each request. A value may be an object with a method `get_secret_value`, such as a
    `pydantic.SecretStr`."""
    cookies: Mapping[str, str | SecretString] | None
    """Cookies of each request, likewise."""
    params: Mapping[str, str | SecretString] | None
    """Query parameters of each request. Not for secrets: httpx logs URLs, at level INFO."""
    user_agent: str | None
    """The user agent; by default `heksher-client/` and the version."""
    token: str | SecretString | None
    """A fixed access token: the same as `auth=StaticToken(token)`."""
    auth: AuthTypes
    """Credentials. `use_credential` replaces them in a client that runs."""
    timeout: "float | httpx.Timeout | None"
    """The timeout of each step of a request: to connect, to send, to receive the next bytes. By default it is 5 to
    connect, and `request_timeout` for the other steps; with `http_client`, its own. No step takes longer than
    `request_timeout`."""
    http_client: Any
    """An `httpx.Client` (for the thread client, which uses it in several threads) or `httpx.AsyncClient`, or an object
    that behaves like one. It is shared: the program closes it. Its own headers, cookies, parameters and timeouts are
    kept."""
    http_client_args: Mapping[str, Any] | None
    """Without `http_client`: arguments of the httpx client that is created, such as proxy, cert or transport. The
    thread client sends requests from several threads at once, so these objects must allow that."""
    verify: "bool | ssl.SSLContext | None"
    """Without `http_client`: how the certificate of the service is verified, as for httpx."""
    ca_file: str | os.PathLike[str] | None
    """Without `http_client` and `verify`: a PEM file with the CA certificates that the certificate of the service is
    verified against, and no others. In profiles also for the authorization server."""
    error_classes: Mapping[int, type[UnexpectedResponseError]] | None
    """Error classes by HTTP status: subclasses of `UnexpectedResponseError`. The error of a refused declaration is of
    this class and a `DeclarationError`."""
    rate_limit: float | None
    """The largest number of requests of the client in each `rate_limit_interval`, including those of `ping` and
    `get_settings`. Further requests wait. 0.5 is one request in two intervals. No limit by default."""
    rate_limit_interval: float | None
    """1 by default."""
    start_timeout: float | None
    """The timeout of all requests of the first refresh together. 60 by default."""
    request_timeout: float | None
    """The timeout of a request, from the lookup of the host name to the last byte. 30 by default."""
    max_response_bytes: int | None
    """The maximum size of a response, decompressed. A query with a larger response is split. 256 MiB by default."""
    jitter: float | None
    """The share of the interval, from 0 to 1, by which each interval is varied, so that the processes of a fleet do not
    all send requests at the same moment. 0.1 by default. Unless it is 0, the first interval ends at a random moment of
    it, and waits after failures are up to half as long."""
    max_backoff: float | None
    """The longest wait after failures. Waits start with one second and double. 60 by default."""
    stale_after: float | None
    """The age from which `status()` reports the settings as stale. Three intervals by default."""
    last_known_good: str | os.PathLike[str] | None
    """The path of a file that stores the last responses. If the service is unavailable at the start, settings are
    restored from it, if they were confirmed within `max_age`. Its directory must exist. A relative path is resolved
    when the client is created. Several processes may share it."""
    max_age: float | None
    """The age from which that file is ignored. A week by default."""
    follow_changes: bool | None
    """Whether to receive changes as they are made, over an additional connection that stays open, if the service offers
    that. Settings are still refreshed at intervals. True by default, except for HTTP clients that allow only one
    connection, have event hooks for responses, or send requests to an application in this process, which never ends a
    stream."""


class ClassOptions(ClientOptions, total=False):
    """Options that a subclass can set for all its clients: `class ShopClient(ThreadHeksherClient, service_url=...)`."""

    service_url: str | None
    update_interval: float | None
    context_features: Sequence[str] | None


_DICT_OPTIONS: Final = (
    "headers", "cookies", "params", "http_client_args", "error_classes", "defaults", "track_contexts"
)  # fmt: skip
"""Options that are merged key by key."""
_TABLES_OF_TEXTS: Final = ("headers", "cookies", "params")
"""Those of them whose values may be secret strings. Each can be in `http_client_args` as well."""
_EXCLUSIVE_OPTIONS: Final = {
    "http_client": frozenset(["http_client_args", "verify"]),
    "http_client_args": frozenset(["http_client"]),
    "verify": frozenset(["http_client"]),
}
"""Options that exclude others: one of a weaker source is discarded if a stronger one sets one of these."""


def check_option_names(options: Mapping[str, Any], kind: type[Any], whose: str) -> None:
    """Raise if an option does not exist.

    Args:
        options: The options.
        kind: A typed dict of the options that exist.
        whose: The class or function that got them, for the message.

    Raises:
        TypeError: An option does not exist.
    """
    for name in options:
        if name not in kind.__optional_keys__:
            raise TypeError(f"{whose} got an unexpected keyword argument {name!r}")


def pop_own_arguments(owner: type[HookOwner], options: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Remove the arguments that a class has in addition to the options, if it has `__post_init__`, and return them.

    Args:
        owner: The class of a client, or of a stub.
        options: The keyword arguments of a call.
        kind: A typed dict of the options that exist.
    """
    if owner.__post_init__ is HookOwner.__post_init__:
        return {}
    return {name: options.pop(name) for name in [*options] if name not in kind.__optional_keys__}


def checked_own_arguments(owner: type[HookOwner], args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Remove the keyword arguments for `__post_init__` from those of a client or a stub, and return them.

    Raises:
        TypeError: There are arguments that neither a client nor the class has.
    """
    own = pop_own_arguments(owner, options, ClientOptions)
    check_option_names(options, ClientOptions, owner.__name__)
    if args and owner.__post_init__ is HookOwner.__post_init__:
        raise TypeError(f"{owner.__name__} takes 3 positional arguments, but {3 + len(args)} were given")
    return own


def merge_options(weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the options of two sources.

    Raises:
        TypeError: An option that must be a dict is not, or two options of one source exclude each other.
        ValueError: The token cannot be sent in a header.
    """
    chosen = _normalized(stronger)
    options = {
        name: value for name, value in weaker.items() if chosen.keys().isdisjoint(_EXCLUSIVE_OPTIONS.get(name, ()))
    }
    for name, value in chosen.items():
        options[name] = merge_option(name, options.get(name, {}), value) if name in _DICT_OPTIONS else value
    return options


def merge_option(name: str, weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the values of two sources for an option that is a dict. The names of headers are case-insensitive."""
    if name != "headers":
        return {**weaker, **stronger}
    replaced = {str(key).lower() for key in stronger}
    return {key: value for key, value in weaker.items() if str(key).lower() not in replaced} | dict(stronger)


def _normalized(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a source that are set. Those that can be in two places are moved to the top level.

    Otherwise a weaker source could override them there. For the same reason a token becomes a credential, and `ca_file`
    the path in `verify`.

    Raises:
        TypeError: An option that must be a dict is not, or two options exclude each other.
        ValueError: The token cannot be sent in a header.
    """
    chosen = {name: _plain(name, value) for name, value in options.items() if value is not None}
    for name in _DICT_OPTIONS:
        if not isinstance(chosen.get(name, {}), Mapping):
            raise TypeError(f"{name} must be a dict, not {type(chosen[name]).__name__}")
    _replace_ca_file(chosen)
    _hoist_http_client_args(chosen)
    for name, table, key in (("auth", "http_client_args", "auth"), ("user_agent", "headers", "user-agent")):
        values = chosen.pop(table, {})
        found = [value for other, value in values.items() if str(other).lower() == key and value is not None]
        if found:
            chosen.setdefault(name, found[-1])
        if remaining := {other: value for other, value in values.items() if str(other).lower() != key}:
            chosen[table] = remaining
    _replace_token(chosen)
    return chosen


def _plain(name: str, value: Any) -> Any:
    """Return the value of an option, with the texts of secret strings in it."""
    if name not in _TABLES_OF_TEXTS or not isinstance(value, Mapping):
        return value
    return {key: plain_text(text) for key, text in value.items()}


def _replace_token(chosen: dict[str, Any]) -> None:
    check_one_of(chosen, "auth", "token")
    if "token" in chosen:
        from heksher_client.credentials import StaticToken  # imports the HTTP library, which stubs do not need

        chosen["auth"] = StaticToken(chosen.pop("token"))


def _replace_ca_file(chosen: dict[str, Any]) -> None:
    check_verification(chosen)
    if "ca_file" in chosen:
        ca_file = chosen.pop("ca_file")
        if not isinstance(ca_file, str | os.PathLike):
            raise TypeError(f"ca_file must be the path of a file, not {ca_file!r}")
        chosen["verify"] = pathlib.Path(ca_file)


def check_verification(options: Mapping[str, Any]) -> None:
    """Raise if options of one source say more than once how certificates are verified.

    Raises:
        TypeError: They do.
    """
    for names in (("verify", "ca_file"), ("http_client", "verify"), ("http_client", "ca_file")):
        check_one_of(options, *names)
    arguments = options.get("http_client_args")
    if options.get("ca_file") is not None and isinstance(arguments, Mapping) and arguments.get("verify") is not None:
        raise TypeError("give ca_file or verify in http_client_args, not both")


def check_one_of(options: Mapping[str, Any], *names: str) -> None:
    """Raise if more than one of some options is set.

    Raises:
        TypeError: Two are.
    """
    if len(given := [name for name in names if options.get(name) is not None]) > 1:
        raise TypeError(f"give {' or '.join(given)}, not both")


def _hoist_http_client_args(chosen: dict[str, Any]) -> None:
    """Move arguments of the HTTP client that are options as well to the options."""
    arguments = dict(chosen.get("http_client_args", {}))
    for name in _TABLES_OF_TEXTS:
        if type(arguments.get(name)) is dict:
            arguments[name] = _plain(name, arguments[name])
        if _is_dict_of_strings(arguments.get(name)):
            chosen[name] = merge_option(name, arguments.pop(name), chosen.get(name, {}))
    for name in ("timeout", "verify"):
        if arguments.get(name) is not None:
            value = arguments.pop(name)
            chosen.setdefault(name, value)
    if "http_client_args" in chosen:
        chosen["http_client_args"] = arguments


def _is_dict_of_strings(value: Any) -> bool:
    """Return True for a plain dict. Other objects that httpx accepts are not merged: a cookie jar has state, say."""
    return type(value) is dict and all(isinstance(text, str) for pair in value.items() for text in pair)
