"""Whom secrets are for: one who owns a file of them, and the server that they were given for."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from heksher_client.exceptions import ConfigError

_SECRET_NAMES: Final = re.compile(
    "auth|token|key|secret|pass|pwd|cookie|session|credential|jwt|bearer|sig|otp|assertion|cert", re.IGNORECASE
)
"""Of headers and parameters whose values are secrets."""
_SECRET_VALUES: Final = re.compile("(bearer|basic|token) |eyJ", re.IGNORECASE)
"""How such values begin, whatever they are called."""
_HOW: Final = (
    "make it yours alone (chmod 600), or keep the secret elsewhere (HEKSHER_TOKEN, HEKSHER_CLIENT_SECRET, or sign in)"
)


def check_no_secrets(profiles: Mapping[str, Mapping[str, Any]], path: Path | None) -> None:
    """Refuse a file that others may read, if one of its profiles holds a secret.

    Raises:
        ConfigError: With what to do.
    """
    for name, table in profiles.items():
        if secrets := _secrets_in(table):
            raise ConfigError(f"{path} holds a secret ({secrets[0]} of profile {name}) and others may read it: {_HOW}")


_ACCESS: Final = ("auth", "token", "oauth", "oauth.client_secret", "client_secret")
"""The secrets that another token takes the place of."""


def _secrets_in(table: Mapping[str, Any]) -> list[str]:
    """What in a profile, or in the options of a client, is a secret."""
    oauth = table.get("oauth")
    secrets = [name for name in ("token", "client_secret", "cookies") if table.get(name)]
    if isinstance(oauth, dict) and oauth.get("client_secret"):
        secrets.append("oauth.client_secret")
    urls = {name: table[name] for name in ("url", "proxy") if isinstance(table.get(name), str)}
    if isinstance(oauth, dict):
        urls |= {f"oauth.{name}": url for name, url in oauth.items() if isinstance(url, str) and "://" in url}
    secrets += [f"the password in {name}" for name, url in urls.items() if "@" in _authority(url)]
    tables = {name: table[name] for name in ("headers", "params") if isinstance(table.get(name), Mapping)}
    return secrets + [name for name, named in tables.items() if any(_is_secret(*one) for one in named.items())]


def _authority(url: str) -> str:
    return url.split("//", 1)[-1].partition("/")[0]


def _is_secret(name: object, value: object) -> bool:
    """Whether a header or a parameter is a secret, as far as one can tell."""
    return bool(_SECRET_NAMES.search(str(name)) or _SECRET_VALUES.match(str(value)))


class Layer(NamedTuple):
    """What one source says of the server, and has for it."""

    whose: str
    url: str | None
    table: Mapping[str, Any]

    @property
    def is_let_in(self) -> bool:
        """Whether it has something that shows that one may ask."""
        return bool(_auth_in(self.table) or self.table.get("token") or self.table.get("oauth"))

    def for_its_server(self) -> list[str]:
        """What it has that is for its own server alone. A password in a URL goes where that URL leads."""
        held = [name for name, value in (("auth", _auth_in(self.table)), ("oauth", self.table.get("oauth"))) if value]
        held += _secrets_in({**self.table, "url": None, "proxy": None})
        arguments, http = self.table.get("http_client_args"), self.table.get("http_client")
        if isinstance(arguments, Mapping) and (arguments.get("cert") or _secrets_in(arguments)):
            held.append("http_client_args")
        if getattr(http, "auth", None) or _secrets_in({n: getattr(http, n, None) for n in ("cookies", "headers")}):
            held.append("http_client")
        return held


def check_same_server(layers: Sequence[Layer]) -> None:
    """Refuse to send secrets to a server that they were not given for: one that something stronger names.

    Whoever names it, or something stronger, may bring another token; nothing takes the place of other secrets.

    Args:
        layers: The weakest first.

    Raises:
        ConfigError: With what to do.
    """
    last = max((number for number, layer in enumerate(layers) if layer.url is not None), default=0)
    url, has_another = layers[last].url, any(layer.is_let_in for layer in layers[last:])
    own_url = None
    for layer in layers[:last]:
        own_url = own_url if layer.url is None else layer.url
        left = [secret for secret in layer.for_its_server() if not (has_another and secret in _ACCESS)]
        if left and own_url is not None and origin(str(url)) != origin(str(own_url)):
            raise ConfigError(
                f"{left[0]} of {layer.whose} is not for {origin(str(url))}, which takes the place of its url: "
                + ("give a token with that url" if left[0] in _ACCESS else "do without it there")
                + ", or add a profile for that server"
            )


def _auth_in(options: Mapping[str, Any]) -> Any:
    """What is shown a service, wherever it is given."""
    arguments = options.get("http_client_args")
    return options.get("auth") or (arguments.get("auth") if isinstance(arguments, Mapping) else None)


def origin(url: str) -> str:
    """The server of a URL: scheme, host and port.

    Raises:
        ConfigError: It is no URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        raise ConfigError("the url is none (a user name or password in it must be percent-encoded)") from None
    return f"{parts.scheme}://{parts.hostname}:{port}"
