"""The errors that the package raises on purpose.

    HeksherError
    ├── ServiceUnavailableError     the service could not be reached, or not in time
    │   ├── ServiceTimeoutError     it did not respond in time (also a TimeoutError)
    │   ├── UntrustedServiceError   the connection to the service is not secure
    │   └── CredentialError         no access token is available
    │       └── CredentialTimeoutError  there is none in time (also a TimeoutError)
    ├── UnexpectedResponseError     the service responded outside the protocol
    ├── DeclarationError            the service refused the declaration of a setting
    ├── ConfigError                 a profile is missing or invalid (also a ValueError)
    ├── UnknownContextError         a name is not a context feature (also a ValueError)
    ├── MissingContextError         a context feature has no value (also a RuntimeError)
    ├── ClientNotRunningError       the client was not started, or is closed (also a RuntimeError)
    └── NoMatchError                never raised; kept so that older `except` clauses still import

The first three, and their subclasses, have their cause in the service or the network; the next four, in the calling
program.
"""

from collections.abc import Mapping
from typing import Any

import orjson


class HeksherError(Exception):
    """The base class of all errors of this package."""

    method: str | None = None
    """The HTTP method of the request that failed; None if there was no request."""
    url: str | None = None
    """The URL of the request, without user name and password. Values of parameters that may be secrets are redacted."""
    request_headers: Mapping[str, str] | None = None
    """The headers of the request: names in lowercase. Values that may be secrets are redacted.

    If the client itself stopped to wait, these are only those that differ from request to request, and `url` is without
    the parameters that the program adds.
    """
    request_content: bytes | None = None
    """The first 64 KiB of the body of the request, if it had one: the declaration of a setting, in JSON."""
    headers: Mapping[str, str] | None = None
    """The headers of the response, if there was one: names in lowercase; secrets are redacted."""


class ServiceUnavailableError(HeksherError):
    """The service could not be reached, or did not respond in time. `__cause__` is the error of the HTTP library."""


class ServiceTimeoutError(ServiceUnavailableError, TimeoutError):
    """The service did not respond in time. The message names the option or argument that limited the time."""


class UntrustedServiceError(ServiceUnavailableError):
    """The connection to the service is not secure: its certificate is not valid, or it does not use TLS."""


class CredentialError(ServiceUnavailableError):
    """No access token is available: the user is not logged in, or the token provider refused or is unavailable."""


class CredentialTimeoutError(CredentialError, TimeoutError):
    """The token provider did not respond in time."""


class UnexpectedResponseError(HeksherError):
    """The service responded with a status or a body that the protocol does not define for the request.

    Or its response is of an older revision of its database than a former one.
    """

    def __init__(
        self, message: str, *, status: int = 0, content: bytes = b"", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status of the response; 0 if it is too old, or an HTTP client of the program could not decode it."""
        self.content = content
        """The first 64 KiB of the body; secrets are redacted."""
        self.retry_after = retry_after
        """The seconds to wait before the next attempt, if the service sent `Retry-After`."""

    def json(self) -> Any:
        """Return the body, decoded.

        Raises:
            ValueError: It is not in JSON, or longer than `content`.
        """
        return orjson.loads(self.content)


class DeclarationError(HeksherError):
    """The service refused the declaration of a setting. The setting has no rules in the service."""

    status: int = 0
    """The HTTP status of the response; 0 if no response was about this declaration alone."""
    content: bytes = b""
    """The first 64 KiB of the body; secrets are redacted."""
    retry_after: float | None = None
    """The seconds to wait before the next attempt, if the service sent `Retry-After`."""

    def __init__(
        self,
        message: str,
        *,
        setting: str = "",
        outcome: str | None = None,
        differences: tuple[Mapping[str, Any], ...] = (),
    ) -> None:
        super().__init__(message)
        self.setting = setting
        """The name of the declared setting."""
        self.outcome = outcome
        """The outcome as the service reports it (`"rejected"`, `"mismatch"`), or None if it reports none."""
        self.differences = differences
        """The differences between the declaration and the setting in the service, in the service's JSON format."""

    def json(self) -> Any:
        """Return the body of the response, decoded.

        Raises:
            ValueError: It is not in JSON, or longer than `content`.
        """
        return orjson.loads(self.content)


class ConfigError(HeksherError, ValueError):
    """A profile, or a part of its configuration, is missing or invalid. The message names the source and the fix."""


class UnknownContextError(HeksherError, ValueError):
    """A name is not a context feature of the setting or the client."""


class MissingContextError(HeksherError, RuntimeError):
    """A setting was read without a value for one of its configurable features."""

    features: tuple[str, ...] = ()
    """The features without a value."""


class ClientNotRunningError(HeksherError, RuntimeError):
    """The call needs a running client: one that was set as the main client and is not closed."""


class NoMatchError(HeksherError):
    """Never raised: a setting always has a default. Kept because the older client exported the name."""
