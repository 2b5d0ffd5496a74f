"""Signing in to the server that gives tokens for a service, once for all programs that use the profile.

Needs the extra `login`. `connect`, `connect_async` and the command line use the tokens from then on, and renew them.
"""

import secrets
import threading
import time
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

import httpx

from heksher_client._auth.token_refresh import Token
from heksher_client._logging import escaped, logger
from heksher_client.exceptions import ConfigError, CredentialError
from heksher_client.profiles import _config
from heksher_client.profiles._config import Config, OAuth
from heksher_client.profiles._connect import http_arguments
from heksher_client.profiles._secret_checks import origin
from heksher_client.profiles._stored_credential import is_from, store_of
from heksher_client.profiles._token_store import SignIn

if TYPE_CHECKING:
    # Imported where it is needed: the names of this module are there without the extra, and only some calls fail.
    from heksher_client._auth.oauth import Granted, TokenEndpoint

__all__ = ["DeviceCode", "login", "login_headless", "login_with_token", "logout"]

_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_SLOWER: Final = 5.0
"""Seconds by which a server is asked less often that wants to be."""


class DeviceCode(NamedTuple):
    """What somebody without a browser here is to do elsewhere."""

    url: str
    """Where to go, with any browser."""
    code: str
    """What to enter there."""
    complete_url: str | None
    """Where the code is entered already, for a QR code say."""
    expires_in: float
    """Seconds."""


class _Endpoints(NamedTuple):
    tokens: "TokenEndpoint"
    token_url: str
    authorization: str | None
    device_authorization: str | None
    revocation: str | None


def login(
    show_browser: Callable[[str], object] = webbrowser.open, *, profile: str | None = None, timeout: float = 300.0
) -> str:
    """Sign in with a browser on this machine. Blocks until that is done.

    Args:
        show_browser: Called with the URL to show.
        profile: Its name; None for the one that `connect` would use.
        timeout: Seconds after which it is given up.

    Returns:
        Where the tokens are kept.

    Raises:
        ConfigError: The profile has no `oauth`, or is missing or wrong.
        CredentialError: It was refused, or not done in time.
    """
    config, oauth, ends = _server_of(profile)
    authorization = _needed(ends.authorization, "authorization_url", config)
    verifier = secrets.token_urlsafe(64)
    with _Callback() as callback:
        url, state = ends.tokens.authorization_url(
            authorization,
            redirect_uri=callback.url,
            scope=oauth.scope,
            audience=oauth.audience,
            code_verifier=verifier,
        )
        callback.state = state
        if show_browser(url) is False:  # which is what `webbrowser.open` says where there is none
            raise CredentialError("there is no browser here: sign in with a code (login_headless)")
        answer = callback.wait(timeout)
    if "code" not in answer:
        said = ": ".join(filter(None, [answer.get("error"), answer.get("error_description")]))
        raise CredentialError(f"the sign-in was refused ({escaped(said)[:300]})")
    granted = ends.tokens.grant(
        "authorization_code", code=answer["code"], redirect_uri=callback.url, code_verifier=verifier
    )
    return _keep(config, ends, oauth, granted)


def login_headless(get_code: Callable[[DeviceCode], object], *, profile: str | None = None) -> str:
    """Sign in with a browser on another machine. Blocks until that is done, or the code has expired.

    Args:
        get_code: Called with what to show: where to go, and the code to enter there.
        profile: Its name; None for the one that `connect` would use.

    Returns:
        Where the tokens are kept.

    Raises:
        ConfigError: The profile has no `oauth`, or is missing or wrong.
        CredentialError: It was refused, or not done in time.
    """
    from heksher_client._auth.oauth import AwayError, RefusedError

    config, oauth, ends = _server_of(profile)
    url = _needed(ends.device_authorization, "device_authorization_url", config)
    wanted = {"scope": oauth.scope, "audience": oauth.audience}
    answer = ends.tokens.post(url, {name: value for name, value in wanted.items() if value is not None})
    try:
        device = str(answer["device_code"])
        shown = DeviceCode(
            str(answer["verification_uri"]),
            str(answer["user_code"]),
            answer.get("verification_uri_complete"),
            _seconds(answer["expires_in"]),
        )
        interval = _seconds(answer.get("interval", 5))
    except (KeyError, TypeError, ValueError):
        raise CredentialError(f"{url}: the answer holds no device code") from None
    get_code(shown)
    until = _now() + shown.expires_in
    while (left := until - _now()) > 0:
        _sleep(min(interval, left))
        try:
            granted = ends.tokens.grant(_DEVICE_GRANT, device_code=device)
        except RefusedError as error:
            if error.code not in ("authorization_pending", "slow_down"):
                raise
            interval += _SLOWER * (error.code == "slow_down")
        except AwayError:  # For a moment, and the code is still good.
            interval += _SLOWER
        else:
            return _keep(config, ends, oauth, granted)
    raise CredentialError("nobody has entered the code in time")


def _seconds(told: Any) -> float:
    """A number of seconds that a server tells.

    Raises:
        TypeError, ValueError: It is none.
    """
    seconds = float(told)
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise ValueError(f"{seconds} seconds")
    return seconds


def login_with_token(token: str, *, profile: str | None = None) -> str:
    """Have a profile use an access token that you have got elsewhere.

    Returns:
        Where it is kept.

    Raises:
        ConfigError: The profile is missing or wrong.
        ValueError: It could not be sent.
    """
    config = _config.load(profile, {}, is_itself=True)
    _check_effect(config)
    return store_of(config).save(config.name, SignIn(origin=_origin(config), access_token=Token(token).value))


def logout(*, profile: str | None = None) -> bool:
    """Forget the tokens of a profile, and have the server that gave them forget them too, where it can.

    Returns:
        Whether somebody was signed in.

    Raises:
        ConfigError: The profile is missing or wrong.
    """
    config = _config.load(profile, {}, is_itself=True)
    store = store_of(config)
    with store.lock():
        signed_in = store.load(config.name)
        store.remove(config.name)
    if signed_in is None:
        return False
    if signed_in.revocation_url and signed_in.token_url and signed_in.client_id:
        from heksher_client._auth.oauth import TokenEndpoint

        secret = _secret_of(config) if is_from(signed_in, config.profile.oauth) else None
        try:
            tokens = TokenEndpoint(signed_in.token_url, signed_in.client_id, secret, http_arguments(config))
            tokens.revoke(signed_in.revocation_url, signed_in.refresh_token or signed_in.access_token)
        except CredentialError as error:
            logger.warning("signed out here, but the server may still accept the tokens: %s", error)
    return True


def _now() -> float:
    return time.monotonic()


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _origin(config: Config) -> str:
    return origin(str(config.profile.url))


def _secret_of(config: Config) -> str | None:
    return None if config.profile.oauth is None else config.profile.oauth.client_secret


def _oauth_of(config: Config) -> OAuth:
    if config.profile.oauth is None:
        table = f"[profiles.{config.name}.oauth]" if config.is_profile else "a profile with the table oauth"
        raise ConfigError(
            f"{config.source} does not say where to sign in: add {table} with client_id and "
            "issuer, or use a token (login_with_token, login --token)"
        )
    return config.profile.oauth


def _server_of(profile: str | None) -> tuple[Config, OAuth, _Endpoints]:
    """Where to sign in for a profile."""
    config = _config.load(profile, {}, is_itself=True)
    _check_effect(config)
    oauth = _oauth_of(config)
    return config, oauth, _endpoints(oauth, config)


def _check_effect(config: Config) -> None:
    """Refuse a sign-in that nobody would use.

    Raises:
        ConfigError: The profile has something else to show.
    """
    if config.profile.token is not None:
        raise ConfigError(f"{config.source}: its token, or HEKSHER_TOKEN, would be used instead: remove that first")
    if config.profile.oauth is not None and config.profile.oauth.grant == "client_credentials":
        raise ConfigError(f"{config.source} has a secret of its own (grant = client_credentials): nobody signs in")


def _needed(url: str | None, name: str, config: Config) -> str:
    if url is None:
        raise ConfigError(f"{config.source}: oauth has no {name}, and its issuer does not tell")
    return url


def _endpoints(oauth: OAuth, config: Config) -> _Endpoints:
    """The addresses of the server: those given, and else what it tells of itself (RFC 8414).

    Raises:
        ConfigError: One of them is none.
    """
    from heksher_client._auth.oauth import TokenEndpoint, check_address

    arguments = http_arguments(config)

    def checked(url: object, name: str) -> str | None:
        try:
            if url is not None:
                check_address(name, url)
        except ValueError as error:
            raise ConfigError(f"{config.source}: {error}") from None
        return None if url is None else str(url)

    issuer = checked(oauth.issuer, "issuer")
    told = _metadata(issuer, arguments) if issuer is not None else {}

    def end(given: str | None, name: str) -> str | None:
        return checked(given or told.get(f"{name}_endpoint"), f"{name}_url")

    token_url = _needed(end(oauth.token_url, "token"), "token_url", config)
    return _Endpoints(
        TokenEndpoint(token_url, oauth.client_id, oauth.client_secret, arguments),
        token_url,
        end(oauth.authorization_url, "authorization"),
        end(oauth.device_authorization_url, "device_authorization"),
        end(oauth.revocation_url, "revocation"),
    )


def _metadata(issuer: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a server tells of itself, as OpenID Connect Discovery and RFC 8414 have it."""
    place, _, path = issuer.rstrip("/").partition("//")[2].partition("/")
    root = f"{issuer.partition('//')[0]}//{place}/.well-known"
    urls = [f"{issuer.rstrip('/')}/.well-known/openid-configuration"]
    urls += [f"{root}/oauth-authorization-server/{path}".rstrip("/")]
    why = "give its addresses (token_url, authorization_url...)"
    for url in urls:
        try:
            answer = httpx.get(url, **{"timeout": 10.0, **arguments})
            told = answer.json() if answer.is_success else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            why, told = type(error).__name__, None
        if isinstance(told, dict):
            if str(told.get("issuer")).rstrip("/") != issuer.rstrip("/"):
                raise CredentialError(f"{url} speaks for another issuer than {issuer}")
            return told
    raise CredentialError(f"{issuer} does not say how to sign in: {why}")


def _keep(config: Config, ends: _Endpoints, oauth: OAuth, granted: "Granted") -> str:
    try:
        token = Token(granted.access_token)
    except ValueError as error:
        raise CredentialError(f"{ends.token_url}: {error}") from None
    sign_in = SignIn(
        origin=_origin(config),
        access_token=token.value,
        refresh_token=granted.refresh_token,
        expires_at=granted.expires_at,
        token_url=ends.token_url,
        client_id=oauth.client_id,
        issuer=oauth.issuer,
        revocation_url=ends.revocation,
    )
    return store_of(config).save(config.name, sign_in)


class _Callback:
    """Where the browser comes back to: a server on loopback, for one answer."""

    state = ""
    """What comes back with an answer to our own question."""

    def __init__(self) -> None:
        self._answers: SimpleQueue[dict[str, str]] = SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/callback"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, seconds: float) -> dict[str, str]:
        try:
            return self._answers.get(timeout=min(seconds, threading.TIMEOUT_MAX))
        except Empty:
            raise CredentialError(f"nobody has signed in within {seconds:g} seconds") from None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        callback = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                given = {name: values[0] for name, values in parse_qs(parts.query).items()}
                state = given.get("state", "").encode()
                is_ours = bool(callback.state) and secrets.compare_digest(state, callback.state.encode())
                if parts.path != "/callback" or not is_ours or not {"code", "error"} & given.keys():
                    self._say(404, "This is no answer to a sign-in that was begun here.")
                    return
                self._say(200, "You can close this window, and go on where you came from.")
                callback._answers.put(given)

            def _say(self, status: int, text: str) -> None:
                body = f"<!doctype html><meta charset=utf-8><title>heksher</title><p>{text}".encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing: it would hold the code."""

        return Handler
