"""Endpoints of an authorization server: the URLs that a profile sets, and those in the metadata of its issuer."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import httpx

from heksher_client._auth.http_clients import create_client, is_unknown_authority
from heksher_client.exceptions import ConfigError, CredentialError
from heksher_client.profiles._config import Config, OAuth

_ENDPOINTS: Final = ("token_url", "authorization_url", "device_authorization_url", "revocation_url")


class OAuthEndpoints(NamedTuple):
    """The URLs of an authorization server, and how it authenticates clients. Only the token endpoint is required."""

    token_url: str
    authorization_url: str | None
    device_authorization_url: str | None
    revocation_url: str | None
    client_auth: Literal["basic", "post"]


def resolve_endpoints(config: Config, oauth: OAuth, http_client_args: Mapping[str, Any]) -> OAuthEndpoints:
    """Return the endpoints for a profile. URLs in the profile take precedence over the metadata of its issuer.

    Raises:
        ConfigError: A URL is invalid, or there is no token endpoint.
        CredentialError: The metadata could not be fetched.
    """
    issuer = _checked_url("issuer", oauth.issuer, config)
    metadata = {} if issuer is None else _fetch_metadata(issuer, http_client_args)

    def endpoint(name: str) -> str | None:
        url = getattr(oauth, f"{name}_url") or metadata.get(f"{name}_endpoint")
        return _checked_url(f"{name}_url", url, config)

    # RFC 8414, section 2: a server that does not list its methods accepts `client_secret_basic`.
    accepts_post_only = metadata.get("token_endpoint_auth_methods_supported") == ["client_secret_post"]
    return OAuthEndpoints(
        required_url("token_url", endpoint("token"), config),
        endpoint("authorization"),
        endpoint("device_authorization"),
        endpoint("revocation"),
        oauth.client_auth or ("post" if accepts_post_only else "basic"),
    )


def check_oauth_urls(config: Config, oauth: OAuth, endpoints: Sequence[str] = ()) -> None:
    """Check the URLs of an authorization server as far as this is possible without a request.

    Args:
        config: The profile.
        oauth: Its table `oauth`.
        endpoints: The keys of endpoints of which the profile needs one, in addition to the token endpoint.

    Raises:
        ConfigError: A URL is invalid or missing.
    """
    for name in ("issuer", *_ENDPOINTS):
        _checked_url(name, getattr(oauth, name), config)
    if oauth.issuer is None:
        required_url("token_url", oauth.token_url, config)
        if endpoints and not any(getattr(oauth, name) for name in endpoints):
            required_url(endpoints[0], None, config)


def _checked_url(name: str, url: object, config: Config) -> str | None:
    from heksher_client._auth.oauth import check_server_url

    if url is None:
        return None
    try:
        check_server_url(name, url)
    except ValueError as error:
        raise ConfigError(f"{config.source}: {error}") from None
    return str(url)


def required_url(name: str, url: str | None, config: Config) -> str:
    """Return a URL that a sign-in needs.

    Raises:
        ConfigError: It is missing.
    """
    if url is None:
        raise ConfigError(f"{config.source}: oauth has no {name}, and no issuer whose metadata contains it: add one")
    return url


def _fetch_metadata(issuer: str, http_client_args: Mapping[str, Any]) -> dict[str, Any]:
    """Fetch the metadata of an issuer, from the URL of OpenID Connect Discovery or else from that of RFC 8414.

    Raises:
        CredentialError: There is none, or it is the metadata of another issuer.
        ConfigError: An environment variable for HTTP clients cannot be used.
    """
    scheme, _, rest = issuer.rstrip("/").partition("//")
    host, _, path = rest.partition("/")
    urls = (
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        f"{scheme}//{host}/.well-known/oauth-authorization-server/{path}".rstrip("/"),
    )
    reason = "not found"
    for url in urls:
        http = create_client(httpx.Client, url, {"timeout": 10.0, **http_client_args}).client
        try:
            with http:
                response = http.get(url)
            metadata = response.json() if response.is_success else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            reason, metadata = type(error).__name__, None
            if is_unknown_authority(error):
                reason += ", its certificate is of an unknown authority: set ca_file in the profile"
        if isinstance(metadata, dict):
            if str(metadata.get("issuer")).rstrip("/") != issuer.rstrip("/"):
                raise CredentialError(f"{url} is not the metadata of {issuer}: it names another issuer")
            return metadata
    raise CredentialError(
        f"the metadata of {issuer} could not be fetched ({reason}): check the issuer, or set token_url, "
        "authorization_url and the other URLs in oauth"
    )
