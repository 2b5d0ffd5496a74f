"""One refresh: what is declared, what is asked, what is made of the answers, and how it is put in place.

A refresh declares what is new, asks for rules, converts everything that came, and only then puts it all in place. A
fault stays where it is: a bad rule costs that rule, a bad setting that setting, and what was good stays.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from heksher_client._core.refresh import declarations, protocol
from heksher_client._core.refresh.decoding import to_default
from heksher_client._core.refresh.effects import ApplyLocked, Flow, exchange
from heksher_client._core.refresh.last_known_good import Held, LastKnownGood, LastKnownGoodStore, RestoredSettings
from heksher_client._core.refresh.loading import Loading, PreparedUpdate
from heksher_client._core.refresh.protocol import DeclarationAnswer
from heksher_client._core.refresh.queries import MAX_FILTER, Answers, Queries
from heksher_client._core.refresh.setting_state import AnyEntry, SettingStates
from heksher_client._core.settings.context import Defaults, Tracking
from heksher_client._core.settings.entry import PublishedRules
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason
from heksher_client._core.settings.snapshot import publish
from heksher_client._logging import logger
from heksher_client.exceptions import DeclarationError, HeksherError, UnexpectedResponseError

_DECLARED_TOGETHER: Final = 60
"""Declarations between two looks at whether they were accepted: where the first fail as one, the others are spared."""
_REFUSED_RETRY: Final = 300.0
"""Seconds before a declaration is tried again that the service refused as such: it takes people to mend that."""


class Refresher:
    """What one client knows of the service, and how it is brought up to date."""

    def __init__(
        self,
        context_features: tuple[str, ...],
        *,
        settings: Callable[[], Sequence[AnyEntry]],
        defaults: Defaults,
        clock: Callable[[], float],
        is_main: Callable[[], bool],
        note_revision: Callable[[int | None], None],
        is_heard: Callable[[AnyEntry], bool],
        keeper: LastKnownGoodStore | None,
    ) -> None:
        """Make one that knows nothing yet.

        Args:
            context_features: In the order to assume until the service tells its own.
            settings: Gives all settings of the program.
            defaults: What the reads of settings use that are brought up to date.
            clock: Monotonic, in seconds.
            is_main: Whether settings are this client's to change.
            note_revision: Told up to which revision all changes are in place; None where the service does not say.
            is_heard: Whether somebody wants to know of a change of a setting.
            keeper: Keeps what is received, for a start without the service.
        """
        self._context_features = self._order = context_features
        self._settings, self._defaults, self._clock, self._is_main = settings, defaults, clock, is_main
        self._note_revision, self._is_heard = note_revision, is_heard
        self._replaced: dict[AnyEntry, RuleSet[Any]] = {}
        """What was in place before this refresh, where it was replaced and somebody wants to know."""
        self._renewed: dict[str, None] = {}
        """The settings for which something was put in place in this refresh."""
        self._keeping = LastKnownGood(keeper)
        self._loading = Loading(keeps_answers=keeper is not None)
        self.tracking = Tracking()
        self.standings = SettingStates()
        self._queries = Queries()
        self._failures: list[Exception] = []
        """What failed in the refresh under way: for single settings, while all others are brought up to date."""
        self._order_problem: UnexpectedResponseError | None = None
        self.received_at: float | None = None
        """When the service last said what the rules are, or that they have not changed."""
        self._has_order = False
        """Whether the service has told the order of the context features."""
        self._orders_revision: int | None = None
        """The revision that the order is of, where the service tells."""
        self._is_awaited = False

    def refresh(self, *, is_awaited: bool) -> Flow[list[Exception]]:
        """Bring all settings up to date.

        Args:
            is_awaited: Whether somebody waits for it, who may have mended what a declaration was refused for.

        Returns:
            What failed for single settings.

        Raises:
            HeksherError: All of it failed.
        """
        self._failures, self._is_awaited = [], is_awaited
        yield from self._read_context_features()
        settings = sorted(self._settings(), key=lambda setting: setting.name)
        yield from self._declare(settings)
        yield from self._load(settings)
        return self._failures

    def problems(self) -> list[Exception]:
        """What is wrong though the last refresh did all that was due."""
        refused = [self.standings.problem(setting) for setting in self._settings()]
        return [problem for problem in (*refused, self._order_problem) if problem is not None]

    def _read_context_features(self) -> Flow[None]:
        # At each refresh: an operator may move a feature, and nothing in the answers to queries needs to show it.
        (reply,) = yield from exchange(protocol.CONTEXT_FEATURES)
        try:
            order = protocol.parse_context_features(reply)
        except UnexpectedResponseError as error:
            # The order known so far serves as well, be it the client's own.
            self._order_problem = UnexpectedResponseError(f"the order of the context features is not known: {error}")
            vars(self._order_problem).update(vars(error))
            if not self._has_order:
                self._order = (yield from self._keeping.order()) or self._order
            return
        self._order_problem, self._has_order = None, True
        self._orders_revision = protocol.revision(reply)
        if order != self._order:
            self._order = order
            logger.warning(
                "the service has other context features than were known, or in another order; its order is used",
                extra={"features_in_service": list(order), "features_in_client": list(self._context_features)},
            )

    # -- declarations --------------------------------------------------------------------------------------------------

    def _declare(self, settings: Iterable[AnyEntry]) -> Flow[None]:
        """Declare the settings that are due for it, each distinct declaration once."""
        now = math.inf if self._is_awaited else self._clock()
        due: dict[bytes, list[AnyEntry]] = {}
        for setting in settings:
            if self.standings.is_due(setting, now):
                due.setdefault(setting.declaration.body, []).append(setting)
        known = yield from declarations.ask(len(due))
        for declaration, same in list(due.items()):
            if declarations.is_settled(same[0], known.get(same[0].name)):
                del due[declaration]
                for setting in same:
                    self.standings.accept(setting, setting.name, protocol.UPTODATE)
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

    def _accept_declaration(self, setting: AnyEntry, answer: DeclarationAnswer) -> Flow[None]:
        # When a declaration was accepted as the newest, a difference in the name is what the setting was called before.
        is_newest = answer.outcome not in (protocol.OUTDATED, protocol.REJECTED, protocol.MISMATCH)
        name = None if is_newest else answer.latest("name")
        self.standings.accept(setting, name if isinstance(name, str) else setting.name, answer.outcome)
        declarations.log(setting, answer)
        if answer.outcome == protocol.OUTDATED and (default := answer.latest("default_value")) is not None:
            yield self._install_default(setting, default)

    def _install_default(self, setting: AnyEntry, raw: Any) -> ApplyLocked:
        default, reason = to_default(setting, raw)

        def apply() -> None:
            if self._is_main():
                former = setting.rule_set
                rule_set = replace(former, default=default, default_reason=reason)
                self._put_in_place({setting: rule_set})
                self._keeping.note_default(setting, former, rule_set)

        return ApplyLocked(apply)

    def _refuse(self, settings: Iterable[AnyEntry], error: DeclarationError) -> None:
        """Note that the service does not have these settings.

        It takes people to mend that, so they are declared again only after minutes; but soon where a service has served
        one before, as then it is more likely that something else answered in its place.
        """
        self._failures.append(error)
        for setting in settings:
            was_served = setting.rule_set.default_reason is Reason.SERVER_DEFAULT
            self.standings.refuse(setting, self._clock() + (0 if was_served else _REFUSED_RETRY), error)

    # -- queries -------------------------------------------------------------------------------------------------------

    def _load(self, settings: Sequence[AnyEntry]) -> Flow[None]:
        """Ask for the rules of all settings that the service has, and put what came in place."""
        tracking = self.tracking  # the same from the question to what is made of the answer
        wanted = self.standings.by_name(settings)
        answers = yield from self._ask(wanted, tracking)
        if answers.missing:
            yield from self._declare_lost(_named(answers.missing, wanted))
            wanted = self.standings.by_name(settings)
            answers = yield from self._ask(wanted, tracking)
            for setting in _named(answers.missing, wanted):
                error = DeclarationError(f"the service denies setting {setting.name}", setting=setting.name)
                self._refuse([setting], error)
        for name, too_large in answers.too_large.items():
            self._note_trouble(wanted[name], too_large)
        yield from self._follow_renames(answers, wanted)
        up_to_date = [name for name in wanted if name not in answers.missing and name not in answers.too_large]
        prepared = yield from self._prepare(answers, wanted, tracking)
        yield self._install(prepared, answers)
        yield from self._keep(prepared, _named(up_to_date, wanted))

    def _note_trouble(self, settings: Iterable[AnyEntry], error: Exception) -> None:
        """Note that settings keep what they have, and are to be asked for in full next time."""
        self._failures.append(error)
        for setting in settings:
            self.standings.fail(setting, error)

    def _ask(self, wanted: Mapping[str, Sequence[AnyEntry]], tracking: Tracking) -> Flow[Answers]:
        order = self._order

        def is_current(name: str) -> bool:
            return all(self.standings.is_current(setting, tracking, order) for setting in wanted[name])

        return self._queries.ask(wanted, tracking.wire_filter(MAX_FILTER), is_current)

    def _declare_lost(self, settings: Sequence[AnyEntry]) -> Flow[None]:
        """Declare settings again that the service had and has no more: deleted one by one, or with its database."""
        names = [setting.name for setting in settings]
        logger.warning("the service lost %d settings; declaring them again", len(names), extra={"settings": names})
        for setting in settings:
            self.standings.lose(setting)
        yield from self._declare(settings)

    def _follow_renames(self, answers: Answers, wanted: dict[str, list[AnyEntry]]) -> Flow[None]:
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
                self._note_trouble(wanted[name], error)
                continue
            logger.info(
                "setting %s was renamed to %s in the service",
                name,
                data.name,
                extra={"setting": name, "canonical_name": data.name},
            )
            for setting in wanted[name]:
                self.standings.rename(setting, data.name)
            wanted.setdefault(data.name, []).extend(wanted.pop(name))

    # -- from answers to rule sets -------------------------------------------------------------------------------------

    def _prepare(
        self, answers: Answers, wanted: Mapping[str, Sequence[AnyEntry]], tracking: Tracking
    ) -> Flow[list[PreparedUpdate]]:
        """Convert and index all that has changed, before any of it is put in place."""
        prepared: list[PreparedUpdate] = []
        order = self._order
        for name in filter(answers.settings.__contains__, wanted):
            answer = answers.settings.pop(name)  # so that an answer's bytes are gone with the last setting in it
            digest = yield from self._loading.digest(answer)
            changed = [s for s in wanted[name] if not self.standings.is_loaded(s, digest, tracking, order)]
            if not changed:
                continue
            try:
                prepared += yield from self._loading.convert(name, answer, digest, changed, tracking, order)
            except UnexpectedResponseError as error:
                self._note_trouble(changed, error)
        return prepared

    def _install(self, prepared: Sequence[PreparedUpdate], answers: Answers) -> ApplyLocked:
        def apply() -> None:
            if not self._is_main():
                return  # Another client took over while this one waited for its answer.
            self._put_in_place({setting: loaded.converted.rule_set for setting, loaded, _ in prepared})
            for setting, loaded, _ in prepared:
                self.standings.load(setting, loaded)
                self._keeping.note_received(setting)
            self._queries.remember(answers)
            revisions = (self._orders_revision, answers.revision)
            self._note_revision(None if None in revisions else min(filter(None, revisions), default=0))
            settings = self._settings()
            is_any_new = not settings or any(map(self.standings.is_up_to_date, settings))
            if is_any_new and not self._keeping.is_any_recalled:
                self.received_at = self._clock()

        return ApplyLocked(apply)

    def _put_in_place(self, rule_sets: Mapping[AnyEntry, RuleSet[Any]]) -> None:
        for setting in filter(self._is_heard, rule_sets):
            self._replaced.setdefault(setting, setting.rule_set)
        publish({setting: PublishedRules(rule_set, self._defaults) for setting, rule_set in rule_sets.items()})
        self._renewed.update(dict.fromkeys(setting.name for setting in rule_sets))

    def take_replaced(self) -> dict[AnyEntry, RuleSet[Any]]:
        """What was in place until now, where it was replaced and somebody wants to know; once."""
        replaced, self._replaced = self._replaced, {}
        return replaced

    def take_renewed(self) -> tuple[str, ...]:
        """The settings for which something was put in place; once."""
        renewed, self._renewed = tuple(self._renewed), {}
        return renewed

    # -- last known good -----------------------------------------------------------------------------------------------

    def recall(self) -> Flow[bool]:
        """Put in place what was kept for those settings that have got nothing from the service yet.

        Returns:
            Whether something was kept for any setting.
        """
        order = self._order if self._has_order else None
        recalled = yield from self._keeping.recall(
            self._settings(), self._loading, self.tracking, order, is_age_known=self.received_at is not None
        )
        if recalled is None:
            return False
        self._order = order or recalled.order or self._order
        yield self._install_recalled(recalled)
        return recalled.age is not None

    def _install_recalled(self, recalled: RestoredSettings) -> ApplyLocked:
        def apply() -> None:
            if not self._is_main():
                return
            self._keeping.note_looked_up(recalled)
            rule_sets = {
                setting: self._with_newer_default(setting, loaded.converted.rule_set)
                for setting, loaded, _ in recalled.prepared
            }
            self._put_in_place(rule_sets)
            for setting, rule_set in rule_sets.items():
                self._keeping.note_recalled(setting, rule_set)
            if recalled.age is not None and (self.received_at is None or recalled.prepared):
                then = self._clock() - recalled.age
                self.received_at = then if self.received_at is None else min(then, self.received_at)

        return ApplyLocked(apply)

    def _with_newer_default(self, setting: AnyEntry, kept: RuleSet[Any]) -> RuleSet[Any]:
        """What was kept, with what the answer to the declaration has told since then."""
        known = setting.rule_set
        match self.standings.status(setting).declaration:
            case protocol.OUTDATED if known.default_reason is Reason.SERVER_DEFAULT:
                return replace(kept, default=known.default, default_reason=known.default_reason)
            case protocol.UPTODATE | protocol.UPGRADED:
                return replace(kept, default=setting.declaration.default_value, default_reason=Reason.SERVER_DEFAULT)
            case protocol.CREATED:  # There are no rules any more.
                return RuleSet(setting.declaration.default_value, Reason.SERVER_DEFAULT)
        return kept

    @property
    def keeping_problem(self) -> str | None:
        """Why nothing can be kept beyond the end of the process, or used of it."""
        return self._keeping.problem

    def is_recalled(self, setting: AnyEntry) -> bool:
        """Whether a setting has rules that were kept, and none from the service since then."""
        return self._keeping.is_recalled(setting)

    def _keep(self, prepared: Sequence[PreparedUpdate], settings: Sequence[AnyEntry]) -> Flow[None]:
        """Have what is in place kept."""
        if not self._is_main():
            return

        def held() -> dict[str, Held]:
            all_loaded = {setting.name: self.standings.loaded(setting) for setting in settings}
            return {name: Held(loaded.digest, loaded.tracking) for name, loaded in all_loaded.items() if loaded}

        is_order_known = self._has_order and self._order_problem is None
        lacking = yield from self._keeping.save(prepared, held, self._order if is_order_known else None)
        for setting in settings:
            if setting.name in lacking:
                self.standings.load(setting, None)  # It will be asked for again, and then be kept.


def _named(names: Iterable[str], settings: Mapping[str, Sequence[AnyEntry]]) -> list[AnyEntry]:
    return [setting for name in sorted(names) for setting in settings[name]]


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
