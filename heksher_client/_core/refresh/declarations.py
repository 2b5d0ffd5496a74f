"""Declarations of settings: when each is sent, and sent again; which are not sent; and what their outcomes mean."""

import json
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import orjson
from msgspec.structs import replace

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
from heksher_client._core.refresh.positions import Positions
from heksher_client._core.refresh.protocol import DeclarationOutcome, SettingData
from heksher_client._core.refresh.publisher import AnyEntry, Publisher, RefreshResult
from heksher_client._core.refresh.responses import with_prefix
from heksher_client._core.refresh.setting_state import SettingStates
from heksher_client._core.settings.declaration import Declaration
from heksher_client._core.settings.rules import Reason
from heksher_client._logging import logger
from heksher_client.exceptions import DeclarationError, HeksherError, ServiceUnavailableError, UnexpectedResponseError

_RACE_RETRIES: Final = (0.1, 0.4)
"""Seconds before a declaration that got a 500 is sent again. If several processes declare a new setting at the same
moment, some of them get a 500; a moment later the setting is up to date."""
_BATCH_SIZE: Final = 60
"""Declarations that are sent before their outcomes are checked. If the first ones fail because the service does, the
others are not sent."""
_FIRST_VERSION: Final = "1.0"
"""The only version that the service accepts of a setting that it does not have."""

Attempt: TypeAlias = Generator[bytes, Reply, DeclarationOutcome]
"""Yields the declarations to send for one setting, one after the other, and is sent the replies."""


class Declarations:
    """Declares the settings of one client."""

    def __init__(self, states: SettingStates, publisher: Publisher, positions: Positions) -> None:
        self._states, self._publisher, self._positions = states, publisher, positions
        self._defaults: dict[AnyEntry, tuple[Any, Reason]] = {}
        """The defaults of the service that responses to declarations had, until the end of the refresh."""

    def declare(self, entries: Iterable[AnyEntry], result: RefreshResult) -> Flow[None]:
        """Declare the settings that are due, each distinct declaration once.

        Args:
            entries: The settings.
            result: Receives the failures.

        Raises:
            HeksherError: The service failed, and has no setting yet that could be refreshed nevertheless.
        """
        due: dict[bytes, list[AnyEntry]] = {}
        for entry in entries:
            if self._states.is_due(entry):
                due.setdefault(entry.declaration.body, []).append(entry)
        if not due:
            return
        yield from self._skip_known(due)
        batches = list(_batches(list(due.values())))
        for i, batch in enumerate(batches):
            failures = yield from self._declare_batch(batch, result)
            if len(failures) == len(batch):  # It need not concern these settings, so the others may fail as well.
                self._give_up([same for later in batches[i + 1 :] for same in later], failures[0])
                return

    def _declare_batch(self, batch: Sequence[Sequence[AnyEntry]], result: RefreshResult) -> Flow[list[HeksherError]]:
        """Send declarations, and record their outcomes. Return the errors of those that have none."""
        outcomes = yield from _send([same[0].declaration for same in batch], self._positions)
        failures = []
        for same, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, DeclarationOutcome):
                for entry in same:
                    self._accept(entry, outcome)
            elif isinstance(outcome, DeclarationError):
                self.record_refusal(same, outcome, result)
            else:
                failures.append(outcome)
                self._record_failure(same, outcome, result)
        return failures

    def _give_up(self, unsent: Iterable[Sequence[AnyEntry]], error: HeksherError) -> None:
        """Send no more declarations in this refresh. If other settings can be refreshed, only these are tried again.

        Raises:
            HeksherError: There are no others.
        """
        if not self._states.by_canonical_name(self._publisher.entries()):
            raise error
        for same in unsent:
            for entry in same:
                self._states.mark_failed(entry, error)

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

    def _accept(self, entry: AnyEntry, outcome: DeclarationOutcome) -> None:
        # If the declaration was accepted as the newest, a difference in the name is the former name of the setting,
        # which another setting of the program may have.
        is_newest = outcome.outcome not in (protocol.OUTDATED, protocol.REJECTED, protocol.MISMATCH)
        other_name = outcome.latest("name")
        name = other_name if isinstance(other_name, str) and not is_newest else entry.name
        self._states.mark_declared(entry, name, outcome.outcome, outcome.detail)
        if is_newest and other_name is not None and other_name == entry.declaration.alias:
            self._states.rename_all(self._publisher.entries(), other_name, entry.name)
        _log(entry, outcome)
        raw = outcome.latest("default_value")
        if outcome.outcome != protocol.OUTDATED or outcome.is_older or raw is None:
            return
        # The query that follows has it as well.
        self._defaults[entry] = decode_default(entry, raw, is_logged=False)

    def publish_defaults(self, result: RefreshResult) -> Flow[None]:
        """Publish the defaults that responses to declarations had, for settings without a usable response to a query.

        Not before the query: its response may be older, and is used nevertheless.
        """
        defaults, self._defaults = self._defaults, {}
        lacking = {entry: new for entry, new in defaults.items() if self._states.of(entry).applied is None}

        def apply() -> None:
            former = {entry: entry.published.rule_set for entry in lacking}
            rule_sets = {
                entry: replace(former[entry], default=default, default_reason=reason)
                for entry, (default, reason) in lacking.items()
            }
            if not self._publisher.publish(rule_sets, result):
                return
            for entry, rule_set in rule_sets.items():
                self._states.mark_default_replaced(entry, former[entry], rule_set)
            self._positions.apply_declared()

        if lacking:
            yield ApplyLocked(apply)

    def record_refusal(self, entries: Iterable[AnyEntry], error: DeclarationError, result: RefreshResult) -> None:
        """Record that the service refused the declaration of settings. They are declared again later."""
        result.failures.append(error)
        for entry in entries:
            self._states.mark_refused(entry, error)

    def _record_failure(self, entries: Sequence[AnyEntry], error: HeksherError, result: RefreshResult) -> None:
        """Record that the declaration of settings had no outcome."""
        named = with_prefix(error, f"the declaration of setting {entries[0].name} failed")
        result.failures.append(named)
        for entry in entries:
            self._states.mark_failed(entry, named)


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


def _batches(due: Sequence[Sequence[AnyEntry]]) -> Iterator[Sequence[Sequence[AnyEntry]]]:
    """Split declarations, so that a setting comes before the one that names it as its alias."""
    while due:
        names = {same[0].name for same in due}
        ready = [same for same in due if same[0].declaration.alias not in names]
        later = [same for same in due if same[0].declaration.alias in names]
        if not ready:  # The aliases form a circle.
            ready, later = later, []
        due = later
        for start in range(0, len(ready), _BATCH_SIZE):
            yield ready[start : start + _BATCH_SIZE]


def _send(
    declarations: Sequence[Declaration[Any]], positions: Positions
) -> Flow[list[DeclarationOutcome | HeksherError]]:
    """Send declarations at the same time. Return the outcome or the error of each, and record their positions."""
    attempts = [_declare(declaration) for declaration in declarations]
    bodies = {i: next(attempt) for i, attempt in enumerate(attempts)}
    outcomes: dict[int, DeclarationOutcome | HeksherError] = {}
    while bodies:
        replies = yield from _exchange(list(bodies.values()))
        for i, reply in zip(list(bodies), replies, strict=True):
            try:
                bodies[i] = attempts[i].send(reply)
            except StopIteration as end:
                positions.record_declaration(reply)
                outcomes[i] = replace(end.value, is_older=positions.is_older(reply))
                del bodies[i]
            except HeksherError as error:
                outcomes[i] = error
                del bodies[i]
    return [outcomes[i] for i in range(len(attempts))]


def _declare(declaration: Declaration[Any]) -> Attempt:
    """Declare a setting. If the service has never seen it, go through what would have been its history.

    Raises:
        DeclarationError: The service refuses it, also as a new setting. The first reason comes first.
        HeksherError: There is no response, or it is not of the protocol.
    """
    reply = yield declaration.body
    try:
        return protocol.parse_declaration(reply, declaration.name, declaration.body)
    except DeclarationError as error:
        refusal = error
    try:
        outcome = yield from _declare_new(declaration, reply)
    except DeclarationError as error:
        reason = str(error).partition(": ")[2]
        combined = DeclarationError(f"{refusal}; then, as a new setting: {reason}")
        vars(combined).update(vars(refusal))
        raise combined from None
    if outcome is None:
        raise refusal
    return outcome


def _declare_new(declaration: Declaration[Any], refused: Reply) -> Generator[bytes, Reply, DeclarationOutcome | None]:
    """Declare a setting that the service does not have.

    The service accepts new settings with version 1.0 only, and only aliases that it has. After a rename, a setting was
    once declared with the alias as its name. So it is declared like that first, and then as it is; the service
    renames and upgrades it as it would have done in the course of time.

    No step changes a setting that the service has: version 1.0 is never an upgrade, and before the alias is declared
    under its own name, the service must have said that it has no setting of the new name either. So the steps of
    several processes, and of other versions of the program, may come in any order, and any may be the last one.

    Returns:
        The outcome; None if the declaration was refused for another reason.
    """
    name, wire = declaration.name, orjson.loads(declaration.body)
    alias = wire.pop("alias", None)
    if alias is not None and protocol.is_unknown_alias(refused, alias):
        without_alias = orjson.dumps(wire)
        refused = yield without_alias
        if not protocol.is_unknown_version(refused):
            outcome = protocol.parse_declaration(refused, name, without_alias)
            logger.info(
                "setting %s was declared without its alias %s, which the service does not have",
                name,
                alias,
                extra={"setting": name, "alias": alias},
            )
            return outcome
    is_below = declaration.version.partition(".")[0].strip("0") == ""
    if is_below or not protocol.is_unknown_version(refused):
        return None
    first_name = alias or name
    first_body = orjson.dumps(wire | {"name": first_name, "version": _FIRST_VERSION})
    first = protocol.parse_declaration((yield first_body), first_name, first_body)
    outcome = protocol.parse_declaration((yield declaration.body), name, declaration.body)
    logger.info(
        "setting %s is new in the service: it was declared as %s with version %s first",
        name,
        first_name,
        _FIRST_VERSION,
        extra={"setting": name, "first_name": first_name, "declared_version": declaration.version},
    )
    is_created = first.outcome == protocol.CREATED and outcome.outcome == protocol.UPGRADED
    return replace(outcome, outcome=protocol.CREATED) if is_created else outcome


def _exchange(bodies: Sequence[bytes]) -> Flow[list[Reply]]:
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
