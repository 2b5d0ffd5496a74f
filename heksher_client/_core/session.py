"""One client's state, its flows and its policy: what is asked, what is tried again, what is logged, what is fatal.

A refresh declares what is new, asks for rules, converts everything that came, and only then puts it all in place. A
fault stays where it is: a bad rule costs that rule, a bad setting that setting, and what was good stays.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

from heksher_client._core import declarations, protocol
from heksher_client._core.contexts import (
    Defaults,
    Tracking,
    check_feature_names,
    check_known,
)
from heksher_client._core.conversion import to_default, to_rule_set
from heksher_client._core.protocol import (
    DeclarationAnswer,
    Flow,
    Install,
    Pause,
    SettingData,
    exchange,
)
from heksher_client._core.queries import MAX_FILTER, Answers, Queries
from heksher_client._core.readers import View
from heksher_client._core.registry import Registry
from heksher_client._core.rules import Reason, Work
from heksher_client._core.schedule import Schedule
from heksher_client._core.standings import AnySetting, Loaded, Standings
from heksher_client.exceptions import ClientNotRunningError, DeclarationError, HeksherError, UnexpectedResponseError

logger = logging.getLogger("heksher_client")

_DECLARED_TOGETHER: Final = 60
"""Declarations between two looks at whether they were accepted: where the first fail as one, the others are spared."""
_REFUSED_RETRY: Final = 300.0
"""Seconds before a declaration is tried again that the service refused as such: it takes people to mend that."""

_WORK_BETWEEN_PAUSES: Final = 5000
"""Rules worked on before others get their turn: a few milliseconds."""
_BYTES_AS_MUCH_WORK_AS_A_RULE: Final = 500
"""Where bytes are only compared."""


class Hooks(Protocol):
    """What a program can override to follow the refreshes."""

    def on_update_ok(self) -> None: ...  # pragma: no cover - a protocol
    def on_update_error(self, exc: Exception, /) -> None: ...  # pragma: no cover - a protocol


T = TypeVar("T")

Caller = Callable[[Exception | None], None]
"""Called with the outcome of the refresh that somebody waits for."""


class Session:
    """The client, but for sending, waiting and locking."""

    def __init__(
        self,
        context_features: Iterable[str],
        update_interval: float,
        *,
        hooks: Hooks,
        registry: Registry,
        clock: Callable[[], float],
        wake: Callable[[], None],
        raises_at_start: bool,
    ) -> None:
        """Make a session that has yet to start.

        Args:
            context_features: The service's context features, in its order.
            update_interval: In seconds.
            hooks: Told how each refresh ended.
            registry: Knows the settings and the main client.
            clock: Monotonic, in seconds.
            wake: Makes the driver stop waiting, from whatever thread it is called.
            raises_at_start: Whether the driver raises the error of the first refresh, which then is not logged.
        """
        self._context_features = check_feature_names(context_features)
        self._order = self._context_features
        self._schedule = Schedule(update_interval)
        self._hooks = hooks
        self._registry = registry
        self._clock = clock
        self._wake = wake
        self._raises_at_start = raises_at_start
        self._rounds = 0
        self._failures: list[Exception] = []
        """What failed in the refresh under way: for single settings, while all others are brought up to date."""
        self._defaults = Defaults()
        self._tracking = Tracking()
        self._standings = Standings()
        self._queries = Queries()
        self._callers: list[Caller] = []
        """Those who wait for the next refresh to begin, and end."""
        self._served: list[Caller] = []
        """Those who wait for the one under way."""
        self._work_since_pause = 0
        self._is_wanted = False
        self._is_open = False
        self._is_closed = False

    # -- the calls that never wait; from any thread --------------------------------------------------------------------

    def set_defaults(self, values: Mapping[str, str | ContextVar[str]]) -> None:
        """Set what reads take for the context features that they do not give."""
        check_known(values, self._context_features, "this client")
        self._defaults.update(values)
        self._registry.renew(self._defaults)

    def track_contexts(self, values: Mapping[str, str | Collection[str]]) -> None:
        """Say which context values will be asked for."""
        check_known(values, self._context_features, "this client")
        self._tracking = self._tracking.with_values(values)
        self.refresh_soon()

    def adopt(self, setting: AnySetting) -> None:
        """Have the reads of a setting use this client's defaults. The rules that it has stay until new ones arrive."""
        setting._reader.view = View(setting._reader.view.rule_set, self._defaults)

    def refresh_soon(self) -> None:
        """Do not wait for the next interval."""
        self._is_wanted = True
        if self._is_open:
            self._wake()

    def call_back(self, caller: Caller) -> None:
        """Have the outcome of the next refresh to begin reported, which begins at once.

        Raises:
            ClientNotRunningError: There will be no such refresh.
        """
        if not self._is_open:
            raise ClientNotRunningError("the client is not running: it was not set as main, or it is closed")
        self._callers.append(caller)
        self.refresh_soon()
        if not self._is_open:
            self.close()  # It was closed between the two, by another thread that may not have seen this caller.

    # -- start and end -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Become the main client.

        Raises:
            RuntimeError: It is already.
            ClientNotRunningError: It was closed.
        """
        self._check_not_closed()
        if self._is_open:
            raise RuntimeError("the client was set as main before")
        self._is_open = True
        former = self._registry.activate(self)
        if isinstance(former, Session):
            logger.warning(
                "another client is the main client now; the former one stops updating settings until that is closed",
                extra={"main_client": self, "former_client": former},
            )

    def close(self) -> None:
        """Stop being the main client. Settings keep their last values, and the next client takes them over."""
        self._is_open, self._is_closed = False, True
        self._registry.deactivate(self)
        callers = self._served + self._callers
        self._served, self._callers = [], []
        for caller in callers:
            caller(ClientNotRunningError("the client was closed before the refresh was done"))

    # -- the flows -----------------------------------------------------------------------------------------------------

    def round(self) -> Flow[None]:
        """Refresh once, and report the outcome to the log, the hooks and the callers that wait for it."""
        self._is_wanted = False  # before all else: what is asked for from now on takes another round
        self._served, self._callers = self._callers, []
        self._rounds += 1
        if not self._is_main():
            # Another client serves the settings; this one will be woken when that has gone.
            self._schedule.completed(self._clock(), failed=False)
            self._tell(ClientNotRunningError("another client is the main one, so this one updates nothing"))
            return
        failures: list[Exception] = []
        self._failures = failures
        try:
            yield from self._refresh()
        except HeksherError as problem:
            failures.append(problem)
        except Exception as defect:  # Ours, or a setting type's: it must not end all refreshes to come.
            logger.exception("a refresh failed in an unforeseen way", extra={"error": defect})
            failures.append(defect)
        self._schedule.completed(self._clock(), failed=bool(failures))
        if not self._is_open:
            return  # Closed meanwhile: those who waited have been told, and nobody else wants to know.
        self._tell(self._report(failures))

    @property
    def is_open(self) -> bool:
        """Whether it has started, and is not closed."""
        return self._is_open

    def wait(self) -> float:
        """Seconds until there is something to do."""
        return 0.0 if self._is_wanted or not self._is_open else self._schedule.wait(self._clock())

    def ping(self) -> Flow[None]:
        """Ask whether the service is well."""
        self._check_not_closed()
        (reply,) = yield from exchange(protocol.HEALTH)
        protocol.parse_health(reply)

    def get_settings(self) -> Flow[dict[str, SettingData]]:
        """Ask for all settings of the service."""
        self._check_not_closed()
        (reply,) = yield from exchange(protocol.SETTINGS)
        return protocol.parse_settings(reply)

    # -- a refresh -----------------------------------------------------------------------------------------------------

    def _tell(self, error: Exception | None) -> None:
        served, self._served = self._served, []
        for caller in served:
            caller(error)

    def _report(self, failures: Sequence[Exception]) -> Exception | None:
        if not failures:
            self._call_hook(self._hooks.on_update_ok)
            return None
        error = failures[0]
        for other in failures[1:]:
            error.add_note(f"and: {other}")
        if not (self._raises_at_start and self._rounds == 1):
            for failure in failures:
                logger.error("refresh failed: %s", failure, extra={"error": failure})
        self._call_hook(self._hooks.on_update_error, error)
        return error

    def _call_hook(self, hook: Callable[..., None], *args: object) -> None:
        try:
            hook(*args)
        except Exception:  # It is the program's own code: its errors are the program's to see, and none of ours.
            logger.exception("%s raised", hook.__name__, extra={"hook": hook.__name__})

    def _refresh(self) -> Flow[None]:
        """Bring all settings up to date, but for those of `_failures`."""
        yield from self._read_context_features()
        settings = sorted(self._registry.settings(), key=lambda setting: setting.name)
        yield from self._declare(settings)
        yield from self._load(settings)

    def _read_context_features(self) -> Flow[None]:
        # At each refresh: an operator may move a feature, and nothing in the answers to queries needs to show it.
        (reply,) = yield from exchange(protocol.CONTEXT_FEATURES)
        try:
            order = protocol.parse_context_features(reply)
        except UnexpectedResponseError as error:
            # The order known so far serves as well, be it the client's own.
            logger.warning("the order of the context features is not known: %s", error, extra={"error": error})
            return
        if order != self._order:
            self._order = order
            logger.warning(
                "the service has other context features than were known, or in another order; its order is used",
                extra={"features_in_service": list(order), "features_in_client": list(self._context_features)},
            )

    # -- declarations --------------------------------------------------------------------------------------------------

    def _declare(self, settings: Iterable[AnySetting]) -> Flow[None]:
        """Declare the settings that are due for it, each distinct declaration once."""
        # Somebody who waits for this refresh may have mended what a declaration was refused for.
        now = math.inf if self._served else self._clock()
        due: dict[bytes, list[AnySetting]] = {}
        for setting in settings:
            if self._standings.is_due(setting, now):
                due.setdefault(setting._declaration, []).append(setting)
        known = yield from declarations.ask(len(due))
        for declaration, same in list(due.items()):
            if declarations.is_settled(same[0], known.get(same[0].name)):
                del due[declaration]
                for setting in same:
                    self._standings.accept(setting, setting.name)
        for batch in _batches(list(due.items()), _DECLARED_TOGETHER):
            replies = yield from declarations.send([declaration for declaration, _ in batch])
            for (declaration, same), reply in zip(batch, replies, strict=True):
                try:
                    answer = protocol.parse_declaration(protocol.declare(declaration), reply, same[0].name)
                except DeclarationError as error:
                    self._refuse(same, error)
                except UnexpectedResponseError as error:
                    if error.status != 500:
                        raise  # It is not about this setting: the others would fare no better.
                    self._failures.append(error)
                else:
                    for setting in same:
                        yield from self._accept_declaration(setting, answer)

    def _accept_declaration(self, setting: AnySetting, answer: DeclarationAnswer) -> Flow[None]:
        # When a declaration was accepted as the newest, a difference in the name is what the setting was called before.
        is_newest = answer.outcome not in (protocol.OUTDATED, protocol.REJECTED, protocol.MISMATCH)
        name = None if is_newest else answer.latest("name")
        self._standings.accept(setting, name if isinstance(name, str) else setting.name)
        declarations.log(setting, answer)
        if answer.outcome == protocol.OUTDATED and (default := answer.latest("default_value")) is not None:
            yield self._install_default(setting, default)

    def _install_default(self, setting: AnySetting, raw: Any) -> Install:
        default, reason = to_default(setting, raw)

        def apply() -> None:
            if self._is_main():
                rule_set = replace(setting._reader.view.rule_set, default=default, default_reason=reason)
                setting._reader.view = View(rule_set, self._defaults)

        return Install(apply)

    def _refuse(self, settings: Iterable[AnySetting], error: DeclarationError) -> None:
        """Note that the service does not have these settings.

        It takes people to mend that, so they are declared again only after minutes; but soon where a service has served
        one before, as then it is more likely that something else answered in its place.
        """
        self._failures.append(error)
        for setting in settings:
            was_served = setting._reader.view.rule_set.default_reason is Reason.SERVER_DEFAULT
            self._standings.refuse(setting, self._clock() + (0 if was_served else _REFUSED_RETRY))

    # -- queries -------------------------------------------------------------------------------------------------------

    def _load(self, settings: Sequence[AnySetting]) -> Flow[None]:
        """Ask for the rules of all settings that the service has, and put what came in place."""
        wanted = self._standings.by_name(settings)
        answers = yield from self._ask(wanted)
        if answers.missing:
            yield from self._declare_lost(_named(answers.missing, wanted))
            wanted = self._standings.by_name(settings)
            answers = yield from self._ask(wanted)
            for setting in _named(answers.missing, wanted):
                error = DeclarationError(f"the service denies setting {setting.name}", setting=setting.name)
                self._refuse([setting], error)
        self._failures += answers.too_large.values()
        yield from self._follow_renames(answers, wanted)
        prepared = yield from self._prepare(answers, wanted)
        yield self._install(prepared, answers)

    def _ask(self, wanted: Mapping[str, Sequence[AnySetting]]) -> Flow[Answers]:
        tracking, order = self._tracking, self._order

        def is_current(name: str) -> bool:
            return all(self._standings.is_current(setting, tracking, order) for setting in wanted[name])

        return self._queries.ask(wanted, tracking.wire_filter(MAX_FILTER), is_current)

    def _declare_lost(self, settings: Sequence[AnySetting]) -> Flow[None]:
        """Declare settings again that the service had and has no more: deleted one by one, or with its database."""
        names = [setting.name for setting in settings]
        logger.warning("the service lost %d settings; declaring them again", len(names), extra={"settings": names})
        for setting in settings:
            self._standings.lose(setting)
        yield from self._declare(settings)

    def _follow_renames(self, answers: Answers, wanted: dict[str, list[AnySetting]]) -> Flow[None]:
        """Find the names under which the service answered for settings that were renamed since they were declared."""
        unanswered = [name for name in answers.changed if name not in answers.settings]
        requests = [protocol.setting(name) for name in unanswered]
        replies = yield from exchange(*requests)
        for name, request, reply in zip(unanswered, requests, replies, strict=True):
            try:
                data = protocol.parse_setting(request, reply)
                if data is None or data.name not in answers.settings:
                    raise UnexpectedResponseError(
                        f"the service left setting {name} out of its answer; it keeps its rules"
                    )
            except HeksherError as error:
                self._failures.append(error)
                for setting in wanted[name]:
                    self._standings.load(setting, None)
                continue
            logger.info(
                "setting %s was renamed to %s in the service",
                name,
                data.name,
                extra={"setting": name, "canonical_name": data.name},
            )
            for setting in wanted[name]:
                self._standings.rename(setting, data.name)
            wanted.setdefault(data.name, []).extend(wanted.pop(name))

    # -- from answers to rule sets -------------------------------------------------------------------------------------

    def _prepare(
        self, answers: Answers, wanted: Mapping[str, Sequence[AnySetting]]
    ) -> Flow[list[tuple[AnySetting, Loaded]]]:
        """Convert and index all that has changed, before any of it is put in place."""
        prepared: list[tuple[AnySetting, Loaded]] = []
        for name in filter(answers.settings.__contains__, wanted):
            raw = answers.settings.pop(name)  # so that an answer's bytes are gone with the last setting in it
            yield from self._rest(len(raw) // _BYTES_AS_MUCH_WORK_AS_A_RULE)
            digest = sha256(raw).digest()
            tracking, order = self._tracking, self._order
            changed = [s for s in wanted[name] if not self._standings.is_loaded(s, digest, tracking, order)]
            yield from self._rest(len(raw) // _BYTES_AS_MUCH_WORK_AS_A_RULE)
            if not changed:
                continue
            try:
                queried = protocol.parse_queried_setting(name, raw)
            except UnexpectedResponseError as error:
                self._failures.append(error)
                for setting in changed:
                    self._standings.load(setting, None)
                continue
            yield from self._rest(len(queried.rules or queried.undecoded))
            for setting in changed:
                validators = setting._validators
                work = to_rule_set(setting, queried, tracking=tracking, order=order)
                rule_set = yield from self._paced(work)
                prepared.append((setting, Loaded(rule_set, validators, tracking, order, digest)))
        return prepared

    def _paced(self, work: Work[T]) -> Flow[T]:
        """Do some work, and let others run after every so much of it."""
        while True:
            try:
                done = next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            yield from self._rest(done)

    def _rest(self, done: int) -> Flow[None]:
        """Let others run, if enough work was done since they last did."""
        self._work_since_pause += done
        if self._work_since_pause >= _WORK_BETWEEN_PAUSES:
            self._work_since_pause = 0
            yield Pause()

    def _install(self, prepared: Sequence[tuple[AnySetting, Loaded]], answers: Answers) -> Install:
        def apply() -> None:
            if not self._is_main():
                return  # Another client took over while this one waited for its answer.
            for setting, loaded in prepared:
                setting._reader.view = View(loaded.rule_set, self._defaults)
                self._standings.load(setting, loaded)
            self._queries.remember(answers)

        return Install(apply)

    def _check_not_closed(self) -> None:
        if self._is_closed:
            raise ClientNotRunningError("the client is closed: make a new one")

    def _is_main(self) -> bool:
        return self._registry.main is self


def _named(names: Iterable[str], settings: Mapping[str, Sequence[AnySetting]]) -> list[AnySetting]:
    return [setting for name in sorted(names) for setting in settings[name]]


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
