"""Sign-in flows: generators of the steps that complete a sign-in, in a thread or in a task.

Each step is performed by the caller: a call that may block, a call of the program's function, or a wait. So the
blocking and the asynchronous functions have one implementation.
"""

import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qs

from heksher_client._auth.token_refresh import Token
from heksher_client._clock import monotonic
from heksher_client._core.refresh.options import MAX_SECONDS, checked_timeout
from heksher_client._logging import escaped, shown_seconds
from heksher_client.exceptions import ConfigError, CredentialError, CredentialTimeoutError
from heksher_client.profiles import _config
from heksher_client.profiles._config import Config, OAuth
from heksher_client.profiles._config_writer import added_profile, table_name
from heksher_client.profiles._connect import http_client_args
from heksher_client.profiles._loopback_server import LoopbackServer
from heksher_client.profiles._oauth_endpoints import OAuthEndpoints, check_oauth_urls, required_url, resolve_endpoints
from heksher_client.profiles._secret_checks import origin
from heksher_client.profiles._stored_credential import token_store
from heksher_client.profiles._token_store import StoredTokens

if TYPE_CHECKING:
    # Imported in the functions that need it, so that this module can be imported without the extra.
    from heksher_client._auth.oauth import Granted, TokenEndpoint

_DEVICE_CODE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_SLOW_DOWN_SECONDS: Final = 5.0
"""Seconds to add to the polling interval if the server asks for it (RFC 8628, section 3.5) or is unavailable."""
_POLLING_SECONDS: Final = 5.0
"""The polling interval if the server does not say it (RFC 8628, section 3.2)."""
_SHORTEST_POLLING_SECONDS: Final = 1.0
"""Also if the server says less, such as 0: it would have a request after the other."""
_PASTE_SECONDS: Final = 300.0
"""The longest time in which a user must sign in and paste the code. Authorization codes expire after a few minutes."""
_MAX_ERROR_LENGTH: Final = 300


class DeviceCode(NamedTuple):
    """A code that a user enters in a browser on another device to sign in."""

    url: str
    """The page to open."""
    code: str
    """The code to enter on that page. If it is empty, the server has no device codes: return the code that the browser
    shows after the sign-in, or the address of the page at which it ends."""
    complete_url: str | None
    """The URL of the page with the code filled in, to show as a QR code for example."""
    expires_in: float
    """Seconds until the code expires, or the time to return one."""


class CallBlocking(NamedTuple):
    """Make a call that may block, such as a request. The result of the step is its result."""

    call: Callable[[], Any]


class CallProgram(NamedTuple):
    """Call the function of the program. The result of the step is its result, or None if the time of a task is over."""

    function: Callable[[Any], object]
    argument: object
    seconds: float
    """The longest time that a task waits for it. A thread cannot interrupt a function."""


class Wait(NamedTuple):
    """Wait for some seconds, or until a future is done."""

    seconds: float
    future: "Future[Any] | None" = None


SignInFlow: TypeAlias = Generator[CallBlocking | CallProgram | Wait, Any, str]
"""A flow whose result is the location of the saved tokens."""


class LoginTarget(NamedTuple):
    """The profile to sign in for, as the arguments of a function name it."""

    profile: str | None
    path: str | PathLike[str] | None
    url: str | None
    oauth: Mapping[str, Any] | None


class LoginSession(NamedTuple):
    """A sign-in in progress: the profile that it is for, and the authorization session."""

    config: Config
    oauth: OAuth
    endpoints: OAuthEndpoints
    token_endpoint: "TokenEndpoint"

    @classmethod
    def begin(
        cls,
        target: LoginTarget,
        endpoints: Sequence[str] = (),
        advice: str = "use a token (login_with_token, login --token)",
    ) -> "LoginSession":
        """Load the profile, and fetch the metadata of the server if the profile names an issuer.

        Args:
            target: The profile.
            endpoints: The keys of endpoints of which the sign-in needs one.
            advice: The alternative to an authorization server, for the error message.
        """
        with load_config(target) as config:
            oauth = _require_oauth(config, target, advice)
            check_oauth_urls(config, oauth, endpoints)
        from heksher_client._auth.oauth import TokenEndpoint

        arguments = http_client_args(config)
        resolved = resolve_endpoints(config, oauth, arguments)
        token_endpoint = TokenEndpoint(
            resolved.token_url, oauth.client_id, oauth.client_secret, arguments, resolved.client_auth
        )
        return cls(config, oauth, resolved, token_endpoint)

    def save(self, granted: "Granted") -> str:
        """Save the tokens that the server granted, and return their location."""
        try:
            token = Token(granted.access_token)
        except ValueError as error:
            raise CredentialError(f"{self.endpoints.token_url}: {error}") from None
        tokens = StoredTokens(
            origin=origin(str(self.config.profile.url)),
            access_token=token.value,
            refresh_token=granted.refresh_token,
            expires_at=granted.expires_at,
            token_url=self.endpoints.token_url,
            client_id=self.oauth.client_id,
            issuer=self.oauth.issuer,
            revocation_url=self.endpoints.revocation_url,
            client_auth=self.endpoints.client_auth,
        )
        return token_store(self.config).save(self.config.name, tokens)


def browser_flow(show_browser: Callable[[str], object], target: LoginTarget, timeout: float) -> SignInFlow:
    """Return the flow of `login`."""
    session: LoginSession = yield CallBlocking(partial(LoginSession.begin, target, ["authorization_url"]))
    with LoopbackServer() as loopback:
        request = _AuthorizationRequest.create(session, loopback.redirect_uri)
        loopback.state = request.state
        deadline = monotonic() + timeout
        # `webbrowser.open` returns False if there is no browser.
        if (yield CallProgram(show_browser, request.url, timeout)) is False:
            raise CredentialError("no browser could be opened: use login_headless, or login --headless")
        yield Wait(max(deadline - monotonic(), 0.0), loopback.redirect)
        if not loopback.redirect.done():
            raise CredentialTimeoutError(f"the sign-in was not completed within {shown_seconds(timeout)}")
        redirect = loopback.redirect.result()
    return (yield from _redeem(session, request, redirect))


def headless_flow(get_code: Callable[[DeviceCode], object], target: LoginTarget, timeout: float | None) -> SignInFlow:
    """Return the flow of `login_headless`."""
    longest = checked_timeout(timeout, MAX_SECONDS)
    needed = ["device_authorization_url", "authorization_url"]
    session: LoginSession = yield CallBlocking(partial(LoginSession.begin, target, needed))
    endpoints = session.endpoints
    if endpoints.device_authorization_url is None and endpoints.authorization_url is not None:
        return (yield from _pasted_code_flow(get_code, session, min(longest, _PASTE_SECONDS)))
    return (yield from _device_code_flow(get_code, session, longest))


def _device_code_flow(get_code: Callable[[DeviceCode], object], session: LoginSession, longest: float) -> SignInFlow:
    """Show the user a code, and poll the server until the user has entered it (RFC 8628)."""
    from heksher_client._auth.oauth import RefusedError, ServerUnavailableError

    url = required_url("device_authorization_url", session.endpoints.device_authorization_url, session.config)
    parameters = {"scope": session.oauth.scope, "audience": session.oauth.audience}
    given = {key: value for key, value in parameters.items() if value is not None}
    response = yield CallBlocking(partial(session.token_endpoint.post, url, given))
    code, device_code, interval = _parse_device_code(url, response)
    seconds = min(code.expires_in, longest)
    deadline = monotonic() + seconds
    yield CallProgram(get_code, code, seconds)
    while (remaining := deadline - monotonic()) > 0:
        yield Wait(min(interval, remaining))
        try:
            granted = yield CallBlocking(
                partial(session.token_endpoint.grant, _DEVICE_CODE_GRANT, device_code=device_code)
            )
        except RefusedError as error:
            if error.code not in ("authorization_pending", "slow_down"):
                raise
            interval += _SLOW_DOWN_SECONDS * (error.code == "slow_down")
        except ServerUnavailableError:  # The code remains valid.
            interval += _SLOW_DOWN_SECONDS
        else:
            location: str = yield CallBlocking(partial(session.save, granted))
            return location
    raise CredentialTimeoutError(f"the code was not entered within {shown_seconds(seconds)}: start again")


def _pasted_code_flow(get_code: Callable[[DeviceCode], object], session: LoginSession, seconds: float) -> SignInFlow:
    """Show the user a URL, and receive the authorization code from the user instead of a redirect.

    PKCE protects the code: only this sign-in can redeem it.
    """
    request = _AuthorizationRequest.create(session, session.oauth.redirect_url)
    deadline = monotonic() + seconds
    pasted = yield CallProgram(get_code, DeviceCode(request.url, "", None, seconds), seconds)
    if monotonic() >= deadline:
        raise CredentialTimeoutError(f"the sign-in was not completed within {shown_seconds(seconds)}")
    return (yield from _redeem(session, request, _parse_pasted(pasted, request.state)))


def _parse_pasted(pasted: object, state: str) -> dict[str, str]:
    """Return the query parameters of a redirect that a user has pasted, or the code that the user has pasted.

    Raises:
        CredentialError: It is neither, or the redirect of another sign-in.
    """
    text = pasted.strip() if isinstance(pasted, str) else ""
    if not text:
        raise CredentialError(
            "no code was entered: the server has no device codes, so get_code must return the authorization code, "
            "or the address at which the browser ends"
        )
    if "://" not in text:
        return {"code": text}
    query = text.partition("?")[2].partition("#")[0]
    parameters = {name: values[0] for name, values in parse_qs(query).items()}
    # Some servers leave out the state of a refusal, which the user should see.
    is_refusal = "error" in parameters and not {"code", "state"} & parameters.keys()
    if not is_refusal and not secrets.compare_digest(parameters.get("state", "").encode(), state.encode()):
        raise CredentialError("the address that was entered is not that of this sign-in: start again")
    return parameters


class _AuthorizationRequest(NamedTuple):
    """A request for an authorization code with PKCE (RFC 7636)."""

    url: str
    """The URL at which the user signs in."""
    state: str
    """The state that the redirect from there must have."""
    redirect_uri: str
    code_verifier: str

    @classmethod
    def create(cls, session: LoginSession, redirect_uri: str) -> "_AuthorizationRequest":
        code_verifier = secrets.token_urlsafe(64)
        url, state = session.token_endpoint.authorization_url(
            required_url("authorization_url", session.endpoints.authorization_url, session.config),
            redirect_uri=redirect_uri,
            scope=session.oauth.scope,
            audience=session.oauth.audience,
            code_verifier=code_verifier,
        )
        return cls(url, state, redirect_uri, code_verifier)


def _redeem(session: LoginSession, request: _AuthorizationRequest, redirect: Mapping[str, str]) -> SignInFlow:
    """Exchange the code of a redirect for tokens, and save them."""
    if "code" not in redirect:
        reason = ": ".join(filter(None, [redirect.get("error"), redirect.get("error_description")]))
        raise CredentialError(f"the sign-in was refused ({escaped(reason)[:_MAX_ERROR_LENGTH]})")
    granted = yield CallBlocking(
        partial(
            session.token_endpoint.grant,
            "authorization_code",
            code=redirect["code"],
            redirect_uri=request.redirect_uri,
            code_verifier=request.code_verifier,
        )
    )
    location: str = yield CallBlocking(partial(session.save, granted))
    return location


def _parse_device_code(url: str, response: dict[str, Any]) -> tuple[DeviceCode, str, float]:
    """Return the code for the user, the code for the token endpoint, and the polling interval.

    Raises:
        CredentialError: The response does not contain them.
    """
    try:
        code = DeviceCode(
            str(response["verification_uri"]),
            str(response["user_code"]),
            response.get("verification_uri_complete"),
            _parse_seconds(response["expires_in"]),
        )
        given = response.get("interval")
        interval = _POLLING_SECONDS if given is None else max(_parse_seconds(given), _SHORTEST_POLLING_SECONDS)
        return code, str(response["device_code"]), interval
    except (KeyError, TypeError, ValueError, OverflowError):
        raise CredentialError(f"{url}: the response does not contain a valid device code") from None


def _parse_seconds(value: Any) -> float:
    """Convert a duration in a response.

    Raises:
        TypeError, ValueError, OverflowError: It is not a number, or cannot be waited for.
    """
    seconds = float(value)
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise ValueError(f"{seconds} seconds")
    return seconds


@contextmanager
def load_config(target: LoginTarget) -> Iterator[Config]:
    """Load the configuration of a profile to sign in for. With the URL of a service, the profile is added if necessary.

    It is added at the end of the `with` block, which may check the configuration before that.

    Raises:
        ConfigError: The configuration is invalid, or has other credentials, which would be used instead of the sign-in.
    """
    profile, path, url, oauth = target
    if url is not None:
        with added_profile(path, profile, url, oauth) as (name, file):
            config = _config.load(name, {}, prefer_named=True, path=path, file=file)
            _check_credentials(config)
            if oauth is not None and config.profile.oauth is not None:
                check_oauth_urls(config, config.profile.oauth)
            yield config
        return
    if oauth is not None:
        raise ConfigError("oauth is for a new profile, so it needs url")
    config = _config.load(profile, {}, prefer_named=True, path=path)
    _check_credentials(config)
    yield config


def _check_credentials(config: Config) -> None:
    if config.profile.token is not None:
        raise ConfigError(
            f"{config.source} has a token, or HEKSHER_TOKEN is set, and it would be used instead of the sign-in: "
            "remove it first"
        )
    if config.profile.oauth is not None and config.profile.oauth.grant == "client_credentials":
        raise ConfigError(
            f"{config.source} has its own client secret (grant = client_credentials), so users do not sign in for it"
        )


def _require_oauth(config: Config, target: LoginTarget, advice: str) -> OAuth:
    """Return the authorization server of a profile.

    Raises:
        ConfigError: There is none. The message says how to add one.
    """
    oauth = config.profile.oauth
    if oauth is None:
        table = f"[{table_name(config.name)}.oauth]" if config.is_profile else "a profile with the table oauth"
        remedy = f"add {table} with client_id and issuer"
        if target.url is not None:
            remedy = 'pass oauth={"issuer": ..., "client_id": ...}'
        raise ConfigError(f"{config.source} has no authorization server: {remedy}, or {advice}")
    return oauth
