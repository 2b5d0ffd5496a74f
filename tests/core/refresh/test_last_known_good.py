"""The last known good: which responses are stored, and what a start without the service restores from them."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from heksher_client import DeclarationError, HeksherError, Reason, ServiceUnavailableError, Setting, State
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.registry import registry
from heksher_client._drivers.last_known_good_file import Content, StatSignature, StoredRow
from tests.support.driven import START, WALL_CLOCK_OFFSET, DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.last_known_good import MemoryFile, reset_settings
from tests.support.log_records import extras, summaries
from tests.support.service import CONTEXT_FEATURES, DECLARE, QUERY, CannedResponse

BAD_GATEWAY = CannedResponse(502)
NO_SPACE = OSError(28, "No space left on device")


@pytest.fixture
def file() -> MemoryFile:
    return MemoryFile()


def store_rule(service: FakeService, file: MemoryFile) -> None:
    """Run a client that stores a rule, 8 for jim, and begin a new process."""
    with driven(service, last_known_good=file) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
    reset_settings()


def store(file: MemoryFile, responses: Mapping[str, Any], *, order: tuple[str, ...] = (), at: float = START) -> None:
    """Store responses for settings, without tracking, at a time by the monotonic clock of driven clients."""
    confirmed = at + WALL_CLOCK_OFFSET
    rows = {
        name: {0: StoredRow(0, confirmed, msgspec.Raw(json.dumps(response).encode()))}
        for name, response in responses.items()
    }
    former = file.content or Content()
    file.write(Content(order, [Tracking()], {**former.settings, **rows}))


def stored(file: MemoryFile, name: str) -> Any:
    """Return the one stored response for a setting."""
    assert file.content is not None
    (row,) = file.content.settings[name].values()
    return json.loads(bytes(row.content))


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def start_without_values(service: FakeService, file: MemoryFile, **options: Any) -> None:
    """Start without the service, and check that there was nothing to start from: the start raises."""
    service.is_running = False
    client = DrivenClient(service, last_known_good=file, **options)
    with pytest.raises(ServiceUnavailableError):
        client.start()
    assert (client.status().age, client.status().state) == (None, State.STALE)
    client.close()


# -- restoring ---------------------------------------------------------------------------------------------------------


def test_a_client_that_is_no_longer_the_main_one_restores_nothing(
    service: FakeService, file: MemoryFile, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client may become the main one while the disk is read. Its rules stay."""
    store_rule(service, file)
    service.is_running = False
    other = DrivenClient(service)
    read = file.read

    def take_over_and_read() -> tuple[Content, StatSignature]:
        if not other.session.is_open:
            other.session.start()
        return read()

    monkeypatch.setattr(file, "read", take_over_and_read)
    with driven(service, last_known_good=file) as client:
        assert (setting.get(user="jim"), client.status().is_last_known_good) == (7, False)
    other.close()


@pytest.mark.parametrize("raises_at_start", [True, False])
def test_n1_a_start_without_the_service_uses_the_last_known_good(
    service: FakeService,
    file: MemoryFile,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    raises_at_start: bool,
) -> None:
    """It does not raise; the status reports the source of the values and their age, and the hook gets the error."""
    store_rule(service, file)
    new = Setting("new", int, ["user"], 1)
    service.is_running = False
    client = DrivenClient(
        service, last_known_good=file, now=START + 100, stale_after=150, raises_at_start=raises_at_start
    )
    assert (client.status().is_last_known_good, client.status().last_known_good_problem) == (False, None)
    client.start()

    assert (setting.get(user="jim"), setting.get(user="ann"), new.get(user="jim")) == (8, 7, 1)
    status = client.status()
    assert (status.state, status.age, status.rules) == (State.FAILING, 100, 1)
    assert (status.is_last_known_good, status.is_healthy, status.last_known_good_problem) == (True, True, None)
    (error,) = client.outcomes
    assert type(error) is ServiceUnavailableError
    assert summaries(caplog.records) == [
        (
            "WARNING",
            "restored the last known good of 1 settings, 100 seconds old; 1 settings have none",
            {"age": 100.0, "settings": ["s"]},
        ),
        ("ERROR", f"refresh failed: {error}", {"error": error, "attempts": 1}),
    ]
    client.refresh(2)
    assert len(caplog.records) == 2  # It is not restored again.

    service.is_running = True
    service.add_rule("s", 9, user="ann")
    client.reload()
    status = client.status()
    assert (setting.get(user="ann"), new.explain(user="ann").reason) == (9, Reason.SERVER_DEFAULT)
    assert (status.state, status.age, status.is_last_known_good) == (State.FRESH, 0, False)
    client.close()


def test_the_age_of_the_last_known_good_counts_for_staleness(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """Old values are stale immediately. Those that were stale soon become so."""
    store_rule(service, file)
    service.is_running = False
    with driven(service, last_known_good=file, now=START + 1000, stale_after=1000) as client:
        assert client.status().state is State.STALE
        assert setting.get(user="jim") == 8
    reset_settings()
    with driven(service, last_known_good=file, now=START + 900, stale_after=1000) as client:
        assert client.status().state is State.FAILING
        client.advance(100)
        assert client.status().state is State.STALE


def test_the_age_is_that_of_the_oldest_restored_response(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """Responses of other programs do not count."""
    other = Setting("other", int, ["user"], 1)
    store(file, {"s": {"rules": [], "default_value": 1}}, at=START - 500)
    store(file, {"other": {"rules": [], "default_value": 2}}, at=START - 50)
    store(file, {"foreign": {}}, at=START - 900)
    service.is_running = False
    with driven(service, last_known_good=file) as client:
        assert (setting.get(), other.get()) == (1, 2)
        assert client.status().age == 500


def test_a_start_without_the_service_and_the_last_known_good_fails(
    service: FakeService, file: MemoryFile, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged once, not with each attempt."""
    service.is_running = False
    with driven(service, last_known_good=file) as client:
        assert (client.status().age, client.status().state) == (None, State.STALE)
        client.refresh(3)
        assert setting.get(user="jim") == 7
    (record,) = [record for record in caplog.records if "last known good" in record.message]
    text = "[Errno 2] No such file or directory"
    assert record.getMessage() == f"there is no last known good to start from: {text}"
    assert record.levelname == "WARNING"
    assert [(type(error), str(error)) for error in extras(record).values()] == [(FileNotFoundError, text)]
    assert list(extras(record)) == ["error"]


def test_a_last_known_good_that_is_too_old_is_ignored(
    service: FakeService, file: MemoryFile, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged."""
    store_rule(service, file)
    start_without_values(service, file, now=START + 7200, max_age=3600)
    assert any("too old" in message for message in messages(caplog))
    assert setting.get(user="jim") == 7


def test_a_start_without_a_response_for_any_setting_fails(
    service: FakeService, file: MemoryFile, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Other stored responses do not matter."""
    store(file, {"other": {"rules": [], "default_value": 1}})
    start_without_values(service, file)
    assert setting.get(user="jim") == 7
    assert summaries(caplog.records)[0] == (
        "WARNING",
        "restored the last known good of 0 settings, 0 seconds old; 1 settings have none",
        {"age": None, "settings": []},
    )


def test_the_last_known_good_that_appears_after_the_start_is_used(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """Another process may write it. The status no longer reports a problem with it."""
    service.is_running = False
    with driven(service, last_known_good=file) as client:
        assert client.status().last_known_good_problem == "[Errno 2] No such file or directory"
        store(file, {"s": {"rules": [], "default_value": 2}})
        client.refresh()
        status = client.status()
        assert (setting.get(user="jim"), status.is_last_known_good, status.last_known_good_problem) == (2, True, None)


def test_a_setting_created_after_the_start_is_restored_as_well(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """For example in a module that is imported while the service is still down."""
    store(file, {"s": {"rules": [], "default_value": 5}, "late": {"rules": [], "default_value": 6}})
    service.is_running = False
    with driven(service, last_known_good=file) as client:
        late = Setting("late", int, ["user"], 1)
        client.advance(0)
        assert (setting.get(), late.get()) == (5, 6)


def test_a_second_client_in_one_process_keeps_the_values(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """The last known good says how old they are."""
    with driven(service, last_known_good=file) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
    service.is_running = False
    with driven(service, last_known_good=file, now=START + 100, stale_after=1000) as client:
        assert setting.get(user="jim") == 8
        assert (client.status().state, client.status().age) == (State.FAILING, 100)


def test_a_refused_declaration_is_an_error_of_the_start_nevertheless(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """It is an error in the program, not an outage. The values are restored."""
    store_rule(service, file)
    service.respond_with(DECLARE, CannedResponse(422))
    client = DrivenClient(service, last_known_good=file)
    with pytest.raises(DeclarationError):
        client.start()
    assert setting.get(user="jim") == 8
    client.close()


def test_an_invalid_response_does_not_affect_other_settings(
    service: FakeService, file: MemoryFile, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Another version of the program may use another type. It is logged."""
    good = Setting("good", int, ["user"], 1)
    store(file, {"s": 5, "good": {"rules": [], "default_value": 2}})
    service.is_running = False
    with driven(service, last_known_good=file):
        assert (setting.get(user="jim"), good.get(user="jim")) == (7, 2)
    (rejected, restored, _) = summaries(caplog.records)
    error = rejected[2]["error"]
    assert str(error) == "the response for setting s has no default value or no list of rules"
    assert rejected == (
        "WARNING",
        f"setting s has no last known good: {error}",
        {"setting": "s", "error": error},
    )
    assert restored == (
        "WARNING",
        "restored the last known good of 1 settings, 0 seconds old; 1 settings have none",
        {"age": 0.0, "settings": ["good"]},
    )


def test_responses_without_usable_data_do_not_reset_the_age(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """Neither the age of restored values nor that of received ones."""
    good = Setting("good", int, ["user"], 1)
    store_rule(service, file)
    service.respond_with(QUERY, CannedResponse.of({"settings": {"s": {}, "good": {"rules": [], "default_value": 2}}}))
    with driven(service, last_known_good=file, now=START + 500, stale_after=100) as client:
        assert (setting.get(user="jim"), good.get(user="jim")) == (8, 2)
        status = client.status()
        assert (status.state, status.age, status.is_last_known_good) == (State.STALE, 500, True)

        service.intercept = lambda request: None
        client.reload()
        assert client.status().state is State.FRESH
        service.respond_with(QUERY, CannedResponse.of({"settings": {}}))
        client.advance(90)
        client.reload_expecting(HeksherError)
        assert (client.status().state, client.status().age) == (State.FAILING, 90)
        client.advance(10)
        assert client.status().state is State.STALE


@pytest.mark.parametrize("target", ["driven.FileStore.load", "last_known_good._newest"])
def test_an_unexpected_error_while_restoring_does_not_stop_the_client(
    service: FakeService,
    file: MemoryFile,
    setting: Setting[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    target: str,
) -> None:
    """The client works as without a last known good, and logs the error."""
    store_rule(service, file)
    package = "tests.support" if target.startswith("driven") else "heksher_client._core.refresh"
    monkeypatch.setattr(f"{package}.{target}", lambda *_: 1 / 0)
    start_without_values(service, file)
    (record,) = [record for record in caplog.records if record.message == "the last known good cannot be used"]
    assert (record.levelname, list(extras(record))) == ("ERROR", ["error"])
    assert record.exc_info
    assert extras(record)["error"] is record.exc_info[1]
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert setting.get(user="jim") == 7


# -- tracking, names and versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "value"),
    [
        ({}, {}, 8),
        ({}, {"user": "jim"}, 8),
        ({"user": ["jim", "ann"]}, {"user": "jim"}, 8),
        ({"user": "*"}, {"user": "jim"}, 8),
        ({"user": "jim"}, {"user": ["jim", "ann"]}, 7),
        ({"user": "jim"}, {"user": "*"}, 7),
        ({"user": "jim"}, {}, 7),
        ({"user": "jim", "theme": "dark"}, {"user": "jim", "theme": "light"}, 8),
    ],
)
def test_a_response_with_fewer_tracked_contexts_is_ignored(
    service: FakeService,
    file: MemoryFile,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    before: Any,
    now: Any,
    value: int,
) -> None:
    """It may lack rules of higher priority. Only the configurable features of the setting count."""
    service.declare("s", "int", 7, ["user"])
    service.add_rule("s", 8, user="jim")
    first = DrivenClient(service, last_known_good=file)
    first.track_contexts(**before)
    first.start()
    first.close()
    reset_settings()

    service.is_running = False
    second = DrivenClient(service, last_known_good=file)
    second.set_defaults(user="eve")
    second.track_contexts(**now)
    if value == 8:
        second.start()
    else:
        with pytest.raises(HeksherError):
            second.start()
    assert setting.get(user="jim") == value
    reason = "setting s has no last known good: it was stored when fewer contexts were tracked than now"
    assert (reason in messages(caplog)) == (value == 7)
    second.close()


def test_of_two_responses_of_the_same_time_the_later_one_is_restored(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """One for all contexts and one for those that are tracked may be stored before the clock goes on."""
    with driven(service, last_known_good=file) as client:
        service.add_rule("s", 8, user="jim")
        client.track_contexts(user="jim")
        client.reload()
    reset_settings()

    service.is_running = False
    second = DrivenClient(service, last_known_good=file)
    second.set_defaults(user="eve")
    second.track_contexts(user="jim")
    second.start()
    assert setting.get(user="jim") == 8
    second.close()


def test_contexts_tracked_after_the_start_are_restored_as_well(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """The stored responses may have rules for them."""
    service.declare("s", "int", 7, ["user"])
    service.add_rule("s", 9, user="ann")
    store_rule(service, file)
    service.is_running = False
    client = DrivenClient(service, last_known_good=file)
    client.track_contexts(user="jim")
    client.start()
    assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 7)
    client.track_contexts(user="ann")
    client.advance(0)
    assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 9)
    client.close()


def test_d9_no_value_goes_back_if_contexts_are_tracked_after_the_start(
    service: FakeService, file: MemoryFile, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """A response with the rules for all contexts may be older than the one that was restored."""
    with driven(service, last_known_good=file) as client:
        rule_ids = [service.add_rule("s", 8, user=user) for user in ("jim", "ann")]
        client.reload()  # with the rules for all contexts
        client.track_contexts(user="jim")
        for rule_id in rule_ids:
            service.change_rule(rule_id, 9)
        client.reload()
    reset_settings()

    service.is_running = False
    client = DrivenClient(service, last_known_good=file)
    client.track_contexts(user="jim")
    client.start()
    assert setting.get(user="jim") == 9
    for user in ("ann", "eve"):  # The second time, the lookup before was without effect.
        client.track_contexts(user=user)
        client.advance(60)
        assert (setting.get(user="jim"), setting.get(user="ann")) == (9, 7)
    message = "1 settings keep their last known good: the one with all contexts that are tracked now is older"
    assert ("WARNING", message, {"settings": ["s"]}) in summaries(caplog.records)
    assert messages(caplog)[-1].startswith("restored the last known good of 0 settings, ")
    assert messages(caplog)[-1].endswith("; 0 settings have none")
    service.is_running = True
    client.advance(60)
    assert (setting.get(user="jim"), setting.get(user="ann")) == (9, 9)
    client.close()


def test_a_newer_response_is_restored_if_fewer_contexts_are_tracked_after_the_start(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """The one that was restored had the rules for all contexts, and is older."""
    with driven(service, last_known_good=file) as client:
        rule_id = service.add_rule("s", 8, user="jim")
        client.reload()  # with the rules for all contexts
        client.track_contexts(user="jim")
        service.change_rule(rule_id, 9)
        client.reload()
    reset_settings()

    service.is_running = False
    client = DrivenClient(service, last_known_good=file)
    client.start()
    assert setting.get(user="jim") == 8
    client.track_contexts(user="jim")
    client.advance(60)
    assert setting.get(user="jim") == 9
    client.close()


def test_a_renamed_setting_uses_the_response_for_its_alias(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """A previous release of the program has stored it."""
    store_rule(service, file)
    new = Setting("new", int, ["user"], 7, alias="s", version="1.1")
    service.is_running = False
    with driven(service, last_known_good=file):
        assert (new.get(user="jim"), setting.get(user="jim")) == (8, 8)


@pytest.mark.parametrize(("newest", "value"), [("s", 2), ("new", 1)])
def test_the_newest_response_under_any_name_of_a_setting_is_used(
    service: FakeService, file: MemoryFile, newest: str, value: int
) -> None:
    """For example if a release that renamed it was rolled back for some time."""
    responses = {"new": {"rules": [], "default_value": 1}, "s": {"rules": [], "default_value": 2}}
    for name, response in responses.items():
        store(file, {name: response}, at=START - 10 if name == newest else START - 500)
    setting = Setting("new", int, ["user"], 7, alias="s", version="1.1")
    service.is_running = False
    with driven(service, last_known_good=file) as client:
        assert setting.get(user="jim") == value
        assert client.status().age == 10


def test_the_default_in_a_declaration_response_replaces_the_stored_default(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """An older release of the program declares the setting, and then queries fail. The stored rules are used."""
    store_rule(service, file)
    service.declare("s", "int", 5, ["user"], version="1.1")
    service.respond_with(QUERY, BAD_GATEWAY)
    with driven(service, last_known_good=file) as client:
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 5)
        assert setting.explain(user="ann").reason is Reason.SERVER_DEFAULT
        assert client.status().is_last_known_good


def test_a_default_received_after_the_restore_replaces_the_stored_default(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """The stored rules are still used."""
    store_rule(service, file)
    service.declare("s", "int", 5, ["user"], version="1.1")
    service.is_running = False
    with driven(service, last_known_good=file) as client:
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 7)
        service.is_running = True
        service.respond_with(QUERY, BAD_GATEWAY)
        client.reload_expecting(HeksherError)
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 5)
        assert client.status().is_last_known_good


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_newly_declared_default_replaces_the_stored_default(
    service: FakeService, file: MemoryFile, version: str
) -> None:
    """Declarations succeed and queries fail, after an upgrade of the program or a restored default in the service."""
    previous = Setting("s", int, ["user"], 5)
    store_rule(service, file)
    assert previous.get() == 5
    registry._entries.clear()
    setting = Setting("s", int, ["user"], 10 if version == "1.1" else 5, version=version)
    service.respond_with(QUERY, BAD_GATEWAY)
    with driven(service, last_known_good=file):
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, setting.default_value)
        assert setting.explain(user="ann").reason is Reason.SERVER_DEFAULT


def test_a_stored_response_for_a_newly_created_setting_is_ignored(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """The outcome `created` shows that the database was emptied. Then queries fail."""
    store_rule(service, file)
    service.empty()
    service.respond_with(QUERY, BAD_GATEWAY)
    with driven(service, last_known_good=file):
        resolution = setting.explain(user="jim")
        assert (resolution.value, resolution.reason) == (7, Reason.SERVER_DEFAULT)


@pytest.mark.parametrize(("version", "default"), [("1.0", 7), ("1.1", 5)])
def test_the_default_in_a_declaration_response_replaces_a_stored_default_that_was_invalid(
    service: FakeService, file: MemoryFile, setting: Setting[int], version: str, default: int
) -> None:
    """The declaration is up to date, or the service has a newer one with another default."""
    service.declare("s", "int", 7, ["user"])
    service.declare("s", "int", default, ["user"], version=version)
    rules = [{"value": 8, "rule_id": 1, "context_features": [["user", "jim"]]}]
    store(file, {"s": {"rules": rules, "default_value": "x"}})
    service.respond_with(QUERY, BAD_GATEWAY)
    with driven(service, last_known_good=file):
        resolution = setting.explain(user="ann")
        assert (setting.get(user="jim"), resolution.value) == (8, default)
        assert resolution.reason is Reason.SERVER_DEFAULT


# -- the order of the context features ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "value"), [(("theme", "user", "environment"), 1), ((), 2)])
def test_the_stored_order_of_context_features_ranks_the_rules(
    service: FakeService, file: MemoryFile, order: tuple[str, ...], value: int
) -> None:
    """The order in the options of the client may be outdated. It is used if no order is stored."""
    setting = Setting("s", int, ["theme", "user"], 7)
    rules = [
        {"value": 1, "rule_id": 1, "context_features": [["user", "jim"]]},
        {"value": 2, "rule_id": 2, "context_features": [["theme", "dark"]]},
    ]
    store(file, {"s": {"rules": rules, "default_value": 0}}, order=order)
    service.is_running = False
    with driven(service, last_known_good=file):
        assert setting.get(user="jim", theme="dark") == value


def test_an_unknown_order_of_context_features_is_restored(service: FakeService, file: MemoryFile) -> None:
    """Only that endpoint fails. Rules would otherwise be ranked by the client's own list, which may be outdated."""
    setting = Setting("s", int, ["environment", "user"], 0)
    outdated = service.features.copy()
    service.move_feature("environment", to_after="theme")
    with driven(service, last_known_good=file, context_features=outdated) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, environment="prod")
        client.reload()
        assert setting.get(user="jim", environment="prod") == 2
    reset_settings()
    service.respond_with(CONTEXT_FEATURES, CannedResponse(500))
    with driven(service, last_known_good=file, context_features=["environment", "user", "theme"]) as client:
        assert setting.get(user="jim", environment="prod") == 2
        assert client.status().state is State.FAILING
        assert "order of the context features" in (client.status().last_error or "")
        assert client.state_after_reload() is State.FAILING
        assert setting.get(user="jim", environment="prod") == 2
    assert file.content is not None
    assert file.content.order == ("user", "theme", "environment")


def test_without_a_stored_order_of_context_features_that_of_the_client_is_used(
    service: FakeService, file: MemoryFile
) -> None:
    """Only that endpoint fails, at the first start on a machine."""
    setting = Setting("s", int, ["environment", "user"], 0)
    service.declare("s", "int", 0, ["environment", "user"])
    service.add_rule("s", 1, user="jim")
    service.add_rule("s", 2, environment="prod")
    service.respond_with(CONTEXT_FEATURES, CannedResponse(500))
    with driven(service, last_known_good=file, context_features=["user", "environment"]) as client:
        assert setting.get(user="jim", environment="prod") == 2
        assert "order of the context features" in (client.status().last_error or "")


@pytest.mark.usefixtures("setting")
def test_an_unconfirmed_order_of_context_features_is_not_stored(service: FakeService, file: MemoryFile) -> None:
    """Another process may have stored a newer order."""
    with driven(service, last_known_good=file) as client:
        assert file.content is not None
        file.write(replace(file.content, order=("user", "environment", "theme")))
        service.respond_with(CONTEXT_FEATURES, CannedResponse(500))
        client.state_after_reload()
        assert file.content.order == ("user", "environment", "theme")


# -- storing -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("setting")
def test_a_refresh_without_changes_neither_writes_nor_reads(service: FakeService, file: MemoryFile) -> None:
    """Only the time of the last confirmation is updated, every ten minutes. Its response is still a 304."""
    with driven(service, last_known_good=file, update_interval=300) as client:
        assert file.writes == 1
        client.advance(300)
        assert file.writes == 1
        client.advance(300)
        assert file.writes == 2
        assert all("if-none-match" in request.headers for request in service.requests_to(QUERY)[1:])


@pytest.mark.usefixtures("setting")
def test_a_later_failure_does_not_read_the_last_known_good(
    service: FakeService, file: MemoryFile, caplog: pytest.LogCaptureFixture
) -> None:
    """All settings have rules of the service."""
    with driven(service, last_known_good=file) as client:
        service.is_running = False
        file.error = NO_SPACE
        client.reload_expecting(HeksherError)
        assert client.status().last_known_good_problem is None
    assert not any("last known good" in message for message in messages(caplog))


def test_a_deleted_file_is_written_again(service: FakeService, file: MemoryFile, setting: Setting[int]) -> None:
    """All settings are queried again without an ETag."""
    store_rule(service, file)
    with driven(service, last_known_good=file) as client:
        file.content = None
        client.refresh(2)
        assert "if-none-match" not in service.requests[-1].headers
        assert stored(file, "s")["rules"][0]["value"] == 8
        assert setting.get(user="jim") == 8


def test_c12_a_full_disk_affects_only_the_last_known_good(
    service: FakeService, file: MemoryFile, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and the responses are stored when there is space again."""
    with driven(service, last_known_good=file) as client:
        service.add_rule("s", 8, user="jim")
        file.error = NO_SPACE
        client.refresh(3)
        assert setting.get(user="jim") == 8
        status = client.status()
        assert (status.state, status.last_known_good_problem) == (State.FRESH, "[Errno 28] No space left on device")
        text = "the last known good cannot be stored: [Errno 28] No space left on device"
        assert summaries(caplog.records) == [("WARNING", text, {"error": NO_SPACE})]

        file.error = None
        client.refresh()
        assert stored(file, "s")["rules"][0]["value"] == 8
        assert client.status().last_known_good_problem is None


def test_a_response_that_could_not_be_stored_is_not_stored_after_a_newer_one(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """Of the responses during a hanging disk, only the last one is stored."""
    with driven(service, last_known_good=file) as client:
        client.is_disk_available = False
        for value in (8, 9):
            service.add_rule("s", value, user="jim")
            client.refresh()
            assert setting.get(user="jim") == value
            assert client.status().last_known_good_problem == "the disk takes too long"
        client.is_disk_available = True
        client.refresh()
        assert [rule["value"] for rule in stored(file, "s")["rules"]] == [8, 9]
        assert file.writes == 2


@pytest.mark.usefixtures("setting")
def test_a_response_that_could_not_be_stored_is_dropped_if_it_is_not_current(
    service: FakeService, file: MemoryFile
) -> None:
    """The next response for the setting was invalid, so that nobody confirms the previous one."""
    good = Setting("good", int, ["user"], 1)
    with driven(service, last_known_good=file) as client:
        file.error = NO_SPACE
        service.add_rule("s", 8, user="jim")
        client.refresh()
        file.error = None
        service.respond_with(
            QUERY, CannedResponse.of({"settings": {"s": {}, "good": {"rules": [], "default_value": 2}}})
        )
        client.refresh()
        assert good.get(user="jim") == 2
        assert (stored(file, "s")["rules"], stored(file, "good")["default_value"]) == ([], 2)


def test_c12_a_disk_that_hangs_at_the_start_is_like_no_last_known_good(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """The values are restored when it is available again."""
    store_rule(service, file)
    service.is_running = False
    client = DrivenClient(service, last_known_good=file)
    client.is_disk_available = False
    with pytest.raises(ServiceUnavailableError):
        client.start()
    assert (setting.get(user="jim"), client.status().last_known_good_problem) == (7, "the disk takes too long")
    client.is_disk_available = True
    client.refresh()
    assert (setting.get(user="jim"), client.status().last_known_good_problem) == (8, None)
    client.close()


@pytest.mark.usefixtures("setting")
def test_a_response_that_is_to_be_stored_later_does_not_keep_those_of_other_settings(
    service: FakeService, file: MemoryFile
) -> None:
    """It is copied out of the response to the query, which may be much larger."""
    file.error = NO_SPACE
    with driven(service, last_known_good=file) as client:
        file.error = None
        client.refresh()
        assert "if-none-match" in service.requests[-1].headers
    assert file.content is not None
    (row,) = file.content.settings["s"].values()
    assert row.content.copy() is row.content  # Only what refers to another object is copied.


@pytest.mark.usefixtures("setting")
def test_the_status_does_not_wait_for_the_disk(
    service: FakeService, file: MemoryFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are fresh as soon as their rules are applied."""
    client = DrivenClient(service, last_known_good=file)
    states: list[State] = []

    def write(content: Content) -> StatSignature:
        states.append(client.status().state)
        return MemoryFile.write(file, content)

    monkeypatch.setattr(file, "write", write)
    client.start()
    assert states == [State.FRESH]
    client.close()


def test_an_unexpected_error_while_storing_does_not_end_the_refreshing(
    service: FakeService, file: MemoryFile, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the error of that refresh, whose rules are applied, and are stored by the next one without being sent
    again. Nothing is due earlier, as the settings are up to date."""
    with driven(service, last_known_good=file, update_interval=60) as client:
        service.add_rule("s", 8, user="jim")
        with monkeypatch.context() as patched:
            patched.setattr(file, "signature", lambda: 1 / 0)
            patched.setattr(file, "write", lambda content: 1 / 0)
            client.reload_expecting(ZeroDivisionError)
        assert client.status().last_known_good_problem == "ZeroDivisionError: division by zero"
        assert setting.get(user="jim") == 8
        client.refresh()
        assert client.waits == [60]
        assert "if-none-match" in service.requests[-1].headers
        assert stored(file, "s")["rules"][0]["value"] == 8
        assert client.status().last_known_good_problem is None


def test_d7_restored_rules_of_a_refused_setting_do_not_make_the_others_stale(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """Their age counts at the start. Then the service confirms all others, and the status names this one."""
    store_rule(service, file)
    good = Setting("good", int, ["user"], 1)
    service.respond_with(DECLARE, lambda request: CannedResponse(422) if request.json["name"] == "s" else None)
    with driven(service, last_known_good=file, now=START + 500, update_interval=10, stale_after=100) as client:
        assert (setting.get(user="jim"), good.get(user="jim")) == (8, 1)
        assert (client.status().state, client.status().is_last_known_good) == (State.STALE, True)
        client.advance(500)
        assert (client.status().state, client.status().age) == (State.FAILING, 0)
        assert client.status().settings["s"].problem is not None
        assert setting.get(user="jim") == 8
        service.intercept = lambda request: CannedResponse(503)
        client.advance(100)
        assert client.status().state is State.STALE


def test_d7_the_response_of_a_setting_that_recovers_is_stored_by_the_next_refresh(
    service: FakeService, file: MemoryFile, setting: Setting[int]
) -> None:
    """It was received apart from the others, and is not queried again."""
    _good = Setting("good", int, ["user"], 1)
    service.declare("s", "int", 7, ["user"])
    service.add_rule("s", 8, user="jim")
    service.respond_with(
        DECLARE, lambda request: CannedResponse(422) if request.json["name"] == setting.name else None, times=2
    )
    with driven(service, last_known_good=file, update_interval=60) as client:
        client.refresh(2)
        assert client.waits == [30, 30]
        assert stored(file, "s")["rules"][0]["value"] == 8
        client.refresh()
        assert "if-none-match" in service.requests[-1].headers


def test_d7_the_responses_of_several_settings_that_recover_are_stored_by_one_refresh(
    service: FakeService, file: MemoryFile
) -> None:
    """Each with its position, and copied out of the response to its query. They were received one after the other."""
    _settings = [Setting(name, int, ["user"], 1) for name in ("good", "s", "t")]
    service.offers_changes = True
    refused = {"s", "t"}
    service.respond_with(DECLARE, lambda request: CannedResponse(422) if request.json["name"] in refused else None)
    with driven(service, last_known_good=file, update_interval=100, follow_changes=False) as client:
        refused.remove("s")
        client.advance(30)
        refused.remove("t")
        client.advance(60)
        assert file.names() == {"good"}
        client.refresh()
        assert file.names() == {"good", "s", "t"}
        assert file.content is not None
        rows = [row for name in ("good", "s", "t") for row in file.content.settings[name].values()]
        assert [row.position and row.position.revision for row in rows] == [1, 2, 3]
        assert all(row.content.copy() is row.content for row in rows[1:])
