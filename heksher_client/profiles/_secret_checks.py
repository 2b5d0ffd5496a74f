"""Checks that secrets are read only from private files and sent only to the server they belong to.

A configuration file that other users can read must not contain a secret. A secret belongs to the URL of its own source,
or of the nearest source with a lower priority: if a source with a higher priority sets the URL of another server, only
credentials that come with that URL are sent there.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from heksher_client._auth.secret_string import is_secret_string
from heksher_client.exceptions import ConfigError

_SECRET_NAMES: Final = re.compile(
    "auth|token|key|secret|pass|pwd|cookie|session|credential|jwt|bearer|sig|otp|assertion|cert", re.IGNORECASE
)
"""Matches the names of headers and query parameters whose values are treated as secrets."""
_SECRET_VALUES: Final = re.compile("(bearer|basic|token) |eyJ", re.IGNORECASE)
"""Matches values that are treated as secrets under any name."""
_CREDENTIALS: Final = ("auth", "token", "oauth", "oauth.client_secret", "client_secret")
"""The secrets that are replaced by the credentials of a source with a higher priority."""
_REMEDY: Final = (
    "make it readable by its owner only (chmod 600), or move the secret out of it "
    "(HEKSHER_TOKEN, HEKSHER_CLIENT_SECRET, or heksher-client login)"
)


def check_no_secrets(profiles: Mapping[str, Mapping[str, Any]], path: Path | None) -> None:
    """Check that a configuration file that other users can read contains no secret.

    Raises:
        ConfigError: A profile contains a secret. The message says what to do.
    """
    for name, table in profiles.items():
        if secrets := _find_secrets(table):
            raise ConfigError(f"other users can read {path}, and profile {name} has a secret ({secrets[0]}): {_REMEDY}")


def _find_secrets(options: Mapping[str, Any]) -> list[str]:
    """Return the names of the secrets in a profile, or in the options of a client."""
    oauth = options.get("oauth")
    secrets = [name for name in ("token", "client_secret", "cookies") if options.get(name)]
    if isinstance(oauth, dict) and oauth.get("client_secret"):
        secrets.append("oauth.client_secret")
    urls = {name: options[name] for name in ("url", "proxy") if isinstance(options.get(name), str)}
    if isinstance(oauth, dict):
        urls |= {f"oauth.{name}": url for name, url in oauth.items() if isinstance(url, str) and "://" in url}
    secrets += [f"the password in {name}" for name, url in urls.items() if "@" in _authority(url)]
    tables = {name: options[name] for name in ("headers", "params") if isinstance(options.get(name), Mapping)}
    return secrets + [name for name, table in tables.items() if any(_is_secret(*item) for item in table.items())]


def _authority(url: str) -> str:
    # Not urlsplit: it raises ValueError for some invalid URLs, and those may contain a password as well.
    return url.split("//", 1)[-1].partition("/")[0]


def _is_secret(name: object, value: object) -> bool:
    """Guess whether a header or a query parameter is a secret."""
    return bool(is_secret_string(value) or _SECRET_NAMES.search(str(name)) or _SECRET_VALUES.match(str(value)))


class ConfigSource(NamedTuple):
    """One source of a configuration, such as a profile or the environment."""

    name: str
    """A name for error messages."""
    url: str | None
    """The service URL that this source sets."""
    options: Mapping[str, Any]

    @property
    def has_credentials(self) -> bool:
        """True if this source provides credentials for the service."""
        return bool(_auth_option(self.options) or self.options.get("token") or self.options.get("oauth"))

    def bound_secrets(self) -> list[str]:
        """Return the names of the secrets that may be sent only to the server of this source.

        Passwords in a URL are not among them: they are sent to the host of that URL.
        """
        candidates = (("auth", _auth_option(self.options)), ("oauth", self.options.get("oauth")))
        secrets = [name for name, value in candidates if value]
        secrets += _find_secrets({**self.options, "url": None, "proxy": None})
        arguments, http = self.options.get("http_client_args"), self.options.get("http_client")
        if isinstance(arguments, Mapping) and (arguments.get("cert") or _find_secrets(arguments)):
            secrets.append("http_client_args")
        if getattr(http, "auth", None) or _find_secrets({n: getattr(http, n, None) for n in ("cookies", "headers")}):
            secrets.append("http_client")
        return secrets


def check_secret_destination(sources: Sequence[ConfigSource]) -> None:
    """Check that no secret would be sent to a server other than its own.

    The last source with a URL decides which server is used. Credentials of that source, or of a later one, replace
    those of earlier sources. Other secrets, such as headers, cannot be replaced.

    Args:
        sources: The sources of a configuration, from the lowest to the highest priority.

    Raises:
        ConfigError: A secret belongs to another server. The message says what to do.
    """
    deciding = max((index for index, source in enumerate(sources) if source.url is not None), default=0)
    url = sources[deciding].url
    has_credentials = any(source.has_credentials for source in sources[deciding:])
    own_url, own_name = None, ""
    for source in sources[:deciding]:
        if source.url is not None:
            own_url, own_name = source.url, source.name
        secrets = [name for name in source.bound_secrets() if not (has_credentials and name in _CREDENTIALS)]
        if secrets and own_url is not None and origin(str(url)) != origin(str(own_url), f"{own_name}: the url"):
            raise ConfigError(
                f"{source.name}: {secrets[0]} cannot be sent to {origin(str(url))}, as it belongs to "
                f"{origin(str(own_url))}: "
                + ("set a token together with the new url" if secrets[0] in _CREDENTIALS else "remove it")
                + ", or add a profile for the new server"
            )


def _auth_option(options: Mapping[str, Any]) -> Any:
    """Return `auth`, which may be among the options or in `http_client_args`."""
    arguments = options.get("http_client_args")
    return options.get("auth") or (arguments.get("auth") if isinstance(arguments, Mapping) else None)


def origin(url: str, name: str = "the url") -> str:
    """Return the scheme, host and port of a URL.

    Args:
        url: The URL.
        name: Its source, for error messages.

    Raises:
        ConfigError: The URL is invalid. The message does not contain it, as it may contain a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        raise ConfigError(f"{name} is invalid (percent-encode special characters in a user name or password)") from None
    return f"{parts.scheme}://{parts.hostname}:{port}"
