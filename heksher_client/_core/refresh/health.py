"""What is wrong at present: said once when it begins, when it changes and when it ends, and now and then in between."""

import re
from collections.abc import Sequence
from typing import Final

from heksher_client._logging import logger
from heksher_client.exceptions import UnexpectedResponseError

REMINDED_AFTER: Final = 300.0
"""Seconds after which a fault that lasts is logged again."""
_FLAPPING: Final = 60.0
"""Seconds within which a fault that has ended and comes back is the same one."""
_MOST_REMEMBERED: Final = 1000


class ErrorLog:
    """The faults of one client, as its log knows them."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}
        """When each fault was logged last."""
        self._is_said = False
        """Whether any was logged since the last refresh that went well."""
        self._ended: float | None = None
        """When the last one ended, unless another one has begun."""
        self._began: float | None = None
        self._attempts = 0

    def note(self, failures: Sequence[Exception], now: float) -> None:
        """Log what is new, or lasts, or has passed.

        Args:
            failures: Everything that failed in a refresh; nothing if it went well.
            now: By the session's clock.
        """
        if not failures:
            self._end(now)
            return
        if self._ended is not None and now - self._ended >= _FLAPPING:
            self._logged_at = {}
        self._ended = None
        self._began = now if self._began is None else self._began
        self._attempts += 1
        # One that is absent for a while is still known: behind a balancer two faults may take turns.
        self._logged_at = {what: at for what, at in self._logged_at.items() if now - at < REMINDED_AFTER}
        for failure in failures[:_MOST_REMEMBERED]:
            what = _essence(failure)
            if what not in self._logged_at:
                logger.error("refresh failed: %s", failure, extra={"error": failure, "attempts": self._attempts})
                self._logged_at[what] = now
                self._is_said = True

    def _end(self, now: float) -> None:
        if self._began is None:
            return
        if self._is_said:
            seconds = now - self._began
            logger.info(
                "the refresh succeeds again, after %d failures in %.0f seconds",
                self._attempts,
                seconds,
                extra={"attempts": self._attempts, "seconds": seconds},
            )
        self._ended, self._began, self._attempts, self._is_said = now, None, 0, False


def _essence(failure: Exception) -> str:
    """What makes two failures the same fault: not the numbers in its text, which may be ports, times and ids."""
    text, status = str(failure), getattr(failure, "status", None)
    if isinstance(failure, UnexpectedResponseError) and (status or 0) >= 400:
        text = text.partition(": ")[0]  # What the answer says may have the id of the request in it.
    return f"{type(failure).__name__} {status}: {_NUMBER.sub('#', text)}"


_NUMBER: Final = re.compile(r"\b(?:[0-9]+|0x[0-9a-fA-F]+|[0-9a-fA-F]{8}[0-9a-fA-F-]*)\b")
"""Or an address, or an id in hexadecimal digits; not the digits in a name."""
