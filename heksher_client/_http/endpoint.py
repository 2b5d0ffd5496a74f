"""The way to the service: its URL, what is sent with each request, and the HTTP client that sends it."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx

from heksher_client._auth.token_refresh import Credential
from heksher_client._core.refresh.effects import OpenStream, Request
from heksher_client._version import __version__

_LONGEST_IDLE: Final = 270.0
"""Seconds for which an idle connection is kept: longer than an interval of four minutes with its jitter, and shorter
than what firewalls and balancers remember, which drop a connection without a word."""
_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=_LONGEST_IDLE)


class Route:
    """How requests of one client get to the service."""

    def __init__(self, options: Mapping[str, Any], make: Callable[..., Any]) -> None:
        """Find the way.

        Args:
            options: As a program gives them: `service_url`, and those that requests are sent by.
            make: Makes an HTTP client out of arguments: `httpx.Client` or `httpx.AsyncClient`.

        Raises:
            TypeError, ValueError: One of them is impossible.
        """
        self.url, userinfo = _service_url(options["service_url"])
        arguments = dict(options.get("http_client_args", {}))
        self._shared = options.get("http_client")
        if self._shared is not None:
            _check_client(self._shared, make)
            if arguments:
                raise TypeError("http_client_args are for a client to be made, and http_client is one: give either")
        self._is_async = _is_async(make)
        self.auth = self._checked_auth(options.get("auth", userinfo))
        self._headers, self._user_agent = options.get("headers", {}), options.get("user_agent")
        _check_headers({**self._headers, "User-Agent": self._user_agent or ""})
        self._cookies, self._params = options.get("cookies"), _params(options.get("params", {}))
        _check_cookies(self._cookies or {})
        self._timeout = _time_outs(options["timeout"]) if "timeout" in options else None
        arguments.setdefault("limits", _LIMITS)
        self._arguments, self._make = arguments, make
        self.client = make(**arguments) if self._shared is None else self._shared

    @property
    def is_ours(self) -> bool:
        """Whether the HTTP client is this route's to close."""
        return self._shared is None

    @property
    def can_be_renewed(self) -> bool:
        """Whether a new HTTP client has new connections."""
        return self.is_ours and not {"transport", "mounts"} & self._arguments.keys()

    @property
    def has_room_for_a_stream(self) -> bool:
        """Whether another connection can be open while requests are sent, and nobody waits for its end."""
        if self._shared is not None:
            hooks, transport = getattr(self._shared, "event_hooks", {}), getattr(self._shared, "_transport", None)
            most = getattr(getattr(transport, "_pool", None), "_max_connections", None)
        else:
            hooks, transport = self._arguments.get("event_hooks") or {}, self._arguments.get("transport")
            most = self._arguments["limits"].max_connections
        waits = hooks.get("response") or type(transport).__name__ in ("ASGITransport", "WSGITransport")
        return not waits and (most is None or most > 1)

    def renew(self) -> Any:
        """Take another HTTP client, which has no connections yet, unless the program's own is used.

        Returns:
            The former one, which is not closed.
        """
        former = self.client
        if self.is_ours:
            self.client = self._make(**self._arguments)
        return former

    def use(self, auth: Any) -> None:
        """Send something else from now on to show that the program may ask.

        Raises:
            TypeError: It is nothing of that kind.
        """
        self.auth = self._checked_auth(auth)

    def _checked_auth(self, auth: Any) -> Any:
        is_pair = isinstance(auth, tuple) and len(auth) == 2 and all(isinstance(part, str | bytes) for part in auth)
        if not (auth is None or is_pair or hasattr(auth, "sync_auth_flow") or callable(auth)):
            raise TypeError(
                f"auth must be a credential, or what the HTTP client takes for it, not {type(auth).__name__}"
            )
        if isinstance(auth, Credential) and not self._is_async:
            auth.check_may_block()
        return auth

    @staticmethod
    def auth_arguments(auth: Any) -> dict[str, Any]:
        """How the HTTP client is told what to show. Nothing where it has that itself."""
        if auth is None:
            return {}
        return {"auth": None if isinstance(auth, Credential) else auth}

    def request(self, request: Request, seconds: float) -> httpx.Request:
        """A request as the HTTP client sends it.

        No step of it takes longer than the seconds given, whatever time-outs the client has.
        """
        # Only what `Body` can inflate bit by bit: a small answer may inflate to more than the memory holds.
        headers = httpx.Headers(self._headers)
        headers.update({**request.headers, "Accept-Encoding": "gzip"})
        if user_agent := self._user_agent_instead_of(self.client.headers.get("User-Agent", _PLAIN)):
            headers["User-Agent"] = user_agent
        url = str(self.url).rstrip("/") + request.target
        built: httpx.Request = self.client.build_request(
            request.method, url, headers=dict(headers), cookies=self._cookies, content=request.content
        )
        steps = self._timeout or built.extensions.get("timeout", {})
        shorter = {step: seconds if longest is None else min(longest, seconds) for step, longest in steps.items()}
        built.extensions = {**built.extensions, "timeout": shorter}
        if params := httpx.QueryParams(str(self.client.params)).merge(self._params):
            # httpx would replace the query of a URL by these.
            query = request.target.partition("?")[2]
            built.url = built.url.copy_with(query="&".join(filter(None, [query, str(params)])).encode())
        return built

    def stream(self, step: OpenStream) -> httpx.Request:
        """The request for a stream, which may be quiet for longer than an answer."""
        built = self.request(step.request, step.seconds)
        built.headers["Accept-Encoding"] = "identity"
        built.extensions["timeout"]["read"] = step.seconds
        return built

    def _user_agent_instead_of(self, clients: str) -> str | None:
        """What to send instead of what the HTTP client would; None if that is to be sent."""
        return self._user_agent or (_OURS if clients.startswith(_PLAIN) else None)


_PLAIN: Final = "python-httpx"
"""How the user agent of an HTTP client begins that nobody has given another one."""
_OURS: Final = f"heksher-client/{__version__}"


def _service_url(text: str) -> tuple[httpx.URL, tuple[str, str] | None]:
    """The URL of a service without user name and password, and these.

    Raises:
        ValueError: It is no HTTP URL that paths can be appended to.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError):
        raise ValueError("service_url is no URL (a user name or password in it must be percent-encoded)") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("service_url must be an absolute http:// or https:// URL")
    if url.query or url.fragment:
        raise ValueError("service_url must have no query and no fragment: requests append their paths to it")
    if not url.userinfo:
        return url, None
    # httpx would do the same with each request, and write the URL with its password into its log.
    return url.copy_with(username=None, password=None), (url.username, url.password)


def _time_outs(timeout: Any) -> dict[str, float | None]:
    """Those of each step.

    Raises:
        ValueError: One is not positive.
    """
    made: Any = timeout if hasattr(timeout, "as_dict") else httpx.Timeout(timeout)
    steps: dict[str, float | None] = made.as_dict()
    if not all(seconds is None or isinstance(seconds, int | float) for seconds in steps.values()):
        raise TypeError(f"timeout must be a number of seconds, or an httpx.Timeout, not {timeout!r}")
    if any(seconds is not None and not seconds > 0 for seconds in steps.values()):
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    return steps


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what no request can hold; an error without the values, which may be secrets.

    Raises:
        TypeError, ValueError: One is no header.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers are texts by their names: that of {name!r} is not")
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"no header can be called {name!r}")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the header {name} must be of visible ASCII characters and spaces, not at its ends")


_HEADER_NAME: Final = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile("([!-~]([ \t!-~]*[!-~])?)?")


def _check_cookies(cookies: Any) -> None:
    """Refuse what no request can hold; an error without the values, which may be secrets.

    Raises:
        TypeError, ValueError: One is no cookie.
    """
    for name, value in cookies.items() if isinstance(cookies, Mapping) else ():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"cookies are texts by their names: that of {name!r} is not")
        if not _HEADER_NAME.fullmatch(name) or not _COOKIE_VALUE.fullmatch(value):
            raise ValueError(f"the cookie {name!r} must be of visible ASCII characters, without commas and semicolons")


_COOKIE_VALUE: Final = re.compile(r"[!-+\-./0-:<-~]*")


def _params(params: Any) -> httpx.QueryParams:
    """The parameters that a program adds.

    Raises:
        TypeError: One is none.
    """
    for name, value in params.items() if isinstance(params, Mapping) else ():
        values = value if isinstance(value, list | tuple) else (value,)
        if not isinstance(name, str) or not all(isinstance(one, str | int | float | None) for one in values):
            raise TypeError(f"params are texts by their names: that of {name!r} is not")
    return httpx.QueryParams(params)


def _check_client(client: Any, make: Callable[..., Any]) -> None:
    """Refuse what cannot stand in for an HTTP client of this kind.

    Raises:
        TypeError: It lacks something, or is of the other kind.
    """
    needed = ["build_request", "send", "headers", "params"]
    if is_async := _is_async(make):
        needed.append("aclose")
    lacking = [name for name in needed if isinstance(client, type) or not hasattr(client, name)]
    if lacking:
        raise TypeError(f"http_client must behave as an {_name(make)}: this one has no {', '.join(lacking)}")
    # A wrapper may have a plain `send` that gives something to await.
    if inspect.iscoroutinefunction(client.send) and not is_async:
        raise TypeError(f"http_client must behave as an {_name(make)}, not as a {type(client).__name__}")


def _is_async(make: Callable[..., Any]) -> bool:
    """Whether what is made with it is awaited."""
    return inspect.iscoroutinefunction(getattr(make, "send", None))


def _name(make: Callable[..., Any]) -> str:
    return f"httpx.{getattr(make, '__name__', 'Client')}"
