"""System keyring: calls in a thread of their own, as a keyring that waits to be unlocked may never respond.

A call is abandoned after some seconds. While it has not returned, no other call of this process is started, and each
one fails immediately. So a process waits for such a keyring once, and not at each refresh of a token.
"""

import os
import threading
from functools import cache
from typing import Any, Final

from heksher_client._runtime.worker_threads import DetachedCall
from heksher_client.exceptions import ConfigError

TIMEOUT_SECONDS: Final = 10.0
"""The time in which a user can unlock the keyring."""
_SERVICE: Final = "heksher-client"
"""The service name of all entries."""
_REMEDY: Final = "sign in again, or sign out in a session where it is"


class KeyringTimeoutError(ConfigError):
    """The keyring does not respond."""


def call_keyring(method: str, entry: str, *arguments: str) -> Any:
    """Call a method of the keyring.

    Args:
        method: The name of a function of the package `keyring`.
        entry: The name of the entry in the keyring.
        *arguments: The other arguments of the method.

    Raises:
        KeyringTimeoutError: The call, or one before it, has not returned in time. The call may succeed later.
        ConfigError: No keyring is available, or the call failed.
    """
    lock, detached = _thread_of_process(os.getpid())
    with lock:  # Another thread may be in a call that returns.
        outcome = detached.call(lambda: _call(method, entry, *arguments), TIMEOUT_SECONDS)
    if outcome is None:
        raise timeout_error("or sign in again")
    result, error = outcome
    if error is not None:
        raise ConfigError(error)
    return result


def timeout_error(alternative: str) -> KeyringTimeoutError:
    """Return the error of a keyring that does not respond, with what to do in addition to unlocking it, or instead."""
    return KeyringTimeoutError(
        f"the system keyring does not respond within {TIMEOUT_SECONDS:g} seconds: it may wait until a user unlocks it; "
        f"unlock it, {alternative}"
    )


@cache
def _thread_of_process(process_id: int) -> tuple[threading.Lock, DetachedCall]:  # noqa: ARG001
    """Return the thread for calls, of which the child of a fork needs its own."""
    return threading.Lock(), DetachedCall()


def _call(method: str, entry: str, *arguments: str) -> tuple[Any, str | None]:
    """Call a method of the keyring, in the thread for calls. Loading a keyring may take forever as well.

    Returns:
        The result, and the message of the error if there is one.
    """
    unavailable = "the tokens are in the system keyring, which is not available in this session"
    try:
        try:
            import keyring
            from keyring.backends import fail, null
        except ImportError:
            return None, f"{unavailable}: {_REMEDY} (the extra `login` is not installed)"
        if isinstance(keyring.get_keyring(), fail.Keyring | null.Keyring):
            return None, f"{unavailable}: {_REMEDY}"
        return getattr(keyring, method)(_SERVICE, entry, *arguments), None
    except Exception as error:  # Each backend has its own error classes.
        return None, f"the system keyring refused access ({type(error).__name__}): unlock it"
    except BaseException as error:  # A `SystemExit` would end this thread only.
        return None, f"the system keyring failed ({type(error).__name__}): choose another backend, or sign in again"
