"""What one client knows of each setting in the service: whether it is declared, its name there, and what was loaded."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from heksher_client._core.refresh.decoding import DecodedRules
from heksher_client._core.refresh.status import SettingStatus
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.entry import Entry
from heksher_client._logging import escaped

AnyEntry = Entry[Any]


@dataclass(frozen=True, slots=True)
class AppliedUpdate:
    """What was made of the service's answer for a setting, and under which conditions."""

    converted: DecodedRules
    validators: tuple[Any, ...]
    tracking: Tracking
    order: tuple[str, ...]
    digest: bytes
    """Of the answer's bytes: whatever has the same is the same."""


@dataclass(slots=True)
class SettingState:
    canonical: str
    """The name that the service answers under."""
    declare_at: float | None = None
    """When to declare it again, by the session's clock; None if there is nothing more to declare."""
    is_there: bool = True
    """Whether the service has it, so that it can be asked for."""
    loaded: AppliedUpdate | None = None
    outcome: str | None = None
    """Of the declaration."""
    problem: Exception | None = None
    """What it was refused with."""
    trouble: Exception | None = None
    """Why the last answer brought nothing for it."""


REFUSED: Final = "refused"
"""Not the service's word: it did not take the declaration as such."""
_UNKNOWN: Final = SettingState("")


class SettingStates:
    """The standing of all settings that were ever declared. Settings are held weakly."""

    def __init__(self) -> None:
        self._standings: WeakKeyDictionary[AnyEntry, SettingState] = WeakKeyDictionary()

    def is_due(self, setting: AnyEntry, now: float) -> bool:
        """Whether a setting is to be declared: it never was, or is to be again and the time has come."""
        standing = self._standings.get(setting)
        return standing is None or (standing.declare_at is not None and standing.declare_at <= now)

    def accept(self, setting: AnyEntry, canonical: str, outcome: str) -> None:
        """Note that the service has a setting, under this name, and what it said of the declaration."""
        self._standings[setting] = SettingState(canonical, outcome=outcome)

    def refuse(self, setting: AnyEntry, declare_at: float, problem: Exception) -> None:
        """Note that the service does not have a setting, why, and when to declare it again."""
        problem = problem.with_traceback(None)  # whose frames would be kept as long as it is
        self._standings[setting] = SettingState(
            setting.name, declare_at, is_there=False, outcome=REFUSED, problem=problem
        )

    def lose(self, setting: AnyEntry) -> None:
        """Note that the service seems to have lost a setting, which is to be declared again at once."""
        self._standings[setting].declare_at = -math.inf

    def rename(self, setting: AnyEntry, canonical: str) -> None:
        """Note the name that the service answers under from now on."""
        self._standings[setting].canonical = canonical

    def load(self, setting: AnyEntry, loaded: AppliedUpdate | None) -> None:
        """Note what was put in place for a setting; None to have it asked for in full next time."""
        standing = self._standings[setting]
        standing.loaded, standing.trouble = loaded, None

    def fail(self, setting: AnyEntry, trouble: Exception) -> None:
        """Note why an answer brought nothing for a setting, which is to be asked for in full next time."""
        standing = self._standings[setting]
        standing.loaded, standing.trouble = None, trouble.with_traceback(None)

    def status(self, setting: AnyEntry) -> SettingStatus:
        """What is known of a setting. May be called from any thread."""
        standing = self._standings.get(setting, _UNKNOWN)
        loaded, problem = standing.loaded, standing.problem or standing.trouble
        return SettingStatus(
            declaration=standing.outcome,
            problem=None if problem is None else escaped(str(problem)),
            canonical_name=standing.canonical or setting.name,
            rules=len(setting.rule_set),
            rejected=loaded.converted.rejected if loaded else 0,
            first_rejected=loaded.converted.first_rejected if loaded else (),
        )

    def problem(self, setting: AnyEntry) -> Exception | None:
        """What the declaration of a setting was refused with, if it is."""
        return self._standings.get(setting, _UNKNOWN).problem

    def loaded(self, setting: AnyEntry) -> AppliedUpdate | None:
        """What a setting has from this client, if it has anything."""
        return self._standings[setting].loaded

    def is_up_to_date(self, setting: AnyEntry) -> bool:
        """Whether a setting has what the service sent last."""
        standing = self._standings.get(setting)
        return standing is not None and standing.loaded is not None

    def by_name(self, settings: Iterable[AnyEntry]) -> dict[str, list[AnyEntry]]:
        """Those of the settings that the service has, by the name that it answers under."""
        wanted: dict[str, list[AnyEntry]] = {}
        for setting in settings:
            standing = self._standings.get(setting)
            if standing is not None and standing.is_there:
                wanted.setdefault(standing.canonical, []).append(setting)
        return wanted

    def is_current(self, setting: AnyEntry, tracking: Tracking, order: tuple[str, ...]) -> bool:
        """Whether a setting has what this client put in place, and would get the same if it were converted again.

        Only then "unchanged" means that there is nothing to do: not after another client or a stub, not with a new
        validator, other tracking or another order.
        """
        loaded = self._standings[setting].loaded
        return (
            loaded is not None
            and loaded.converted.rule_set is setting.rule_set
            and loaded.validators is setting.validators
            and loaded.tracking is tracking
            and loaded.order == order
        )

    def is_loaded(self, setting: AnyEntry, digest: bytes, tracking: Tracking, order: tuple[str, ...]) -> bool:
        """Whether a setting has what would be made of the answer with this digest."""
        loaded = self._standings[setting].loaded
        return loaded is not None and loaded.digest == digest and self.is_current(setting, tracking, order)
