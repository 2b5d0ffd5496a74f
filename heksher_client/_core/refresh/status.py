"""The values that `client.status()` and the callbacks of `on_refresh` receive."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

RefreshCallbackT = TypeVar("RefreshCallbackT", bound=Callable[["Refresh"], object])


class State(StrEnum):
    """The state of a client. A member is its own text, and so can be written to JSON."""

    STARTING = "starting"
    """The first refresh has not ended yet."""
    FRESH = "fresh"
    """The last refresh succeeded."""
    FAILING = "failing"
    """The last refresh failed, completely or for some settings; the values are not stale yet."""
    STALE = "stale"
    """The values have not been confirmed for `stale_after` seconds, or never."""
    CLOSED = "closed"


class RejectedRule(NamedTuple):
    """A rule of the service that is not used."""

    rule_id: Any
    """None if it has none."""
    reason: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """The result of a refresh."""

    started_at: float
    """Seconds since 1970."""
    seconds: float
    """The duration."""
    errors: tuple[Exception, ...]
    """The failures, complete or of some settings, also those that were reported before. Empty after a success."""
    changed: tuple[str, ...]
    """The names of the settings whose rules were replaced, usually because they changed. See `on_change` for the
    differences."""


@dataclass(frozen=True, slots=True)
class SettingStatus:
    """The status of one setting."""

    declaration: str | None
    """The outcome of its declaration in the service's words (`"created"`, `"uptodate"`, `"rejected"`...), `"refused"`
    if the service did not accept it as a declaration, or None if there was no response yet."""
    problem: str | None
    """Why this setting is not up to date: its declaration was refused, or its rules could not be used."""
    canonical_name: str
    """Its name in the service."""
    rules: int
    """The number of rules in use."""
    rejected: int
    """The number of rules that are not used."""
    first_rejected: tuple[RejectedRule, ...]
    """The first 20 of these."""
    next_attempt: float | None = None
    """Seconds until it is declared or queried again because of the problem, 0 if that is due; None without a problem.
    The time of the other settings does not depend on it."""


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a client. Times are seconds since 1970, as of `time.time()`."""

    state: State
    age: float | None
    """Seconds since the service last confirmed the rules, changed or not; None if it never did. Rules from a last known
    good file have the age of their last confirmation. A setting with a problem of its own does not count, as long as
    the service confirms the others."""
    last_success: float | None
    """The time of the last refresh that succeeded for all settings."""
    last_error: str | None
    """The text of the last error, in one line."""
    last_error_at: float | None
    failures: int
    """The number of failed refreshes in a row."""
    next_attempt: float | None
    """Seconds until the next refresh, 0 if it is running or due; None if there will be none. A single setting with a
    problem has a time of its own in addition: see `SettingStatus.next_attempt`."""
    is_main: bool
    """True if settings are read from this client."""
    is_following: bool
    """True while the service announces changes as they are made: after the first event or comment."""
    change_stream_problem: str | None
    """Why the stream of changes was refused, or has ended; None while it is open, if the service does not announce one,
    and with `follow_changes=False`. Settings are then refreshed at intervals, so this does not concern the state."""
    is_last_known_good: bool
    """True if settings still have rules from a last known good file."""
    last_known_good_problem: str | None
    """Why the last known good file cannot be written or used; None if it can, or if there is none."""
    settings: Mapping[str, SettingStatus]
    """By declared name."""
    problem: str | None = None
    """Why refreshes cannot go on as they should in this process; None if they can."""
    iterators: Mapping[str, int] = field(default_factory=dict)
    """By the name that the program gave to an iterator: the number of changes that it has not taken yet, at most one
    for each setting. A watch has 1 if there may be another value."""

    @property
    def is_healthy(self) -> bool:
        """True if values are those of the service, or were a short time ago."""
        return self.state in (State.FRESH, State.FAILING)

    @property
    def rules(self) -> int:
        """The number of rules in use."""
        return sum(setting.rules for setting in self.settings.values())

    @property
    def rejected(self) -> int:
        """The number of rules that are not used."""
        return sum(setting.rejected for setting in self.settings.values())
