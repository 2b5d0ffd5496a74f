"""The last known good: what was received is kept beyond the end of the process, and is there for a start without the
service."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import msgspec

from heksher_client._core.contexts import Tracking
from heksher_client._core.loading import Loading, Prepared
from heksher_client._core.logs import logger
from heksher_client._core.protocol import Flow, aside
from heksher_client._core.rules import Reason, RuleSet
from heksher_client._core.standings import AnySetting
from heksher_client.exceptions import UnexpectedResponseError


class NotKeptError(Exception):
    """There is nothing to go back to, or nothing that may be used; the text says why."""


@dataclass(frozen=True, slots=True)
class KeptSetting:
    """What was last received for a setting."""

    answer: msgspec.Raw
    """As the service gave it."""
    tracking: Tracking
    """What was tracked then: other rules may not be in the answer."""
    age: float = 0.0
    """Seconds since the service last confirmed it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was last received, by this process or one before it."""

    settings: Mapping[str, KeptSetting]
    """By the names of the settings, as they are declared."""
    order: tuple[str, ...]
    """The context features in the service's order."""


class Keeper(Protocol):
    """Keeps what was last received. Its calls may wait for a disk."""

    def load(self) -> Kept:  # pragma: no cover - a protocol
        """Give back what was kept.

        Raises:
            NotKeptError: It is not there, or not to be used.
            OSError: It cannot be read.
        """
        ...

    def save(
        self, new: Mapping[str, KeptSetting], held: Mapping[str, bytes], order: tuple[str, ...]
    ) -> Collection[str]:  # pragma: no cover - a protocol
        """Keep what is new, beside what was kept before, and note that the rest of it still holds.

        Args:
            new: What there is to keep for settings that have something else now.
            held: The digests of what all settings have that are up to date.
            order: The context features in the service's order.

        Returns:
            The names of settings for which something else is kept, or nothing, and that are not new.

        Raises:
            OSError: It cannot be written.
        """
        ...


class Recalled(NamedTuple):
    """What is to be put in place of what was kept."""

    prepared: list[Prepared]
    order: tuple[str, ...]
    age: float
    """Seconds since the oldest of it was confirmed."""


class Keeping:
    """What one client has kept, and has recalled."""

    def __init__(self, keeper: Keeper | None) -> None:
        """Make one; without a keeper it keeps nothing."""
        self._keeper = keeper
        self._recalled: WeakKeyDictionary[AnySetting, RuleSet[Any] | None] = WeakKeyDictionary()
        """What was kept for settings, of those for which it was looked up."""
        self._unsaved: dict[str, KeptSetting] = {}
        """What could not be kept yet."""
        self._problem = ""
        """Why, as it was logged."""

    def recall(
        self, settings: Iterable[AnySetting], loading: Loading, tracking: Tracking, order: tuple[str, ...] | None
    ) -> Flow[Recalled | None]:
        """Convert what was kept for those settings that have got nothing from the service yet.

        Args:
            settings: All there are.
            loading: Converts it.
            tracking: What must have been tracked when it was received.
            order: The service's order of context features, if it is known.

        Returns:
            What is to be put in place, and None if there is nothing to look up, or nothing to look it up in.
        """
        lacking = [setting for setting in settings if setting not in self._recalled and _has_nothing(setting)]
        kept = (yield from self._load()) if lacking else None
        if kept is None:
            return None
        recalled = Recalled([], order or kept.order, 0.0)
        for setting in lacking:
            self._recalled[setting] = None
            known = kept.settings.get(setting.name)
            if known is None:
                continue
            try:
                prepared = yield from _convert(setting, known, loading, tracking, recalled.order)
            except (NotKeptError, UnexpectedResponseError) as error:
                logger.warning("there is no last known good of setting %s: %s", setting.name, error)
                continue
            recalled = recalled._replace(prepared=[*recalled.prepared, prepared], age=max(recalled.age, known.age))
        logger.warning(
            "%d settings have their last known good, of %.0f seconds ago; %d have none",
            len(recalled.prepared),
            recalled.age,
            len(lacking) - len(recalled.prepared),
            extra={"age": recalled.age, "settings": [prepared.setting.name for prepared in recalled.prepared]},
        )
        return recalled

    def note(self, setting: AnySetting, rule_set: RuleSet[Any]) -> None:
        """Note that what was recalled is in place."""
        self._recalled[setting] = rule_set

    def is_recalled(self, setting: AnySetting) -> bool:
        """Whether a setting has rules that were kept, and none from the service since then."""
        return self._recalled.get(setting) is setting._reader.view.rule_set

    def save(
        self, prepared: Iterable[Prepared], held: Mapping[str, bytes], tracking: Tracking, order: tuple[str, ...]
    ) -> Flow[Collection[str]]:
        """Have what was put in place kept.

        Args:
            prepared: What is new.
            held: As in `Keeper.save`.
            tracking: What was tracked when it was received.
            order: As in `Keeper.save`.

        Returns:
            The names of settings that are to be asked for again, to be kept.
        """
        if self._keeper is None:
            return ()
        new = {p.setting.name: KeptSetting(p.answer, tracking) for p in prepared if p.answer is not None}
        new = self._unsaved | new
        try:
            lacking = yield from aside(partial(self._keeper.save, new, held, order))
        except (NotKeptError, OSError) as error:
            self._log_problem("the last known good cannot be kept: %s", error)
            self._unsaved = {name: replace(kept, answer=kept.answer.copy()) for name, kept in new.items()}
            return ()
        self._problem, self._unsaved = "", {}
        return lacking

    def _load(self) -> Flow[Kept | None]:
        if self._keeper is None:
            return None
        try:
            return (yield from aside(self._keeper.load))
        except (NotKeptError, OSError) as error:
            self._log_problem("there is no last known good to start from: %s", error)
            return None

    def _log_problem(self, message: str, error: Exception) -> None:
        if str(error) != self._problem:
            logger.warning(message, error, extra={"error": error})
        self._problem = str(error)


def _has_nothing(setting: AnySetting) -> bool:
    """Whether a setting has neither got anything from the service, nor anything else in its place."""
    rule_set = setting._reader.view.rule_set
    return rule_set.default_reason is Reason.DECLARED_DEFAULT and len(rule_set) == 0


def _convert(
    setting: AnySetting, kept: KeptSetting, loading: Loading, tracking: Tracking, order: tuple[str, ...]
) -> Flow[Prepared]:
    if not kept.tracking.covers(tracking, setting.configurable_features):
        raise NotKeptError("when it was received, fewer contexts were tracked than now")
    digest = yield from loading.digest(kept.answer)
    (prepared,) = yield from loading.convert(setting.name, kept.answer, digest, [setting], tracking, order)
    return prepared
