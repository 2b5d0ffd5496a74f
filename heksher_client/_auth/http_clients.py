"""HTTP clients for one server, with the proxy and the certificates that environment variables configure.

httpx uses all of these variables when a client is created, and raises an error of any kind for one that it cannot use,
even if requests to the server do not need it. Here such a variable is ignored, and the error for one that is needed
names it.

A server on this machine is reached directly: for a proxy, the same address is another machine.
"""

import os
import re
import ssl
from collections.abc import Callable, Coroutine, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.request import getproxies

import httpx

from heksher_client._core.settings.user_functions import (
    awaitable_result,
    check_function,
    is_coroutine_function,
    plain_result,
)
from heksher_client.exceptions import ConfigError

ErrorT = TypeVar("ErrorT", bound=BaseException)


class CreatedClient(NamedTuple):
    """An HTTP client."""

    client: Any
    arguments: dict[str, Any]
    """Arguments with which another one can be created."""


def create_client(make_client: Callable[..., Any], url: str, arguments: Mapping[str, Any]) -> CreatedClient:
    """Create an HTTP client that sends requests to one server only.

    Args:
        make_client: `httpx.Client` or `httpx.AsyncClient`.
        url: The URL of the server.
        arguments: The arguments of the program.

    Raises:
        ConfigError: An environment variable cannot be used. The message names it.
        Exception: An argument cannot be used.
    """
    _check_folder(url, arguments)
    if _is_direct(url, arguments):
        usable = _without_environment(httpx.URL(url), arguments)
        return CreatedClient(make_client(**usable), usable)
    try:
        return CreatedClient(make_client(**arguments), dict(arguments))
    except _CREATION_ERRORS as error:
        usable = _without_environment(httpx.URL(url), arguments)
        try:
            return CreatedClient(make_client(**usable), usable)
        except _CREATION_ERRORS:
            raise error from None


def checked_arguments(arguments: Mapping[str, Any], *, is_async: bool) -> dict[str, Any]:
    """Return the arguments of an HTTP client with event hooks that are checked, now and when they are called.

    httpx ignores what a hook returns to a synchronous client, a coroutine as well.

    Raises:
        TypeError: A hook cannot be called, or is not awaited if it is a coroutine function.
    """
    hooks = arguments.get("event_hooks")
    if hooks is None:
        return dict(arguments)
    if not isinstance(hooks, Mapping) or not all(isinstance(functions, list | tuple) for functions in hooks.values()):
        raise TypeError("event_hooks must be a dict of lists of functions, by event")
    make_hook = _awaited_hook if is_async else _plain_hook
    checked = {event: [make_hook(event, function) for function in functions] for event, functions in hooks.items()}
    return {**arguments, "event_hooks": checked}


def _plain_hook(event: str, function: Callable[[Any], object]) -> Callable[[Any], object]:
    role = f"event_hooks: a hook for {event}"
    check_function(function, role, "; the async client awaits it")
    return lambda argument: plain_result(function, function(argument), role=role, may_be_running=True)


def _awaited_hook(event: str, function: Callable[[Any], Any]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    role = f"event_hooks: a hook for {event}"
    if not is_coroutine_function(function):  # It may return a coroutine nevertheless, such as a lambda.
        check_function(function, role)

    async def hook(argument: Any) -> None:
        await awaitable_result(function, function(argument), role=role)

    return hook


def check_environment(url: str, arguments: Mapping[str, Any]) -> None:
    """Raise if requests to a server need an environment variable that cannot be used.

    Raises:
        ConfigError: The message names the variable.
    """
    if not _VARIABLES.isdisjoint(map(str.upper, os.environ)):
        _check_folder(url, arguments)
        _without_environment(httpx.URL(url), arguments)


def check_key_log() -> None:
    """Raise if the file for TLS keys cannot be written. Each TLS context of Python opens it, unless it is a bare one.

    Raises:
        ConfigError: The message names the variable.
    """
    if path := os.environ.get(_KEY_LOG):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).keylog_filename = path
        except OSError as error:
            raise ConfigError(f"{_KEY_LOG}: the file {path} cannot be written: {error.strerror}") from None


def check_verify(verify: Any) -> None:
    """Check the type of the argument of `tls_verification`.

    Raises:
        TypeError: It is of another type.
    """
    if not isinstance(verify, bool | ssl.SSLContext | Path):
        raise TypeError(
            f"verify must be True, False or an ssl.SSLContext, not {type(verify).__name__}: "
            "the option for a file of CA certificates is ca_file"
        )


def tls_verification(verify: Any) -> bool | ssl.SSLContext:
    """Return the argument `verify` of an HTTP client.

    Args:
        verify: Likewise, or the path of a PEM file with CA certificates, which then are the only ones that are trusted.

    Raises:
        ConfigError: The certificates cannot be read.
        TypeError: It is neither.
    """
    check_verify(verify)
    if not isinstance(verify, Path):
        checked: bool | ssl.SSLContext = verify
        return checked
    check_key_log()
    try:
        return ssl.create_default_context(cafile=verify.expanduser())
    except (OSError, RuntimeError) as error:  # RuntimeError: `~user` in a path is an unknown user.
        raise ConfigError(f"ca_file: the certificates in {verify} cannot be read: {error}") from None


def find_cause(error: BaseException | None, kind: type[ErrorT]) -> ErrorT | None:
    """Return the first error of a class among an error and its causes, or None if there is none."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def is_unknown_authority(error: BaseException) -> bool:
    """Return True if a certificate was refused because its authority is not a known one, or because it has none."""
    refusal = find_cause(error, ssl.SSLCertVerificationError)
    return refusal is not None and getattr(refusal, "verify_code", None) in _UNKNOWN_AUTHORITY


def _check_folder(url: str, arguments: Mapping[str, Any]) -> None:
    """Raise if there is no folder of certificates: no certificate would be valid, with an error that does not tell."""
    folders = os.environ.get(_FOLDER, "")
    is_used = folders and not os.environ.get(_FILE) and _reads_certificates(arguments)
    if is_used and httpx.URL(url).scheme == "https" and not any(map(os.path.isdir, folders.split(os.pathsep))):
        raise ConfigError(f"{_FOLDER}: {folders} is not a folder")


def _reads_certificates(arguments: Mapping[str, Any]) -> bool:
    is_default = arguments.get("verify", True) is True and arguments.get("transport") is None
    return is_default and bool(arguments.get("trust_env", True))


def _without_environment(url: httpx.URL, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with what the environment says about one server, for a client that does not use it otherwise.

    Raises:
        ConfigError: The server needs a variable that cannot be used.
    """
    usable = {**arguments, "trust_env": False}
    has_environment = arguments.get("trust_env", True) and arguments.get("transport") is None
    if has_environment and arguments.get("proxy") is None and not _is_direct(url, arguments):
        usable["proxy"] = _proxy(url)
    if arguments.get("verify", True) is True:
        is_secure = "https" in (url.scheme, httpx.URL(str(usable.get("proxy") or "")).scheme)
        usable["verify"] = _tls_context(arguments) if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return usable


def _tls_context(arguments: Mapping[str, Any]) -> ssl.SSLContext:
    check_key_log()
    trusts_environment = _reads_certificates(arguments)
    name = next((name for name in (_FILE, _FOLDER) if trusts_environment and os.environ.get(name)), None)
    try:
        return httpx.create_ssl_context(trust_env=name is not None)
    except OSError as error:
        if name is None:
            raise
        reason = error.strerror or error
        raise ConfigError(f"{name}: the certificates in {os.environ[name]} cannot be read: {reason}") from None


def _is_direct(url: httpx.URL | str, arguments: Mapping[str, Any]) -> bool:
    """Return True if a server is on this machine, and the program does not decide on the route of requests."""
    if not _ROUTES.isdisjoint(arguments):
        return False
    host = ""
    try:
        host = httpx.URL(url).host
        address = ip_address(host)
    except (ValueError, httpx.InvalidURL):  # The error for an invalid URL is that of its first request.
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _proxy(url: httpx.URL) -> str | None:
    """Return the proxy for a server.

    Raises:
        ConfigError: It cannot be used.
    """
    proxies = getproxies()
    scheme = next((scheme for scheme in (url.scheme, "all") if proxies.get(scheme)), None)
    if scheme is None or _is_excluded(url, proxies.get("no", "")):
        return None
    proxy = proxies[scheme] if "://" in proxies[scheme] else f"http://{proxies[scheme]}"
    names = [name for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY") if os.environ.get(name)]
    source = f"{names[0] if names else 'the proxy of the system'}: {_redacted(proxies[scheme])}"
    try:
        httpx.HTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), proxy=proxy)
    except ImportError:
        raise ConfigError(f"{source} needs an extra package: pip install 'httpx[socks]'") from None
    except (httpx.InvalidURL, ValueError):  # Not its text, which may contain the password.
        raise ConfigError(f"{source} must be an http://, https:// or socks5:// URL") from None
    return proxy


def _is_excluded(url: httpx.URL, no_proxy: str) -> bool:
    """Return True if a list of hosts and domains, which may have ports, has the host of a URL."""
    for entry in filter(None, (entry.strip().lower() for entry in no_proxy.split(","))):
        scheme, _, authority = entry.rpartition("://")
        host, _, port = authority.partition("]") if authority.startswith("[") else (authority, "", "")
        if host.count(":") == 1:
            host, _, port = host.partition(":")
        name, port = host.strip("[").lstrip("*."), port.strip(":")
        is_host = entry == "*" or name == url.host or (name and url.host.endswith(f".{name}"))
        if is_host and scheme in ("", "all", url.scheme) and port in ("", str(url.port or _PORTS[url.scheme])):
            return True
    return False


def _redacted(proxy: str) -> str:
    """Return the URL of a proxy without user name and password. It need not be valid."""
    _, at, host = proxy.rpartition("@")
    scheme = _SCHEME.match(proxy)
    return f"{scheme[0] if scheme else ''}***@{host}" if at else proxy


_SCHEME: Final = re.compile("[a-zA-Z][a-zA-Z0-9+.-]*://")
_FILE: Final = "SSL_CERT_FILE"
_FOLDER: Final = "SSL_CERT_DIR"
_KEY_LOG: Final = "SSLKEYLOGFILE"
_VARIABLES: Final = frozenset(["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", _FILE, _FOLDER, _KEY_LOG])
_ROUTES: Final = frozenset({"mounts", "proxies", "proxy", "transport", "trust_env"})
"""The arguments of an HTTP client by which a program decides on the route of requests."""
_UNKNOWN_AUTHORITY: Final = (18, 19, 20, 21)
"""OpenSSL's codes for self-signed certificates, and for authorities that are not known."""
_PORTS: Final = {"http": 80, "https": 443}
_CREATION_ERRORS: Final = (ImportError, OSError, ValueError, httpx.InvalidURL)
