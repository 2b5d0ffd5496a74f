"""The endpoint of one client: the URL of the service, the defaults of all requests, and the HTTP client.

All options that concern HTTP are checked here when a client is created, so that an invalid one does not fail each
request later. Error messages do not contain their values, which may be secrets.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from heksher_client._auth.http_clients import check_verify, checked_arguments, create_client, tls_verification
from heksher_client._auth.secret_string import is_secret_string
from heksher_client._auth.token_refresh import Credential, ensure_blocking_allowed
from heksher_client._core.refresh.effects import OpenStream, Request
from heksher_client._core.refresh.options import checked_seconds
from heksher_client._core.settings.frozen_dict import FrozenDict
from heksher_client._core.settings.user_functions import check_function, is_coroutine_function, plain_result
from heksher_client._http.connections import Connections
from heksher_client._http.resolved_hosts import ResolvedHosts
from heksher_client._logging import shown_seconds
from heksher_client._version import __version__

TIME_LIMITS: Final = "heksher_time_limits"
"""The extension of a request with what limits the time of each of its steps, for messages."""
_DEFAULT_TIMEOUTS: Final[Mapping[str, float | None]] = {"connect": 5.0, "read": None, "write": None, "pool": None}
"""A service that is busy may take long for the first byte of a response, but not for a connection."""
_TRANSPORTS: Final = frozenset(["transport", "mounts"])
"""The arguments of an HTTP client with which a program makes connections itself."""
_KEEPALIVE_EXPIRY: Final = 270.0
"""Seconds for which an idle connection is kept: longer than an update interval of four minutes with jitter, and shorter
than the idle timeout of firewalls and load balancers, which drop connections silently."""
_CONNECTION_LIMITS: Final = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=_KEEPALIVE_EXPIRY
)


class Endpoint:
    """The service as one client reaches it: the URL, the defaults of its requests, the credential, the HTTP client."""

    def __init__(self, options: Mapping[str, Any], make_client: Callable[..., Any]) -> None:
        """Check the options and create the HTTP client.

        Args:
            options: The options of a client, `service_url` among them.
            make_client: `httpx.Client` or `httpx.AsyncClient`.

        Raises:
            TypeError, ValueError: An option is invalid.
            ConfigError: An environment variable for HTTP clients cannot be used.
        """
        self.url, userinfo = parse_service_url(options["service_url"])
        self.is_async = _is_async(make_client)
        check_http_options(options, make_client)
        arguments = checked_arguments(options.get("http_client_args", {}), is_async=self.is_async)
        self._shared_client = options.get("http_client")
        self.auth = _checked_auth(options.get("auth", userinfo), is_async=self.is_async)
        self._headers, self._user_agent = options.get("headers", {}), options.get("user_agent")
        self._cookies, self._params = options.get("cookies"), _checked_params(options.get("params", {}))
        self._timeouts = None if self._shared_client is not None else _DEFAULT_TIMEOUTS
        if "timeout" in options:
            self._timeouts = _checked_timeouts(options["timeout"])
        self._argument_names = tuple(sorted(arguments))
        arguments.setdefault("limits", _CONNECTION_LIMITS)
        self._given_arguments = self._client_arguments = arguments
        self._verify = options.get("verify", True)
        """As `tls_verification` expects it."""
        self._make_client = make_client
        self._is_closing = False
        self._former_client: Any = None
        self.client: Any = self._shared_client
        self.connections: Connections | None = None
        """Those of `client`, if no other code uses them, and it is synchronous."""
        self.hosts = ResolvedHosts()
        self._urls: dict[str, Any] = {}
        """By the target of the request, as the HTTP client has parsed them."""
        self.renew_client()

    @property
    def can_stream(self) -> bool:
        """True if a response may stay open while other requests are sent."""
        if self._shared_client is not None:
            hooks = getattr(self._shared_client, "event_hooks", {})
            transport = getattr(self._shared_client, "_transport", None)
            max_connections = getattr(getattr(transport, "_pool", None), "_max_connections", None)
        else:
            hooks = self._client_arguments.get("event_hooks") or {}
            transport = self._client_arguments.get("transport")
            max_connections = self._client_arguments["limits"].max_connections
        # Hooks may read a response, and transports to an application wait for its end.
        reads_all = hooks.get("response") or type(transport).__name__ in ("ASGITransport", "WSGITransport")
        return not reads_all and (max_connections is None or max_connections > 1)

    def describe(self) -> dict[str, Any]:
        """Return the options that concern HTTP, without secrets: those of `EffectiveOptions`."""
        shared = self._shared_client
        is_own = shared is None and not _TRANSPORTS & set(self._argument_names)
        hidden = {name: dict.fromkeys(map(str, getattr(self, f"_{name}") or ()), "***") for name in _SECRET_TABLES}
        return {
            **{name: FrozenDict(table) for name, table in hidden.items()},
            "service_url": str(self.url),
            "user_agent": self._user_agent,
            "auth": _shown_auth(self.auth),
            "timeout": None if self._timeouts is None else FrozenDict(self._timeouts),
            "verify": _shown_verification(self._verify) if is_own else None,
            "http_client": None if shared is None else type(shared).__name__,
            "http_client_args": self._argument_names,
        }

    def replace_client(self) -> Any:
        """Create another HTTP client, which has no connections yet. A shared one is kept.

        Returns:
            The former one, which is not closed.
        """
        former = self.client
        if self._shared_client is None:
            self._use(self._make_client(**self._client_arguments))
        return former

    def renew_client(self) -> None:
        """Create the HTTP client from the arguments of the program, unless it is shared.

        So it has a new TLS context: one from before gevent patched the program would block all greenlets.
        """
        if self._shared_client is None:
            arguments = {**self._given_arguments, "verify": tls_verification(self._verify)}
            client, self._client_arguments = create_client(self._make_client, str(self.url), arguments)
            self._use(client)

    def _use(self, client: Any) -> None:
        self.client = client
        is_own = not _TRANSPORTS & self._client_arguments.keys()
        self.connections = Connections() if is_own and not self.is_async else None
        self.hosts.forget()
        if is_own:
            self.hosts.use_for(client, is_async=self.is_async)

    def drop_connections(self) -> None:
        """Close all connections, even those in use, unless other code may use them. For synchronous clients only."""
        if (connections := self.connections) is not None:
            with suppress(Exception):  # There may be no file descriptor left to load the certificates.
                former = self.replace_client()
                connections.shut_down()
                former.close()

    def shut_down_connections(self) -> None:
        """End all requests in progress, unless other code may use their connections. For synchronous clients only."""
        if self.connections is not None:
            self.connections.shut_down()

    def keep_no_connections(self) -> None:
        """Open a connection for each request from now on: those of gevent cannot be used by several threads."""
        limits = self._client_arguments["limits"]
        limits = httpx.Limits(max_connections=limits.max_connections, max_keepalive_connections=0)
        self._client_arguments = {**self._client_arguments, "limits": limits}
        self._former_client = self.replace_client()  # closed later, as a stream may be open

    def close(self) -> None:
        """Close the HTTP client, unless it is shared.

        A signal handler that interrupts this leaves it to the interrupted call, in which the HTTP client holds locks.
        """
        if self._shared_client is not None or self._is_closing:
            return
        try:
            self._is_closing = True
            self.shut_down_connections()  # before they are closed, which would not wake up threads that wait for them
            self.client.close()
            if self._former_client is not None:
                self._former_client.close()
        finally:
            self._is_closing = False

    async def aclose(self) -> None:
        """Close the HTTP client, if it is asynchronous, unless it is shared."""
        if self._shared_client is None:
            await self.client.aclose()

    def use_auth(self, auth: Any) -> None:
        """Use another credential from now on.

        Raises:
            TypeError: It is not a credential.
        """
        self.auth = _checked_auth(auth, 'StaticToken("...")', is_async=self.is_async)

    def build_request(
        self, request: Request, seconds: float, reason: str = "by the option request_timeout"
    ) -> httpx.Request:
        """Build a request with the defaults of this endpoint.

        Args:
            request: The request of the core.
            seconds: The longest time that one step of it may take, if the timeouts of the HTTP client are longer.
            reason: What limits it to that, for the error.
        """
        # gzip only: `Body` can limit its size while it decompresses.
        headers = httpx.Headers(self._headers)
        headers.update({**request.headers, "Accept-Encoding": "gzip"})
        if user_agent := self._user_agent_for(self.client.headers.get("User-Agent", _HTTPX_USER_AGENT)):
            headers["User-Agent"] = user_agent
        url = self._urls.get(request.target) or str(self.url).rstrip("/") + request.target
        built: httpx.Request = self.client.build_request(
            request.method, url, headers=dict(headers), cookies=self._cookies, content=request.content
        )
        if self._shared_client is None:  # Another client may be one that expects text.
            # For the next refresh: the URL of a query of many settings takes a while to parse.
            if len(self._urls) >= _MAX_URLS:
                self._urls.clear()
            self._urls[request.target] = built.url
        timeouts = self._timeouts or built.extensions.get("timeout", {})
        limited = {step: seconds if timeout is None else min(timeout, seconds) for step, timeout in timeouts.items()}
        limits = {step: self._time_limit(timeouts[step], timeout, reason) for step, timeout in limited.items()}
        built.extensions = {**built.extensions, "timeout": limited, TIME_LIMITS: limits}
        if params := httpx.QueryParams(str(self.client.params)).merge(self._params):
            # Not by `build_request`, where they would replace the query of the URL.
            query = request.target.partition("?")[2]
            built.url = built.url.copy_with(query="&".join(filter(None, [query, str(params)])).encode())
        return built

    def build_stream_request(self, stream: OpenStream) -> httpx.Request:
        """Build the request for a stream, which may send nothing for longer than a response may take."""
        built = self.build_request(stream.request, stream.seconds)
        built.headers["Accept-Encoding"] = "identity"
        built.extensions["timeout"]["read"] = stream.seconds
        built.extensions[TIME_LIMITS].pop("read", None)
        return built

    def _time_limit(self, timeout: float | None, limited: float, reason: str) -> str:
        """Return what limits the time of a step, for a message."""
        if timeout is None or timeout > limited:
            return f"limited to {shown_seconds(limited, 3)} {reason}"
        if self._timeouts is None:
            return f"limited to {shown_seconds(limited)} by http_client, or by the option timeout if that is given"
        return f"limited to {shown_seconds(limited)} by the option timeout"

    def _user_agent_for(self, client_user_agent: str) -> str | None:
        """Return the user agent to send, or None to send that of the HTTP client, which the program has chosen."""
        return self._user_agent or (_USER_AGENT if client_user_agent.startswith(_HTTPX_USER_AGENT) else None)


_MAX_URLS: Final = 200
"""So many are kept. Ten thousand settings are queried with 40."""
_HTTPX_USER_AGENT: Final = "python-httpx"
"""The beginning of the default user agent of HTTP clients."""
_USER_AGENT: Final = f"heksher-client/{__version__}"


def check_http_options(options: Mapping[str, Any], make_client: Callable[..., Any]) -> None:
    """Check the options that concern HTTP as far as this is possible without a file or an environment variable.

    The URL is not checked, as the error for it names its source.

    Args:
        options: Options of a client, or of a class of clients, which need not be complete.
        make_client: `httpx.Client` or `httpx.AsyncClient`.

    Raises:
        TypeError, ValueError: An option is invalid.
    """
    is_async = _is_async(make_client)
    arguments = checked_arguments(options.get("http_client_args", {}), is_async=is_async)
    if "http_client" in options:
        _check_client(options["http_client"], make_client)
        if arguments or "verify" in options:
            raise TypeError("http_client and http_client_args exclude each other: give one of them")
    _checked_auth(options.get("auth"), is_async=is_async)
    _check_headers(options.get("headers", {}))
    if "user_agent" in options:
        _check_user_agent(options["user_agent"])
    _checked_params(options.get("params", {}))
    _check_cookies(options.get("cookies", {}))
    if "timeout" in options:
        _checked_timeouts(options["timeout"])
    check_verify(options.get("verify", True))


def parse_service_url(text: Any, name: str = "service_url") -> tuple[httpx.URL, tuple[str, str] | None]:
    """Split the URL of a service into the URL without user name and password, and these.

    Args:
        text: The URL.
        name: The name of the option, argument or variable, for error messages.

    Raises:
        TypeError: It is neither a string nor an `httpx.URL`.
        ValueError: It is not an HTTP URL to which paths can be appended. The message does not contain secrets.
    """
    if not isinstance(text, str | httpx.URL):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")  # Its `repr` may contain a password.
    shown = "the URL" if "@" in str(text) else repr(re.split("[?#]", str(text))[0])
    if invalid := next((character for character in str(text) if _is_invalid_in_url(character)), None):
        raise ValueError(f"{name}: {shown} must not contain {_CHARACTER_NAMES.get(invalid, ascii(invalid))}")
    try:
        url = httpx.URL(text)
        urlsplit(str(text))  # ValueError for some URLs that httpx accepts, such as with a fullwidth slash in the host
    except (httpx.InvalidURL, ValueError):
        raise ValueError(
            f"{name}: {shown} is not a valid URL (a user name or password in it must be percent-encoded)"
        ) from None
    if problem := _url_problem(url):
        raise ValueError(f"{name}: {shown} {problem}")
    if not url.userinfo:
        return url, None
    # httpx would sign requests as well, but write the URL with its password to its log.
    return url.copy_with(username=None, password=None), (url.username, url.password)


def _url_problem(url: httpx.URL) -> str:
    """Return why paths cannot be appended to a URL and requested by HTTP; an empty text if they can."""
    if url.scheme not in ("http", "https"):
        return "must start with http:// or https://"
    try:
        host = url.host
    except ValueError:  # It begins with `xn--`, as encoded names do, and cannot be decoded.
        return "has an invalid host name"
    if not host:
        return "has no host name"
    if ":" not in host and not _HOST.fullmatch(url.raw_host.decode()):  # not an IPv6 address
        return "has an invalid host name"
    if url.port is not None and not 0 < url.port < 1 << 16:
        return "has an invalid port: use one from 1 to 65535"
    if url.query or url.fragment:
        return "must not have a query or a fragment: the paths of requests are appended to it"
    return ""


_CHARACTER_NAMES: Final = {" ": "a space", "\t": "a tab", "\n": "a line break", "\r": "a line break"}
_HOST: Final = re.compile(r"(?=.{1,254}$)([A-Za-z0-9_~-]{1,63}\.)*[A-Za-z0-9_~-]{1,63}\.?")
"""A host name that can be resolved, after internationalized names were encoded."""


def _is_invalid_in_url(character: str) -> bool:
    """True if httpx would encode a character in a URL, or send it to the resolver, instead of refusing it."""
    return character in ' "<>\\^`{|}' or not character.isprintable()


def _checked_timeouts(timeout: Any) -> dict[str, float | None]:
    """Return the timeout of each step of a request.

    Raises:
        TypeError, ValueError: One is not a positive number.
    """
    try:
        httpx_timeout: Any = timeout if hasattr(timeout, "as_dict") else httpx.Timeout(timeout)
        timeouts: dict[str, float | None] = httpx_timeout.as_dict()
    except (TypeError, ValueError, LookupError):  # A tuple of the wrong length, for example.
        raise TypeError(f"timeout must be a number of seconds, or an httpx.Timeout, not {timeout!r}") from None
    return {
        step: None if seconds is None else checked_seconds("timeout", seconds) for step, seconds in timeouts.items()
    }


def _check_headers(headers: Mapping[str, str]) -> None:
    """Raise if a header cannot be sent.

    Raises:
        TypeError, ValueError: A name or a value is not valid.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers must map strings to strings: {name!r} does not")
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a valid name of a header")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the header {name} must consist of visible ASCII characters, with spaces only in between")


def _check_user_agent(user_agent: Any) -> None:
    """Raise if it cannot be sent.

    Raises:
        TypeError, ValueError: It is not valid.
    """
    if not isinstance(user_agent, str):
        raise TypeError(f"user_agent must be a str, not {user_agent!r}")
    if not _HEADER_VALUE.fullmatch(user_agent):
        raise ValueError("user_agent must consist of visible ASCII characters, with spaces only in between")


_HEADER_NAME: Final = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile("([!-~]([ \t!-~]*[!-~])?)?")


def _check_cookies(cookies: Any) -> None:
    """Raise if a cookie cannot be sent.

    Raises:
        TypeError, ValueError: A name or a value is not valid.
    """
    for name, value in cookies.items() if isinstance(cookies, Mapping) else ():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"cookies must map strings to strings: {name!r} does not")
        if not _HEADER_NAME.fullmatch(name) or not _COOKIE_VALUE.fullmatch(value):
            raise ValueError(
                f"the cookie {name!r} must consist of visible ASCII characters, except commas and semicolons"
            )


_COOKIE_VALUE: Final = re.compile(r"[!-+\-./0-:<-~]*")


def _checked_params(params: Any) -> httpx.QueryParams:
    """Return query parameters as httpx has them.

    Raises:
        TypeError: A name or a value is not valid.
    """
    for name, value in params.items() if isinstance(params, Mapping) else ():
        values = value if isinstance(value, list | tuple) else (value,)
        if not isinstance(name, str) or not all(isinstance(one, str | int | float | None) for one in values):
            raise TypeError(f"params must map strings to strings or numbers: {name!r} does not")
    return httpx.QueryParams(params)


def _check_client(client: Any, make_client: Callable[..., Any]) -> None:
    """Raise if an object cannot be used as an HTTP client of this kind.

    Raises:
        TypeError: It lacks a method or attribute, or is of the other kind.
    """
    required = ["build_request", "send", "headers", "params"]
    if is_async := _is_async(make_client):
        required.append("aclose")
    missing = [name for name in required if isinstance(client, type) or not hasattr(client, name)]
    expected = f"http_client must behave like an httpx.{getattr(make_client, '__name__', 'Client')}"
    if missing:
        raise TypeError(f"{expected}: this one does not have {', '.join(missing)}")
    # Only in this direction: a wrapper may have a plain `send` that returns an awaitable.
    if inspect.iscoroutinefunction(client.send) and not is_async:
        raise TypeError(f"{expected}, not like {type(client).__name__}")
    if isinstance(hooks := getattr(client, "event_hooks", None), Mapping):
        checked_arguments({"event_hooks": hooks}, is_async=is_async)


def _checked_auth(auth: Any, instead: str = 'token="...", or auth=StaticToken("...")', *, is_async: bool) -> Any:
    """Return a credential that an HTTP client accepts.

    Args:
        auth: The credential of the program.
        instead: What to use for a token, for the error message.
        is_async: Whether the HTTP client is asynchronous.

    Raises:
        TypeError: It is not a credential, or has to be awaited and the HTTP client is not asynchronous.
    """
    if isinstance(auth, str | bytes) or is_secret_string(auth):
        raise TypeError(f"auth must not be a {type(auth).__name__}: use {instead} of heksher_client.credentials")
    is_pair = isinstance(auth, tuple) and len(auth) == 2 and all(isinstance(part, str | bytes) for part in auth)
    if not (auth is None or is_pair or hasattr(auth, "sync_auth_flow") or callable(auth)):
        raise TypeError(f"auth must be a credential, or an auth argument of the HTTP client, not {type(auth).__name__}")
    if callable(auth) and not hasattr(auth, "sync_auth_flow"):
        check_function(auth, "auth")
        return lambda request: plain_result(auth, auth(request), role="auth")
    _check_auth_flows(auth)
    if isinstance(auth, Credential) and not is_async:
        ensure_blocking_allowed(auth)
    return auth


def _check_auth_flows(auth: Any) -> None:
    """Check the methods of an `httpx.Auth`, which are generator functions.

    Raises:
        TypeError: One of them is a coroutine function, or one without `async` in its name asynchronous.
    """
    for name in ("auth_flow", "sync_auth_flow", "async_auth_flow"):
        flow = getattr(auth, name, None)
        if is_coroutine_function(flow) or (name != "async_auth_flow" and inspect.isasyncgenfunction(flow)):
            kind = "an asynchronous" if name == "async_auth_flow" else "a plain"
            raise TypeError(f"auth: {name} must be {kind} generator function")


def _shown_auth(auth: Any) -> str | None:
    """Return a text for a credential. Only the `repr` of our own classes is known to be without secrets."""
    if auth is None or isinstance(auth, tuple):
        return None if auth is None else "basic"
    return repr(auth) if isinstance(auth, Credential) else type(auth).__name__


def _shown_verification(verify: Any) -> bool | str:
    if isinstance(verify, bool | Path):
        return verify if isinstance(verify, bool) else str(verify)
    return type(verify).__name__


_SECRET_TABLES: Final = ("headers", "cookies", "params")


def _is_async(make_client: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(getattr(make_client, "send", None))
