"""The options that a client uses, for programs that show or log them. They are without secrets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from heksher_client._core.settings.frozen_dict import FrozenDict
from heksher_client.exceptions import UnexpectedResponseError

_NOTHING: Final = FrozenDict[str, str]({})


@dataclass(frozen=True)  # With slots, the error for a new attribute is one of Python itself.
class EffectiveOptions:
    """The options of a client: those of the call, of its class and of its profile, and otherwise the defaults.

    All times are in seconds. See `ClientOptions` for the meaning of each option.
    """

    service_url: str
    """Without user name and password."""
    update_interval: float
    context_features: tuple[str, ...] | None
    """Those that the program lists, or else those of the service; None if the client has not received them yet."""
    headers: Mapping[str, str] = _NOTHING
    """All values are `***`, as they may be secrets."""
    cookies: Mapping[str, str] = _NOTHING
    """Likewise."""
    params: Mapping[str, str] = _NOTHING
    """Likewise."""
    user_agent: str | None = None
    """None for the default."""
    auth: str | None = None
    """The credential as a text without secrets: `<StaticToken>`, or `basic` for a user name and a password. None if the
    client has none of its own: that of `http_client` is not shown."""
    timeout: Mapping[str, float | None] | None = None
    """The timeout of each step of a request; None for that of `http_client`."""
    verify: bool | str | None = True
    """A text is the path in `ca_file`, or the class of a TLS context. None if `http_client` or a transport decides."""
    http_client: str | None = None
    """The class of the HTTP client of the program, if there is one."""
    http_client_args: tuple[str, ...] = ()
    """The names of the arguments."""
    error_classes: tuple[tuple[int, type[UnexpectedResponseError]], ...] = ()
    """The pairs of the dict."""
    rate_limit: float | None = None
    rate_limit_interval: float = 1.0
    start_timeout: float = 60.0
    request_timeout: float = 30.0
    max_response_bytes: int = 1 << 28
    jitter: float = 0.1
    max_backoff: float = 60.0
    stale_after: float = 180.0
    last_known_good: str | None = None
    """The absolute path of the file."""
    max_age: float = 7 * 24 * 3600.0
    follow_changes: bool = True
    """False as well if the HTTP client cannot follow a stream."""
