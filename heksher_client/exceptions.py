"""All errors that the package raises on purpose.

    HeksherError
    ├── ServiceUnavailableError     the service could not be reached, or not in time
    │   ├── UntrustedServiceError   there was no secure connection to it
    │   └── CredentialError         there is no access token to send to it
    ├── UnexpectedResponseError     it answered outside the protocol
    ├── DeclarationError            it refused the declaration of a setting
    ├── ConfigError                 a profile that is missing or wrong (also a ValueError)
    ├── UnknownContextError         a name that is no context feature here (also a ValueError)
    ├── MissingContextError         a context feature without a value (also a RuntimeError)
    ├── ClientNotRunningError       a client that was not started, or is closed (also a RuntimeError)
    └── NoMatchError                never raised; kept so that older `except` clauses still import

The first three are the service's or the network's doing, the next four the calling program's.
"""

from collections.abc import Mapping
from typing import Any


class HeksherError(Exception):
    """The root of all errors of this package."""

    method: str | None = None
    """The method of the request that failed, if there was one."""
    url: str | None = None
    """Where it went: without user name, password and the parameters that the program adds."""
    headers: Mapping[str, str] | None = None
    """Those of the answer, if there was one: names in lower case, values without secrets that were sent, or are set."""


class ServiceUnavailableError(HeksherError):
    """The service could not be reached, or did not answer in time. `__cause__` is the HTTP library's own error."""


class UntrustedServiceError(ServiceUnavailableError):
    """There was no secure connection to the service: a certificate that is not valid for it, or no TLS at all."""


class CredentialError(ServiceUnavailableError):
    """There is no access token to send: nobody is signed in, or whoever gives the tokens refuses, or is away."""


class UnexpectedResponseError(HeksherError):
    """The service answered with a status or a body that the protocol does not have at this place."""

    def __init__(
        self, message: str, *, status: int = 0, content: bytes = b"", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status of the answer."""
        self.content = content
        """The beginning of the body: 1,024 bytes at the most."""
        self.retry_after = retry_after
        """The seconds that the service asks to wait before the next attempt, if it does."""


class DeclarationError(HeksherError):
    """The service refused the declaration of a setting, so that the setting has no rules there."""

    status: int = 0
    """The HTTP status of the answer; 0 where none was about the declaration itself."""
    content: bytes = b""
    """The beginning of its body: 1,024 bytes at the most."""

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
        """The name under which the setting was declared."""
        self.outcome = outcome
        """The service's word for what it did (`"rejected"`, `"mismatch"`), or None where it gave none."""
        self.differences = differences
        """How the declaration differs from what the service holds, in the service's own form."""


class ConfigError(HeksherError, ValueError):
    """A profile, or what it is made of, is missing or wrong. The message says where, and what to do about it."""


class UnknownContextError(HeksherError, ValueError):
    """A name was given that is no context feature of this setting or client."""


class MissingContextError(HeksherError, RuntimeError):
    """A setting was read while one of its configurable features had no value."""

    features: tuple[str, ...] = ()
    """Those that had none."""


class ClientNotRunningError(HeksherError, RuntimeError):
    """The call needs a running client: one that was set as main and is not closed."""


class NoMatchError(HeksherError):
    """Never raised: a setting always has a default. The older client exported the name."""
