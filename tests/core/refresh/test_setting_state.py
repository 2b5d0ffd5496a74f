"""The state of each setting in a client, as its status reports it, and what it means for the next requests."""

from contextlib import suppress
from dataclasses import replace

import pytest

from heksher_client import (
    DeclarationError,
    HeksherError,
    Reason,
    RejectedRule,
    Setting,
    SettingStatus,
    State,
    Status,
    UnexpectedResponseError,
)
from heksher_client._core.refresh.backoff import Backoff
from heksher_client._core.refresh.decoding import AppliedUpdate, DecodedRules
from heksher_client._core.refresh.publisher import AnyEntry
from heksher_client._core.refresh.setting_state import SettingStates
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.entry import PublishedRules
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.setting import entry_of
from tests.support.driven import START, WALL_CLOCK_OFFSET, driven
from tests.support.fake_service import FakeService
from tests.support.service import QUERY, CannedResponse

UNKNOWN = SettingStatus(None, None, "s", rules=0, rejected=0, first_rejected=())
ORDER = ("environment", "user", "theme")


class States(SettingStates):
    """States with a clock that a test moves."""

    def __init__(self, *, jitter: float = 0.0, random: float = 0.5) -> None:
        self.now = 0.0
        super().__init__(Backoff(jitter, 60.0), lambda: self.now, lambda: random)


@pytest.fixture
def setting() -> Setting[int]:
    return Setting("s", int, ["user"], 1)


@pytest.fixture
def entry(setting: Setting[int]) -> AnyEntry:
    return entry_of(setting)


def update_of(entry: AnyEntry, tracking: Tracking, *, default: int = 2) -> AppliedUpdate:
    """Return an update that replaces the default."""
    rule_set = RuleSet(default, Reason.SERVER_DEFAULT)
    return AppliedUpdate(DecodedRules(rule_set), entry.validators, tracking, ORDER, b"digest")


# -- status ------------------------------------------------------------------------------------------------------------


def test_the_status_has_everything_about_a_client_and_its_settings(service: FakeService) -> None:
    """After a refresh that failed for two settings, and one that recovered one of them."""
    service.declare("former", "int", 1, ["user"])
    service.declare("renamed", "int", 1, ["user"], version="1.1", alias="former")
    _settings = [
        Setting("loaded", int, ["user"], 1),
        Setting("former", int, ["user"], 1),
        Setting("invalid", int, ["user"], 1),
        Setting("refused", int, ["planet"], 1),
    ]
    rules = [
        {"value": 2, "context_features": [["user", "jim"]], "rule_id": 1},
        {"value": "x", "context_features": [["user", "ann"]], "rule_id": 2},
    ]
    response = {
        "loaded": {"default_value": 1, "rules": rules},
        "renamed": {"default_value": 1, "rules": []},
        "invalid": 5,
    }
    invalid = "the response for setting invalid has no default value or no list of rules"
    refusal = (
        "the service refused the declaration of setting refused: \"{'planet'} are not acceptable context features\""
    )
    rejected = (RejectedRule(2, "'x' is not an int"),)
    service.respond_with(QUERY, CannedResponse.of({"settings": response}))
    with driven(service, update_interval=60) as client:
        failed = Status(
            state=State.FAILING,
            age=0.0,
            last_success=None,
            last_error=refusal,
            last_error_at=START + WALL_CLOCK_OFFSET,
            failures=1,
            next_attempt=60.0,
            is_main=True,
            is_following=False,
            change_stream_problem=None,
            is_last_known_good=False,
            last_known_good_problem=None,
            settings={
                "loaded": SettingStatus("created", None, "loaded", 1, 1, rejected),
                "former": SettingStatus("outdated", None, "renamed", 0, 0, ()),
                "invalid": SettingStatus("created", invalid, "invalid", 0, 0, (), next_attempt=1.0),
                "refused": SettingStatus("refused", refusal, "refused", 0, 0, (), next_attempt=30.0),
            },
        )
        assert client.status() == failed
        assert (failed.rules, failed.rejected, failed.is_healthy) == (1, 1, True)

        service.intercept = lambda request: None
        client.refresh()
        status = client.status()
        assert status.settings["invalid"] == SettingStatus("created", None, "invalid", 0, 0, ())
        assert (status.last_error, status.last_error_at, status.failures) == (
            refusal,
            START + WALL_CLOCK_OFFSET + 1.0,
            2,
        )
        assert (status.last_success, status.next_attempt) == (None, 59.0)


def test_a_setting_without_a_response_has_the_status_of_its_declaration(setting: Setting[int], entry: AnyEntry) -> None:
    """Its name in the service is unknown, so it is the declared one."""
    assert States().status(entry, 60.0) == UNKNOWN
    assert setting.get(user="jim") == 1


@pytest.mark.usefixtures("setting")
def test_a_problem_is_one_line(entry: AnyEntry) -> None:
    """A text of the service may have line breaks."""
    states = States()
    states.mark_refused(entry, DeclarationError("a\nb"))
    assert states.status(entry, 60.0) == replace(UNKNOWN, declaration="refused", problem="a\\nb", next_attempt=30.0)
    states.mark_declared(entry, "t", "created")
    assert states.status(entry, 60.0) == replace(UNKNOWN, declaration="created", canonical_name="t")
    states.mark_failed(entry, UnexpectedResponseError("c\nd"))
    assert states.status(entry, 60.0).problem == "c\\nd"


@pytest.mark.usefixtures("setting")
def test_errors_in_the_status_do_not_keep_frames_alive(entry: AnyEntry) -> None:
    """Nor the responses in them."""
    states = States()
    for error in (DeclarationError("refused"), UnexpectedResponseError("failed")):
        with suppress(HeksherError):
            raise error
        assert error.__traceback__ is not None
        if isinstance(error, DeclarationError):
            states.mark_refused(entry, error)
        else:
            states.mark_failed(entry, error)
        assert error.__traceback__ is None
    assert [str(error) for error in states.problems([entry])] == ["failed"]


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("setting")
def test_a_setting_is_declared_when_it_is_new_or_lost_and_some_time_after_a_refusal(entry: AnyEntry) -> None:
    """Never while it is declared."""
    states = States()
    assert states.is_due(entry)
    states.mark_declared(entry, "s", "created")
    assert not states.is_due(entry)
    states.mark_missing(entry)
    assert states.is_due(entry)
    states.mark_refused(entry, DeclarationError("refused"))
    states.now = 29.0
    assert (states.due_for_retry([entry]), states.next_retry([entry])) == ([], 30.0)
    states.now = 30.0
    assert states.due_for_retry([entry]) == [entry]
    assert not states.is_due(entry)
    states.end_waits([entry])
    assert states.is_due(entry)
    states.mark_refused(entry, DeclarationError("refused"))
    states.end_waits([entry])
    assert states.is_due(entry)


@pytest.mark.usefixtures("setting")
def test_d7_a_setting_that_fails_has_its_own_back_off(entry: AnyEntry) -> None:
    """Slow for what people must fix. It begins again after a usable response, not after an accepted declaration."""
    states = States()

    def waits(error: HeksherError, count: int) -> list[float]:
        waits = []
        for _ in range(count):
            states.mark_declared(entry, "s", "created")
            states.mark_failed(entry, error)
            waits.append(states.next_retry([entry]) - states.now)
            assert states.due_for_retry([entry]) == []
            states.now = states.next_retry([entry])
            assert states.due_for_retry([entry]) == [entry]
        return waits

    assert waits(UnexpectedResponseError("", status=500), 8) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert waits(DeclarationError("refused"), 1) == [300]
    published_update(states, entry, Tracking())
    assert (states.next_retry([entry]), states.due_for_retry([entry])) == (float("inf"), [])
    assert waits(DeclarationError("refused"), 6) == [30, 60, 120, 240, 300, 300]
    refused = DeclarationError("refused")
    refused.retry_after = 200.0
    published_update(states, entry, Tracking())
    assert waits(refused, 2) == [200, 200]


def test_d7_settings_that_fail_in_one_refresh_are_tried_again_together() -> None:
    """The random part of the wait is drawn once per refresh."""
    settings = [Setting(f"s{i}", int, ["user"], 1) for i in range(3)]
    entries = [entry_of(setting) for setting in settings]
    numbers = iter([0.5, 1.0])
    states = SettingStates(Backoff(0.1, 60.0), lambda: 0.0, lambda: next(numbers))
    for wait in (22.5, 30.0):
        states.begin_refresh()
        for entry in entries:
            states.mark_refused(entry, DeclarationError("refused"))
        assert {states.next_retry([entry]) for entry in entries} == {wait}


@pytest.mark.usefixtures("setting")
def test_the_status_says_when_a_setting_is_tried_again(entry: AnyEntry) -> None:
    """With the next refresh, if the last one failed for all."""
    states = States()
    states.mark_refused(entry, DeclarationError("refused"))
    assert [states.status(entry, wait).next_attempt for wait in (5.0, 60.0, None)] == [30.0, 30.0, None]
    states.end_waits([entry])
    assert states.status(entry, 5.0).next_attempt == 5.0
    states.mark_declared(entry, "s", "created")
    assert states.status(entry, 5.0).next_attempt is None
    states.mark_failed(entry, UnexpectedResponseError("failed"))
    assert [states.status(entry, wait).next_attempt for wait in (1.0, 5.0)] == [2.0, 2.0]
    states.now = 9.0
    assert states.status(entry, 5.0).next_attempt == 0.0


def test_settings_are_found_by_their_names_in_the_service() -> None:
    """Several may have one name. A refused one has none, but the service may announce changes of its declared name."""
    settings = [Setting(name, int, ["user"], 1) for name in ("a", "b", "c", "d")]
    a, b, c, d = entries = [entry_of(setting) for setting in settings]
    states = States()
    states.mark_declared(a, "a", "created")
    states.mark_declared(b, "b", "created")
    states.rename(b, "a")
    states.mark_declared(c, "c", "created")
    states.mark_refused(c, DeclarationError("refused"))
    assert states.by_canonical_name(entries) == {"a": [a, b]}
    states.mark_declared(d, "e", "outdated")
    assert states.by_canonical_name(entries) == {"a": [a, b], "e": [d]}
    assert states.names(iter(entries)) == {"a", "b", "c", "d", "e"}


@pytest.mark.usefixtures("setting")
def test_a_setting_is_denied_after_a_conflict_until_the_service_has_sent_something(entry: AnyEntry) -> None:
    """One that the service has as declared was lost if it is missing later."""
    states = States()
    states.mark_declared(entry, "s", "uptodate")
    assert not states.is_denied(entry)
    states.mark_declared(entry, "s", "conflict", "the alias is of another setting")
    assert states.is_denied(entry)
    published_update(states, entry, Tracking())
    assert not states.is_denied(entry)


# -- updates -----------------------------------------------------------------------------------------------------------


def published_update(states: SettingStates, entry: AnyEntry, tracking: Tracking) -> AppliedUpdate:
    """Publish and record an update, and return it."""
    update = update_of(entry, tracking)
    entry.publish(PublishedRules(update.decoded.rule_set))
    states.mark_applied(entry, update)
    return update


@pytest.mark.usefixtures("setting")
def test_a_setting_is_current_until_anything_has_changed_that_its_rules_depend_on(entry: AnyEntry) -> None:
    """The tracking, the order of the context features, what is published, a validator, or the response."""
    states, tracking = States(), Tracking()
    assert not states.is_current(entry, tracking, ORDER)
    assert not states.is_applied(entry, b"digest", tracking, ORDER)
    published_update(states, entry, tracking)
    assert states.is_current(entry, tracking, ORDER)
    assert states.is_applied(entry, b"digest", tracking, ORDER)
    assert not states.is_applied(entry, b"other", tracking, ORDER)
    for other_tracking, other_order in ((Tracking(), ORDER), (tracking, ORDER[::-1])):
        assert not states.is_current(entry, other_tracking, other_order)
        assert not states.is_applied(entry, b"digest", other_tracking, other_order)

    entry.publish(PublishedRules(RuleSet(2, Reason.SERVER_DEFAULT)))
    assert not states.is_current(entry, tracking, ORDER)
    published_update(states, entry, tracking)
    entry.setting.add_validator(lambda value, rule, setting: value)
    assert not states.is_current(entry, tracking, ORDER)


@pytest.mark.usefixtures("setting")
@pytest.mark.parametrize("event", ["declared", "refused", "failed", "forgotten"])
def test_a_setting_is_queried_in_full_after_a_declaration_or_a_failure(entry: AnyEntry, event: str) -> None:
    """The rules that it has need not be those of the service."""
    states, tracking = States(), Tracking()
    published_update(states, entry, tracking)
    match event:
        case "declared":
            states.mark_declared(entry, "s", "created")
        case "refused":
            states.mark_refused(entry, DeclarationError("refused"))
        case "failed":
            states.mark_failed(entry, UnexpectedResponseError("failed"))
        case _:
            states.forget_applied(entry)
    assert not states.is_current(entry, tracking, ORDER)
    assert states.current_names({"s": [entry], "t": []}, tracking, ORDER) == {"t"}
    published_update(states, entry, tracking)
    assert states.status(entry, 60.0).problem is None
    assert states.current_names({"s": [entry]}, tracking, ORDER) == {"s"}


def test_rules_are_confirmed_if_the_service_sent_some_and_none_are_restored() -> None:
    """A program without settings needs none."""
    settings = [Setting(name, int, ["user"], 1) for name in ("a", "b")]
    a, b = entries = [entry_of(setting) for setting in settings]
    states, tracking = States(), Tracking()
    assert states.are_confirmed([])
    assert not states.are_confirmed(entries)
    published_update(states, a, tracking)
    assert states.are_confirmed(entries)
    states.mark_restored(b, b.published.rule_set, Tracking())
    assert not states.are_confirmed(entries)
    assert (states.is_restored(a), states.is_restored(b)) == (False, True)
    published_update(states, b, tracking)
    assert states.are_confirmed(entries)


# -- last known good ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("setting")
def test_a_setting_is_looked_up_once_for_each_tracking_while_it_has_no_rules_of_the_service(entry: AnyEntry) -> None:
    """Restored rules may lack those for other contexts, and a default alone is not all there may be."""
    states, tracking = States(), Tracking()
    assert states.needs_lookup(entry, tracking)
    states.mark_looked_up(entry, tracking)
    assert not states.needs_lookup(entry, tracking)
    assert states.needs_lookup(entry, Tracking())

    # The declaration's response has a newer default, and nothing else.
    former, newer = entry.published.rule_set, RuleSet(3, Reason.SERVER_DEFAULT)
    entry.publish(PublishedRules(newer))
    assert not states.needs_lookup(entry, Tracking())
    states.mark_default_replaced(entry, former, newer)
    assert states.needs_lookup(entry, Tracking())
    newest = RuleSet(4, Reason.SERVER_DEFAULT)
    entry.publish(PublishedRules(newest))
    states.mark_default_replaced(entry, newer, newest)
    assert states.needs_lookup(entry, Tracking())

    published_update(states, entry, tracking)
    assert not states.needs_lookup(entry, Tracking())


@pytest.mark.usefixtures("setting")
def test_restored_rules_with_a_newer_default_are_still_restored_ones(entry: AnyEntry) -> None:
    """They are looked up again when more contexts are tracked. Those of the service never are."""
    states = States()
    restored, newer = RuleSet(2, Reason.SERVER_DEFAULT), RuleSet(3, Reason.SERVER_DEFAULT)
    entry.publish(PublishedRules(restored))
    states.mark_restored(entry, restored, Tracking())
    entry.publish(PublishedRules(newer))
    states.mark_default_replaced(entry, restored, newer)
    assert states.is_restored(entry)
    assert states.needs_lookup(entry, Tracking())
    assert states.restored_tracking(entry) == Tracking()

    sent = published_update(states, entry, Tracking()).decoded.rule_set
    assert not states.is_restored(entry)
    assert states.restored_tracking(entry) is None
    entry.publish(PublishedRules(newer))
    states.mark_default_replaced(entry, sent, newer)
    assert not states.is_restored(entry)
    assert not states.needs_lookup(entry, Tracking())
