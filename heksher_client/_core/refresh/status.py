"""What `client.status()` tells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

RefreshCallbackT = TypeVar("RefreshCallbackT", bound=Callable[["Refresh"], object])


class State(StrEnum):
    """How a client fares. The values are the words themselves, so that they can go into JSON as they are."""

    STARTING = "starting"
    """The first refresh has not ended yet, or there was none."""
    FRESH = "fresh"
    """The last refresh went well."""
    FAILING = "failing"
    """The last refresh failed, wholly or for some settings; what reads give is not stale yet."""
    STALE = "stale"
    """Nothing was received for too long (`stale_after`), or never."""
    CLOSED = "closed"


class RejectedRule(NamedTuple):
    """A rule of the service that is not used."""

    rule_id: Any
    """None where it has none."""
    reason: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """A refresh that has ended."""

    started_at: float
    """Seconds since 1970."""
    seconds: float
    """How long it took."""
    errors: tuple[Exception, ...]
    """What failed, wholly or for some settings: the first is what `on_update_error` gets. Nothing if it went well."""
    changed: tuple[str, ...]
    """The settings for which something was put in place, mostly as it has changed. `on_change` tells what differs."""


@dataclass(frozen=True, slots=True)
class SettingStatus:
    """What a client knows of one setting."""

    declaration: str | None
    """The outcome of its declaration in the service's words (`"created"`, `"uptodate"`, `"rejected"`...), `"refused"`
    where the service refused it as such, or None if there was no answer yet."""
    problem: str | None
    """Why it is not up to date, where that is its own matter: it was refused, or what came for it could not be used."""
    canonical_name: str
    """The name that the service answers under."""
    rules: int
    """How many are in use."""
    rejected: int
    """How many are not used."""
    first_rejected: tuple[RejectedRule, ...]
    """The first of these, 20 at the most."""


@dataclass(frozen=True, slots=True)
class Status:
    """A client at one moment. Times are seconds since 1970, as `time.time()` gives them."""

    state: State
    age: float | None
    """Seconds since the service last said what the rules are, or that they have not changed; None if it never did. For
    rules from a last known good file, since that was confirmed."""
    last_success: float | None
    """When a refresh last went well for all settings."""
    last_error: str | None
    """The last error's text, in one line."""
    last_error_at: float | None
    failures: int
    """How many refreshes in a row have failed."""
    next_attempt: float | None
    """Seconds until the next refresh, 0 if it is under way or due; None if there will be none."""
    is_main: bool
    """Whether settings are read from this client."""
    is_following: bool
    """Whether changes are heard of as they are made, and not only at the next refresh."""
    is_last_known_good: bool
    """Whether settings still have rules from a last known good file."""
    last_known_good_problem: str | None
    """Why the last known good file cannot be written or used; None if it can, or if there is to be none."""
    settings: Mapping[str, SettingStatus]
    """By the name that they are declared with."""

    @property
    def is_healthy(self) -> bool:
        """Whether reads give what the service holds, or held a short while ago."""
        return self.state in (State.FRESH, State.FAILING)

    @property
    def rules(self) -> int:
        """How many rules are in use."""
        return sum(setting.rules for setting in self.settings.values())

    @property
    def rejected(self) -> int:
        """How many rules of the service are not used."""
        return sum(setting.rejected for setting in self.settings.values())
