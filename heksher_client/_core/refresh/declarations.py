"""Declarations of settings: when each is sent, and sent again; which are not sent; and what their outcomes mean."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.decoding import decode_default
from heksher_client._core.refresh.effects import (
    MAX_CONCURRENT_REQUESTS,
    ApplyLocked,
    Exchange,
    Flow,
    Pause,
    Reply,
    Response,
)
from heksher_client._core.refresh.protocol import DeclarationOutcome, SettingData
from heksher_client._core.refresh.publisher import AnyEntry, Publisher, RefreshResult
from heksher_client._core.refresh.setting_state import SettingStates
from heksher_client._core.settings.rules import Reason
from heksher_client._logging import logger
from heksher_client.exceptions import DeclarationError, ServiceUnavailableError, UnexpectedResponseError

_RACE_RETRIES: Final = (0.1, 0.4)
"""Seconds before a declaration that got a 500 is sent again. If several processes declare a new setting at the same
moment, some of them get a 500; a moment later the setting is up to date."""
_BATCH_SIZE: Final = 60
"""Declarations that are sent before their outcomes are checked. If the first ones fail because the service does, the
others are not sent."""
_REFUSED_RETRY: Final = 300.0
"""Seconds before a refused declaration is sent again: somebody has to change the setting or the service."""


class Declarations:
    """Declares the settings of one client."""

    def __init__(self, states: SettingStates, publisher: Publisher, clock: Callable[[], float]) -> None:
        self._states, self._publisher, self._clock = states, publisher, clock

    def declare(self, entries: Iterable[AnyEntry], result: RefreshResult, *, is_awaited: bool = False) -> Flow[None]:
        """Declare the settings that are due, each distinct declaration once.

        Args:
            entries: The settings.
            result: Receives the failures.
            is_awaited: Whether the refresh is awaited. Then refused declarations are due as well: the caller may have
                fixed the reason.

        Raises:
            UnexpectedResponseError: The service failed, so that other declarations would fail too.
        """
        now = math.inf if is_awaited else self._clock()
        due: dict[bytes, list[AnyEntry]] = {}
        for entry in entries:
            if self._states.is_due(entry, now):
                due.setdefault(entry.declaration.body, []).append(entry)
        if not due:
            return
        yield from self._skip_known(due)
        for batch in _batches(list(due.items())):
            replies = yield from _send([body for body, _ in batch])
            for (_, same), reply in zip(batch, replies, strict=True):
                yield from self._process(same, reply, result)

    def _skip_known(self, due: dict[bytes, list[AnyEntry]]) -> Flow[None]:
        """Remove the declarations of settings that the service has exactly like this."""
        if len(due) <= MAX_CONCURRENT_REQUESTS:
            return  # Declaring all of them at once is as fast as asking first.
        (reply,) = yield Exchange((protocol.SETTINGS,))
        try:
            known = protocol.parse_settings(reply)
        except (ServiceUnavailableError, UnexpectedResponseError) as error:
            logger.info("declaring all settings, as the service did not list those that it has: %s", error)
            return
        for body, same in list(due.items()):
            if is_up_to_date(same[0], known.get(same[0].name)):
                del due[body]
                for entry in same:
                    self._states.mark_declared(entry, entry.name, protocol.UPTODATE)

    def _process(self, entries: Sequence[AnyEntry], reply: Reply, result: RefreshResult) -> Flow[None]:
        """Record the outcome of one declaration."""
        try:
            outcome = protocol.parse_declaration(reply, entries[0].name)
        except DeclarationError as error:
            self.record_refusal(entries, error, result)
        except UnexpectedResponseError as error:
            if error.status != 500:
                raise  # It does not concern this setting, so the others would fail as well.
            result.failures.append(error)
        else:
            for entry in entries:
                yield from self._accept(entry, outcome, result)

    def _accept(self, entry: AnyEntry, outcome: DeclarationOutcome, result: RefreshResult) -> Flow[None]:
        # If the declaration was accepted as the newest, a difference in the name is the former name of the setting.
        is_newest = outcome.outcome not in (protocol.OUTDATED, protocol.REJECTED, protocol.MISMATCH)
        name = None if is_newest else outcome.latest("name")
        self._states.mark_declared(entry, name if isinstance(name, str) else entry.name, outcome.outcome)
        _log(entry, outcome)
        if outcome.outcome != protocol.OUTDATED or (raw := outcome.latest("default_value")) is None:
            return
        default, reason = decode_default(entry, raw)

        def apply() -> None:
            former = entry.published.rule_set
            rule_set = replace(former, default=default, default_reason=reason)
            if self._publisher.publish({entry: rule_set}, result):
                self._states.mark_default_replaced(entry, former, rule_set)

        yield ApplyLocked(apply)

    def record_refusal(self, entries: Iterable[AnyEntry], error: DeclarationError, result: RefreshResult) -> None:
        """Record that the service refused the declaration of settings.

        They are declared again after some minutes. But soon if a service has served one before, as then something else
        is more likely to have responded in its place.
        """
        result.failures.append(error)
        for entry in entries:
            was_served = entry.published.rule_set.default_reason is Reason.SERVER_DEFAULT
            self._states.mark_refused(entry, self._clock() + (0 if was_served else _REFUSED_RETRY), error)


def is_up_to_date(entry: AnyEntry, known: SettingData | None) -> bool:
    """True if the service has a setting exactly as it is declared, so that the outcome would be "uptodate"."""
    if known is None:
        return False
    declaration = orjson.loads(entry.declaration.body)
    alias = declaration.pop("alias", None)
    in_service = {key: getattr(known, key) for key in declaration}
    return (alias is None or alias in known.aliases) and _canonical(declaration) == _canonical(in_service)


def _canonical(declaration: dict[str, Any]) -> str:
    """Return a declaration as text: in Python, but not in JSON, 1, 1.0 and True are equal. The order of features is the
    service's own."""
    features = sorted(declaration["configurable_features"], key=str)
    return json.dumps({**declaration, "configurable_features": features}, sort_keys=True)


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _BATCH_SIZE):
        yield items[start : start + _BATCH_SIZE]


def _send(bodies: Sequence[bytes]) -> Flow[list[Reply]]:
    """Send declarations, and those that lost a race again. Return the last reply to each."""
    replies: list[Reply] = list((yield Exchange(tuple(map(protocol.declare, bodies)))))
    for delay in _RACE_RETRIES:
        failed = [i for i, reply in enumerate(replies) if isinstance(reply, Response) and reply.status == 500]
        if not failed:
            break
        yield Pause(delay)
        again = yield Exchange(tuple(protocol.declare(bodies[i]) for i in failed))
        for i, reply in zip(failed, again, strict=True):
            replies[i] = reply
    return replies


def _log(entry: AnyEntry, outcome: DeclarationOutcome) -> None:
    """Log a conflict as an error, and an outdated version as a warning or less."""
    version = entry.declaration.version
    extra = {
        "setting": entry.name,
        "outcome": outcome.outcome,
        "differences": list(outcome.differences),
        "declared_version": version,
        "latest_version": outcome.latest_version,
        "detail": outcome.detail,
    }
    if outcome.outcome in (protocol.REJECTED, protocol.MISMATCH, protocol.CONFLICT):
        logger.error(
            "the declaration of setting %s conflicts with the service's (%s): %s",
            entry.name,
            outcome.outcome,
            outcome.detail or list(outcome.differences),
            extra=extra,
        )
    elif outcome.outcome == protocol.OUTDATED:
        is_major = (outcome.latest_version or "").partition(".")[0] != version.partition(".")[0]
        logger.log(
            logging.WARNING if is_major else logging.INFO,
            "the declaration of setting %s is outdated: it has version %s, the service has %s",
            entry.name,
            version,
            outcome.latest_version,
            extra=extra,
        )
