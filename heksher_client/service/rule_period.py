"""The period in which a rule applies. A rule with a start or an end is temporary."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple


class Period(NamedTuple):
    """A period with its start, and without its end."""

    starts_at: datetime | None = None
    """None if the rule applies from the beginning."""
    ends_at: datetime | None = None
    """None if the rule applies until it is deleted."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Period":
        """Return the period in an object that contains the values of `as_json`, and perhaps others."""
        return cls(*(datetime.fromisoformat(values[name]) if name in values else None for name in cls._fields))

    @property
    def is_empty(self) -> bool:
        """True if the period ends before it begins, or at the same time."""
        return self.starts_at is not None and self.ends_at is not None and self.ends_at <= self.starts_at

    def contains(self, at: datetime) -> bool:
        """Return True if a time is in the period."""
        return (self.starts_at is None or self.starts_at <= at) and (self.ends_at is None or at < self.ends_at)

    def next_transition(self, after: datetime) -> datetime | None:
        """Return the first time after another one at which the period begins or ends; None if there is none."""
        return min((at for at in self if at is not None and at > after), default=None)

    def as_json(self) -> dict[str, str]:
        """Return the limits that the period has, in JSON values: times in UTC."""
        limits = {"starts_at": self.starts_at, "ends_at": self.ends_at}
        return {name: at.astimezone(UTC).isoformat() for name, at in limits.items() if at is not None}


ALWAYS: Final = Period()
"""The period of permanent rules."""
