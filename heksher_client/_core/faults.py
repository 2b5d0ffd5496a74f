"""What is wrong at present: said once when it begins, when it changes and when it ends, and now and then in between."""

import re
from collections.abc import Sequence
from typing import Final

from heksher_client._core.logs import logger

REMINDED_AFTER: Final = 300.0
"""Seconds after which a fault that lasts is logged again."""
_MOST_REMEMBERED: Final = 1000


class Faults:
    """The faults of one client, as its log knows them."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}
        """When each fault was logged last."""
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
        self._began = now if self._began is None else self._began
        self._attempts += 1
        # One that is absent for a while is still known: behind a balancer two faults may take turns.
        self._logged_at = {what: at for what, at in self._logged_at.items() if now - at < REMINDED_AFTER}
        for failure in failures[:_MOST_REMEMBERED]:
            what = _essence(failure)
            if what not in self._logged_at:
                logger.error("refresh failed: %s", failure, extra={"error": failure, "attempts": self._attempts})
                self._logged_at[what] = now

    def _end(self, now: float) -> None:
        if self._began is not None:
            seconds = now - self._began
            logger.info(
                "the refresh succeeds again, after %d failures in %.0f seconds",
                self._attempts,
                seconds,
                extra={"attempts": self._attempts, "seconds": seconds},
            )
        self._logged_at, self._began, self._attempts = {}, None, 0


def _essence(failure: Exception) -> str:
    """What makes two failures the same fault: not the numbers in its text, which may be ports, times and ids."""
    return f"{type(failure).__name__} {getattr(failure, 'status', '')}: {_NUMBER.sub('#', str(failure))}"


_NUMBER: Final = re.compile(r"\b(?:[0-9]+|0x[0-9a-fA-F]+|[0-9a-fA-F]{8}[0-9a-fA-F-]*)\b")
"""Or an address, or an id in hexadecimal digits; not the digits in a name."""
