"""Replicas that lag, restored databases, and changes during a refresh: which responses are used."""

import dataclasses
import logging
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from heksher_client import DeclarationError, Reason, Setting, State, UnexpectedResponseError
from heksher_client._core.refresh.effects import NoResponse, Oversized, Reply, Response
from heksher_client._core.refresh.positions import (
    Position,
    Validity,
    inconsistent,
    newest_by_service,
    oldest_position,
    position,
)
from tests.support.clients import FEATURES
from tests.support.driven import START, DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.service import CHANGES, CONTEXT_FEATURES, DECLARE, QUERY, CannedResponse, RecordedRequest

MANY = 80
"""Settings that are queried in two parts."""


@pytest.fixture
def service(service: FakeService) -> FakeService:
    service.offers_changes = True
    return service


@pytest.fixture(params=["identified", "plain"])
def any_service(service: FakeService, request: pytest.FixtureRequest) -> FakeService:
    """A service that sends the identity of its database, and one that sends the revision only."""
    if request.param == "plain":
        service.database = ""
    return service


def polling(service: FakeService, **options: Any) -> Any:
    return driven(service, **{"follow_changes": False, "update_interval": 60, **options})


def all_from(replica: FakeService) -> Any:
    """Return an intercept with which a replica responds to all requests that read."""

    def respond(request: RecordedRequest) -> Reply | None:
        is_read = request.method == "GET" and request.path != "/api/v1/changes"
        return replica._respond(request) if is_read else None

    return respond


def add_and_lag(service: FakeService, client: DrivenClient) -> FakeService:
    """Change a rule and load it. Return a replica without the change."""
    service.add_rule("s", 8, user="jim")
    client.reload()
    replica = service.snapshot()
    service.add_rule("s", 9, user="ann")
    client.reload()
    return replica


# -- positions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epoch", "text"), [(0, "revision 5 of"), (3, "revision 5 of epoch 3 of")])
def test_a_position_in_a_message_has_the_epoch_if_there_is_one(epoch: int, text: str) -> None:
    assert str(Position("id", epoch, 5)) == f"{text} the service's database"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"heksher-revision": "0"}, Position("", 0, 0)),
        ({"heksher-revision": "9" * 18}, Position("", 0, 10**18 - 1)),
        ({"heksher-revision": "9" * 19}, None),
        ({"heksher-revision": "-1"}, None),
        ({"heksher-revision": ""}, None),
        ({"heksher-database": "a.1"}, None),
        ({}, None),
        ({"heksher-revision": "5", "heksher-database": "aB-_0.12"}, Position("aB-_0", 12, 5)),
        ({"heksher-revision": "5", "heksher-database": f"a.{'9' * 19}"}, Position("", 0, 5)),
        ({"heksher-revision": "5", "heksher-database": "a"}, Position("", 0, 5)),
        ({"heksher-revision": "5", "heksher-database": "\r.1"}, Position("", 0, 5)),
    ],
)
def test_the_position_of_a_response_is_in_its_headers(headers: dict[str, str], expected: Position | None) -> None:
    for status in (200, 304, 404):
        assert position(Response(status, headers=headers)) == expected


@pytest.mark.parametrize("reply", [NoResponse(OSError()), Oversized(200, 10)])
def test_other_replies_have_no_position(reply: Reply) -> None:
    assert position(reply) is None


A, B, OTHER, PLAIN = Position("a", 1, 5), Position("a", 2, 3), Position("b", 1, 1), Position("", 0, 5)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [([A, B], A), ([B, A], A), ([A, None], None), ([None], None), ([], None), ([A, OTHER], None), ([PLAIN], PLAIN)],
)
def test_several_responses_are_together_of_the_oldest_position(
    positions: list[Position | None], expected: Position | None
) -> None:
    assert oldest_position(positions) == expected


@pytest.mark.parametrize(
    ("validities", "expected"),
    [
        ({"x": Validity(A, A), "y": Validity(A, A)}, []),
        ({"x": Validity(A, A), "y": Validity(B, B)}, ["x"]),
        ({"x": Validity(A, B), "y": Validity(B, B)}, []),
        ({"x": Validity(None, A), "y": Validity(None, B)}, []),
        ({"x": Validity(None, A), "y": Validity(B, B)}, ["x"]),
        ({"x": Validity(A, A), "y": Validity(None, B)}, []),
        ({"x": Validity(None, None), "y": Validity(B, B)}, []),
        ({"x": Validity(A, A), "y": Validity(None, OTHER)}, ["x", "y"]),
        ({}, []),
    ],
)
def test_responses_are_consistent_if_all_are_valid_for_one_position(
    validities: dict[str, Validity], expected: list[str]
) -> None:
    assert inconsistent(validities) == expected


# -- replicas that lag -------------------------------------------------------------------------------------------------


def test_d9_a_value_does_not_go_back_with_a_replica_that_lags(any_service: FakeService, setting: Setting[int]) -> None:
    """It responds to every second request. The state is fresh, and values are new."""
    with polling(any_service) as client:
        any_service.replica = add_and_lag(any_service, client)
        for value in range(20):
            rule = any_service.add_rule("s", value, user=f"u{value}")
            client.refresh()
            assert (setting.get(user="ann"), setting.get(user=f"u{value}")) == (9, value)
            assert client.status().state is State.FRESH
            any_service.delete_rule(rule)
        assert set(client.outcomes) == {None}


@pytest.mark.parametrize("lagging", [QUERY, CONTEXT_FEATURES])
def test_d9_an_endpoint_that_lags_is_reported(
    any_service: FakeService, setting: Setting[int], lagging: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked a few times. The values stay, the log has one record of it, and the client recovers."""
    with polling(any_service) as client:
        replica = add_and_lag(any_service, client)
        any_service.change_another_setting()
        any_service.respond_with(lagging, replica._respond)
        caplog.clear()
        before = len(any_service.requests_to(lagging))
        for _ in range(3):
            client.refresh()
        assert setting.get(user="ann") == 9
        assert len(any_service.requests_to(lagging)) - before == 3 * 9
        status = client.status()
        assert (status.state, status.failures) == (State.FAILING, 3)
        assert status.last_error is not None
        assert "and one of revision" in status.last_error
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        any_service.intercept = lambda request: None
        client.refresh()
        assert client.status().state is State.FRESH


def test_d9_a_replica_that_catches_up_is_waited_for(service: FakeService, setting: Setting[int]) -> None:
    """For half a second."""
    with polling(service) as client:
        replica = add_and_lag(service, client)
        service.change_another_setting()
        service.respond_with(QUERY, replica._respond, times=6)
        start = client.now
        client.reload()
        assert client.now - start == pytest.approx(0.3)
        connections = [request.headers.get("connection") for request in service.requests_to(QUERY)[-7:]]
        assert connections == [None] * 4 + ["close"] * 3
        assert (setting.get(user="ann"), client.status().state) == (9, State.FRESH)


def test_d9_an_unmodified_response_of_a_replica_that_lags_confirms_nothing(
    any_service: FakeService, setting: Setting[int]
) -> None:
    with polling(any_service) as client:
        replica = add_and_lag(any_service, client)
        any_service.change_another_setting()
        any_service.respond_with(QUERY, lambda request: Response(304, headers=replica._position()))
        client.reload_expecting(UnexpectedResponseError)
        any_service.intercept = lambda request: None
        client.reload()
        assert setting.get(user="ann") == 9
        assert any_service.requests_to(QUERY)[-1].headers["if-none-match"]


def test_d9_a_response_of_the_same_revision_is_used(any_service: FakeService, setting: Setting[int]) -> None:
    """If the database has an identity as well, nothing is queried."""
    with polling(any_service) as client:
        add_and_lag(any_service, client)
        before = len(any_service.requests)
        client.refresh()
        assert len(any_service.requests) - before == (1 if any_service.database else 2)
        assert client.status().state is State.FRESH


def test_d9_without_a_revision_every_response_is_used(service: FakeService, setting: Setting[int]) -> None:
    service.offers_changes = False
    with polling(service) as client:
        replica = add_and_lag(service, client)
        service.intercept = all_from(replica)
        client.reload()
        assert setting.get(user="ann") == 7


def test_d9_a_setting_is_not_lost_because_a_replica_lags(service: FakeService) -> None:
    """Its 404 to a query of a new setting is older than the declaration, also if another process has declared it."""
    with polling(service) as client:
        client.reload()
        replica = service.snapshot()
        created = Setting("created", int, ["user"], 1)
        service.respond_with(QUERY, replica._respond, times=2)
        client.reload()
        service.declare("declared", "int", 2, ["user"])
        declared = Setting("declared", int, ["user"], 2)
        service.respond_with(QUERY, replica._respond, times=2)
        client.reload()
        assert (created.get(user="jim"), declared.get(user="jim")) == (1, 2)
        assert set(client.outcomes) == {None}
        assert client.status().settings["declared"].problem is None


def test_d9_a_declaration_that_a_replica_responds_to_changes_no_default(
    service: FakeService, setting: Setting[int]
) -> None:
    """It has a former default, which is newer than that of the program. The service has deleted the setting since."""
    service.declare("s", "int", 7, ["user"])
    service.declare("s", "int", 1, ["user"], version="1.1")
    replica = service.snapshot()
    service.declare("s", "int", 2, ["user"], version="1.2")
    with polling(service) as client:
        assert setting.get(user="jim") == 2
        service.delete("s")
        service.respond_with(DECLARE, replica._respond)
        assert str(client.reload_expecting(DeclarationError)) == "the service denies setting s"
        assert setting.get(user="jim") == 2
        service.intercept = lambda request: None
        client.reload()
        assert setting.get(user="jim") == 7


@pytest.mark.parametrize("count", [1, 30])
def test_d9_declarations_that_a_replica_responds_to_are_accepted(any_service: FakeService, count: int) -> None:
    """They take one request each, and the queries have the newest values. For the next clients and new settings too."""
    settings = [Setting(f"s{i}", int, ["user"], 1) for i in range(count)]
    for setting in settings:
        any_service.declare(setting.name, "int", 1, ["user"])
        any_service.declare(setting.name, "int", 2, ["user"], version="1.1")
    replica = any_service.snapshot()
    for setting in settings:
        any_service.declare(setting.name, "int", 3, ["user"], version="1.2")
        any_service.add_rule(setting.name, 4, user="jim")

    def respond(request: RecordedRequest) -> Reply | None:
        reply: Response = any_service._respond(request)
        is_declaration = str(request) == DECLARE
        return replace(reply, headers=replica._position()) if is_declaration else None

    any_service.intercept = respond
    for number in range(3):
        with polling(any_service, follow_changes=True) as client:
            settings.append(new := Setting(f"new{number}", int, ["user"], 3))
            any_service.requests.clear()
            client.refresh()
            assert len(any_service.requests_to(DECLARE)) == 1
            any_service.add_rule(new.name, 4, user="jim")
            client.reload()
            assert {setting.get(user="jim") for setting in settings} == {4}
            assert {setting.get(user="ann") for setting in settings} == {3}
            assert client.status().state is State.FRESH


def test_d9_a_default_of_a_replica_is_not_used_if_the_query_fails(service: FakeService) -> None:
    """The value of the last known good, or of a former client, stays."""
    first = Setting("s", int, ["user"], 7)
    service.declare("s", "int", 7, ["user"])
    service.declare("s", "int", 1, ["user"], version="1.1")
    replica = service.snapshot()
    service.declare("s", "int", 2, ["user"], version="1.2")
    with polling(service):
        assert first.get(user="jim") == 2
    service.intercept = lambda request: (
        replica._respond(request) if str(request) == DECLARE else CannedResponse(503) if str(request) == QUERY else None
    )
    with polling(service):
        assert len(service.requests_to(DECLARE)) == 2
        assert first.get(user="jim") == 2


def test_d9_a_refusal_of_a_replica_concerns_its_declaration_only(
    any_service: FakeService, setting: Setting[int]
) -> None:
    """It may be an alias that the replica does not have yet. The declaration is sent again a few times, and later."""
    with polling(any_service) as client:
        replica = add_and_lag(any_service, client)
        any_service.declare("old", "int", 1, ["user"])
        any_service.add_rule("s", 10, user="eve")
        client.reload()
        any_service.respond_with(DECLARE, replica._respond)
        new = Setting("new", int, ["user"], 1, alias="old", version="1.1")
        any_service.requests.clear()
        client.refresh()
        assert len(any_service.requests_to(DECLARE)) == 9
        assert (setting.get(user="eve"), client.status().settings["s"].problem) == (10, None)
        assert "was received before" in (client.status().settings["new"].problem or "")
        assert client.status().next_attempt == 60
        any_service.intercept = lambda request: None
        client.advance(1)
        assert new.explain(user="jim").reason is Reason.SERVER_DEFAULT
        assert client.status().state is State.FRESH
        assert "old" not in any_service.settings


def test_d9_the_child_of_a_fork_does_not_go_back(any_service: FakeService, setting: Setting[int]) -> None:
    with polling(any_service) as client:
        any_service.replica = add_and_lag(any_service, client)
        client.continue_in_child()
        client.refresh(2)
        assert (setting.get(user="ann"), client.status().state) == (9, State.FRESH)


def test_d9_the_next_client_does_not_go_back(any_service: FakeService, setting: Setting[int]) -> None:
    """It begins with the values of the former one."""
    with polling(any_service) as client:
        replica = add_and_lag(any_service, client)
    any_service.intercept = all_from(replica)
    with polling(any_service) as client:
        assert setting.get(user="ann") == 9
        assert client.status().state is State.STALE  # It has never received anything.
        any_service.intercept = lambda request: None
        client.refresh()
        assert client.status().state is State.FRESH


def test_d9_a_start_from_the_file_does_not_go_back(
    any_service: FakeService, setting: Setting[int], tmp_path: Path
) -> None:
    file = tmp_path / "settings.json"
    with polling(any_service, last_known_good=file) as client:
        replica = add_and_lag(any_service, client)
    newest_by_service.clear()  # as in a new process
    del setting
    setting = Setting("s", int, ["user"], 7)
    any_service.is_running = False
    with polling(any_service, last_known_good=file) as client:
        assert setting.get(user="ann") == 9
        any_service.is_running = True
        any_service.intercept = all_from(replica)
        client.refresh()
        assert (setting.get(user="ann"), client.status().is_last_known_good) == (9, True)
        any_service.intercept = lambda request: None
        client.refresh()
        assert (setting.get(user="ann"), client.status().is_last_known_good) == (9, False)


def test_d9_reads_of_all_settings_do_not_go_back(any_service: FakeService, setting: Setting[int]) -> None:
    """`get_settings` asks again, and raises if the response stays older."""
    with polling(any_service) as client:
        client.get_settings()
        replica = any_service.snapshot()
        any_service.declare("new", "int", 1, ["user"])
        assert "new" in client.get_settings()
        any_service.replica = replica
        for _ in range(3):
            assert "new" in client.get_settings()
        any_service.replica, any_service.intercept = None, all_from(replica)
        text = f"of revision {replica.revision} .*, and one of revision {any_service.revision} .* was received before$"
        with pytest.raises(UnexpectedResponseError, match=text):
            client.get_settings()
        client.ping()


# -- responses that were applied for single settings -------------------------------------------------------------------


@pytest.fixture
def pair(service: FakeService) -> list[Setting[int]]:
    settings = [Setting(name, int, ["user"], 7) for name in "st"]
    for setting in settings:
        service.declare(setting.name, "int", 7, ["user"])
    return settings


def without_default_of_t(reply: Response) -> Response:
    return replace(reply, content=reply.content.replace(b'"t": {"default_value": 7, ', b'"t": {'))


@pytest.mark.parametrize("is_refused", [False, True])
def test_d9_a_value_does_not_go_back_after_a_retry_of_its_setting(
    any_service: FakeService, pair: list[Setting[int]], is_refused: bool
) -> None:
    """Its declaration or its response had failed. The order of the features need not be as new as the retry."""
    older, setting = any_service.snapshot(), pair[1]

    def fail(request: RecordedRequest) -> Reply | CannedResponse | None:
        if is_refused:
            is_concerned = str(request) == DECLARE and request.json["name"] == "t"
            return CannedResponse(503) if is_concerned else None
        return without_default_of_t(older._respond(request)) if str(request) == QUERY else None

    any_service.intercept = fail
    with polling(any_service) as client:
        assert client.status().settings["t"].problem is not None
        any_service.add_rule("t", 8, user="jim")
        any_service.intercept = lambda request: None
        client.advance(30)
        assert (setting.get(user="jim"), client.status().settings["t"].problem) == (8, None)
        any_service.respond_with(QUERY, older._respond)
        client.reload_expecting(UnexpectedResponseError)
        assert setting.get(user="jim") == 8
        any_service.respond_with(CONTEXT_FEATURES, older._respond)
        client.reload()
        assert (setting.get(user="jim"), client.status().state) == (8, State.FRESH)


def test_d9_a_retry_without_a_usable_response_requires_nothing(service: FakeService, pair: list[Setting[int]]) -> None:
    """The other settings are refreshed from a replica that lags, as before."""
    service.add_rule("s", 8, user="jim")
    older = service.snapshot()
    service.change_another_setting()

    def respond(request: RecordedRequest) -> Reply:
        if str(request) != QUERY:
            return replace(older._respond(request), headers={})
        is_retry = request.query["settings"] == "t"
        return without_default_of_t((service if is_retry else older)._respond(request))

    service.intercept = respond
    with polling(service) as client:
        client.advance(130)
        assert "t" in {request.query["settings"] for request in service.requests_to(QUERY)}
        assert pair[0].get(user="jim") == 8
        assert "has no default value" in (client.status().settings["t"].problem or "")
        assert "was received before" not in (client.status().last_error or "")


def test_d9_a_restored_setting_does_not_go_back(
    any_service: FakeService, pair: list[Setting[int]], tmp_path: Path
) -> None:
    """The response to the same query had older values of other settings, but no usable one of this setting."""
    file, older = tmp_path / "settings.json", any_service.snapshot()
    with polling(any_service, last_known_good=file) as client:
        any_service.add_rule("t", 8, user="jim")
        client.refresh()
    newest_by_service.clear()  # as in a new process
    pair.clear()
    pair += [Setting(name, int, ["user"], 7) for name in "st"]
    any_service.intercept = lambda request: without_default_of_t(older._respond(request))
    with polling(any_service, last_known_good=file) as client:
        assert pair[1].get(user="jim") == 8
        any_service.intercept = all_from(older)
        client.reload_expecting(UnexpectedResponseError)
        assert pair[1].get(user="jim") == 8
        any_service.intercept = lambda request: None
        client.reload()
        assert (pair[1].get(user="jim"), client.status().state) == (8, State.FRESH)


def test_d9_a_client_does_not_go_back_after_another_one_was_the_main_one(
    any_service: FakeService, setting: Setting[int]
) -> None:
    with polling(any_service) as client:
        older = any_service.snapshot()
        any_service.add_rule("s", 8, user="jim")
        with polling(any_service):
            assert setting.get(user="jim") == 8
        any_service.intercept = all_from(older)
        client.refresh()
        assert (setting.get(user="jim"), client.status().failures) == (8, 1)


def test_d9_an_older_response_follows_the_default_of_a_declaration(
    any_service: FakeService, setting: Setting[int]
) -> None:
    """A program starts with a replica that lags, so the values of its response are used, and not the newer default."""
    any_service.declare("s", "int", 7, ["user"])
    any_service.declare("s", "int", 1, ["user"], version="1.1")
    older = any_service.snapshot()
    any_service.declare("s", "int", 2, ["user"], version="1.2")
    seen: list[int] = []

    def respond(request: RecordedRequest) -> Reply | None:
        seen.append(setting.get(user="none"))
        return older._respond(request) if str(request) == QUERY else None

    any_service.intercept = respond
    with polling(any_service) as client:
        assert (set(seen), setting.get(user="jim"), client.status().state) == ({7}, 1, State.FRESH)
        any_service.intercept = lambda request: None
        client.refresh()
        assert setting.get(user="jim") == 2


def test_d9_a_default_that_was_used_as_the_query_failed_does_not_go_back(
    any_service: FakeService, setting: Setting[int]
) -> None:
    """The service had lost the setting for a moment. The responses to the same query were older before."""
    any_service.declare("s", "int", 7, ["user"])
    any_service.declare("s", "int", 1, ["user"], version="1.1")
    with polling(any_service) as client:
        older = any_service.snapshot()
        any_service.declare("s", "int", 2, ["user"], version="1.2")
        replies: list[Reply] = [Response(404), Response(503)]
        any_service.respond_with(
            QUERY, lambda request: replies.pop(0) if replies else older._respond(request), times=20
        )
        client.reload_expecting(UnexpectedResponseError)
        assert (setting.get(user="jim"), replies) == (2, [])
        client.reload_expecting(UnexpectedResponseError)
        assert setting.get(user="jim") == 2
        any_service.intercept = lambda request: None
        client.reload()
        assert (setting.get(user="jim"), client.status().state) == (2, State.FRESH)


# -- restored databases ------------------------------------------------------------------------------------------------


def test_d9_a_restored_backup_is_used(service: FakeService, setting: Setting[int]) -> None:
    """Its revision is lower, but its epoch is later. What is older than that is refused again."""
    with polling(service) as client:
        backup = add_and_lag(service, client)
        service.restore(backup)
        before = len(service.requests)
        client.refresh()
        assert (setting.get(user="ann"), setting.get(user="jim"), client.status().state) == (7, 8, State.FRESH)
        assert len(service.requests) - before == 2 + 3  # whether the former database responds as well
        service.respond_with(QUERY, backup._respond, times=3)
        client.refresh()
        assert client.outcomes[-1] is None


def test_d9_a_former_epoch_is_older_than_any_revision_of_a_later_one(
    service: FakeService, setting: Setting[int]
) -> None:
    """A replica that lags behind the restored database has a higher revision."""
    with polling(service) as client:
        backup = add_and_lag(service, client)
        replica = service.snapshot()
        service.restore(backup)
        client.refresh()
        service.intercept = all_from(replica)
        client.reload_expecting(UnexpectedResponseError)
        assert setting.get(user="ann") == 7


def test_d9_a_copy_with_its_own_service_is_not_used_while_the_former_one_responds(
    service: FakeService, setting: Setting[int]
) -> None:
    """Its epoch is later, as for a restored backup. It is used when only the copy responds."""
    with polling(service) as client:
        copied = add_and_lag(service, client)
        copied.restart()
        service.replica = copied
        client.refresh(10)
        assert (setting.get(user="ann"), client.status().state) == (9, State.FRESH)
        service.intercept = all_from(copied)
        client.refresh()
        assert (setting.get(user="ann"), client.status().state) == (7, State.FRESH)


@pytest.mark.parametrize("seconds", [290, 310])
def test_d9_an_earlier_epoch_is_used_if_nothing_else_responds_for_five_minutes(
    service: FakeService, setting: Setting[int], seconds: int
) -> None:
    """For example of a former copy that the service was switched back to. A single later response is reason to wait."""
    with polling(service, max_backoff=10) as client:
        former = add_and_lag(service, client)
        service.restart()
        client.refresh()
        service.intercept = all_from(former)
        client.advance(250)
        service.intercept = lambda request: None
        client.advance(20)
        service.intercept = all_from(former)
        client.refresh()
        client.advance(seconds)
        assert setting.get(user="ann") == (9 if seconds < 300 else 7)


def test_d9_another_database_is_used(service: FakeService, setting: Setting[int]) -> None:
    """Each of two databases does not go back."""
    with polling(service) as client:
        former = add_and_lag(service, client)
        service.replace_database()
        client.refresh()
        assert (setting.get(user="ann"), client.status().state) == (7, State.FRESH)
        service.intercept = all_from(former)
        client.reload_expecting(UnexpectedResponseError)


def test_d9_a_new_epoch_costs_no_response(service: FakeService, setting: Setting[int]) -> None:
    """A restart of the service does not change ETags."""
    with polling(service) as client:
        client.reload()
        service.restart()
        before = len(service.requests)
        client.refresh()
        order, query = service.requests[before:]
        assert (str(order), str(query)) == (CONTEXT_FEATURES, QUERY)
        response = service._respond(query)
        assert (response.status, response.headers["heksher-database"]) == (304, service.label)


@pytest.mark.parametrize("seconds", [290, 310])
def test_d9_older_revisions_without_an_epoch_are_used_after_five_minutes(
    service: FakeService, setting: Setting[int], seconds: int
) -> None:
    """The database must have been restored then."""
    service.database = ""
    with polling(service, max_backoff=10) as client:
        backup = add_and_lag(service, client)
        service.intercept = all_from(backup)
        client.advance(60)  # It was noticed after that.
        client.advance(seconds)
        assert setting.get(user="ann") == (9 if seconds < 300 else 7)
        assert client.status().failures == 0 or seconds < 300


def test_d9_a_single_response_of_the_newest_revision_shows_that_others_lag(
    service: FakeService, setting: Setting[int]
) -> None:
    """Without an epoch as well, however long the replica lags."""
    service.database = ""
    with polling(service, max_backoff=10) as client:
        replica = add_and_lag(service, client)
        service.respond_with(QUERY, replica._respond)  # The order of the features is of the newest revision.
        client.advance(1000)
        assert setting.get(user="ann") == 9


# -- the change stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_restored", [False, True])
def test_d9_a_stream_shows_that_the_database_was_restored(
    service: FakeService, setting: Setting[int], is_restored: bool
) -> None:
    """Also if its revision is not lower than the known one. After a restart, nothing is queried again."""
    with driven(service) as client:
        backup = add_and_lag(service, client)
        client.lose_stream()
        if is_restored:
            service.restore(backup)
            service.add_rule("s", 10, user="eve")
            service.add_rule("other", 1) if "other" in service.settings else service.change_another_setting()
        else:
            service.restart()
        before = len(service.requests_to(QUERY))
        client.advance(4)
        assert service.requests_to(CHANGES)[-1].headers["heksher-database"].startswith(service.database)
        assert len(service.requests_to(QUERY)) - before == is_restored
        assert (setting.get(user="ann"), setting.get(user="eve")) == ((7, 10) if is_restored else (9, 7))


@pytest.mark.parametrize("is_restored", [False, True])
def test_d9_a_refresh_before_the_stream_of_another_database(
    service: FakeService, setting: Setting[int], is_restored: bool
) -> None:
    """The next refresh is due after the interval, although the revisions are lower than that of the last change."""
    with driven(service) as client:
        backup = add_and_lag(service, client)
        client.lose_stream()
        service.restore(backup) if is_restored else service.replace_database()
        client.reload()
        client.advance(30)
        client.reload()
        assert client.status().is_following
        assert (setting.get(user="ann"), client.session.wait()) == (7, 3600)


def test_d9_the_stream_of_another_database_is_followed_if_it_does_not_say_the_order(
    service: FakeService, setting: Setting[int]
) -> None:
    """The last known order is that of the former database."""
    with driven(service) as client:
        client.refresh()
        service.respond_with(CONTEXT_FEATURES, CannedResponse(500))
        service.replace_database()
        client.lose_stream()
        client.advance(30)
        assert client.status().is_following
        service.add_rule("s", 8, user="jim")
        client.advance(0)
        assert setting.get(user="jim") == 8


# -- changes during a refresh ------------------------------------------------------------------------------------------


@pytest.fixture
def many(service: FakeService) -> list[Setting[int]]:
    """Settings that take two queries."""
    settings = [Setting(f"s{i}", int, ["user"], 0) for i in range(MANY)]
    for setting in settings:
        service.declare(setting.name, "int", 0, ["user"])
    return settings


def change_all(service: FakeService, value: int) -> None:
    """Change all settings in one step."""
    for setting in service.settings.values():
        for rule in setting.rules.values():
            rule.value = value
    service._changed()


def change_during(service: FakeService, route: str, number: int, *, times: int = 1) -> None:
    """Change all settings before the response to a request of a route, counted from 1, and to the next ones."""
    count = 0

    def intercept(request: RecordedRequest) -> None:
        nonlocal count
        if str(request) == route:
            count += 1
            if number <= count < number + times:
                change_all(service, 100 + count)

    service.intercept = intercept


def values(settings: list[Setting[int]]) -> set[int]:
    return {setting.get(user="jim") for setting in settings}


def start_with_rules(service: FakeService, client: DrivenClient, many: list[Setting[int]]) -> None:
    for setting in many:
        service.add_rule(setting.name, 1, user="jim")
    client.reload()
    assert values(many) == {1}
    service.change_another_setting()  # so that the next refresh has something to query


def test_d10_a_change_between_two_queries_is_loaded_at_once(service: FakeService, many: list[Setting[int]]) -> None:
    """The first query is sent again. No other one is."""
    with polling(service) as client:
        start_with_rules(service, client, many)
        change_during(service, QUERY, 2)
        before = len(service.requests_to(QUERY))
        client.reload()
        assert values(many) == {102}
        assert len(service.requests_to(QUERY)) - before == 3
        assert client.session.wait() == 60


def test_d10_a_change_between_the_order_and_a_query(service: FakeService, setting: Setting[int]) -> None:
    """The order is read again."""
    with polling(service) as client:
        service.add_rule("s", 1, user="jim")
        change_during(service, QUERY, 1)
        before = len(service.requests_to(CONTEXT_FEATURES))
        client.reload()
        assert setting.get(user="jim") == 101
        assert len(service.requests_to(CONTEXT_FEATURES)) - before == 2


def test_d10_the_order_and_the_rules_are_of_one_revision(service: FakeService) -> None:
    """A feature is moved, and a rule added, between the two requests."""
    setting = Setting("s", int, ["environment", "user"], 7)
    with polling(service) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, environment="prod")
        client.reload()
        assert setting.get(environment="prod", user="jim") == 1
        service.change_another_setting()

        def move(request: RecordedRequest) -> None:
            if str(request) == QUERY:
                service.intercept = lambda request: None
                service.move_feature("environment", to_after="user")
                service.add_rule("s", 3, user="ann")

        service.intercept = move
        client.reload()
        assert (setting.get(environment="prod", user="jim"), setting.get(environment="x", user="ann")) == (2, 3)


def test_d10_if_the_service_changes_all_the_time_the_responses_are_used(
    service: FakeService, many: list[Setting[int]]
) -> None:
    """After three repetitions. The next refresh follows within a second."""
    with polling(service) as client:
        start_with_rules(service, client, many)
        change_during(service, QUERY, 1, times=1000)
        before = len(service.requests_to(QUERY))
        client.reload()
        assert len(service.requests_to(QUERY)) - before == 2 + 3
        assert min(values(many)) >= 101
        assert (client.session.wait(), client.status().state) == (1, State.FRESH)
        service.intercept = lambda request: None
        client.refresh()
        assert len(values(many)) == 1
        assert client.session.wait() == 60


def test_d10_changes_of_other_settings_cost_one_small_request_at_most(
    service: FakeService, many: list[Setting[int]]
) -> None:
    """Unmodified responses are valid since the last refresh, so they need not be of one revision."""
    with polling(service) as client:
        start_with_rules(service, client, many)

        def change_another(request: RecordedRequest) -> None:
            service.change_another_setting()

        service.intercept = change_another
        before = len(service.requests)
        client.reload()
        assert [str(request) for request in service.requests[before:]] == [CONTEXT_FEATURES, QUERY, QUERY]


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("count", [1, 30, MANY, 120])
def test_d10_replicas_that_never_catch_up(any_service: FakeService, count: int) -> None:
    """A start and each refresh end with the values of one revision, whichever replica responds to which request."""
    random = Random(count)
    settings = [Setting(f"s{i}", int, ["user"], 0) for i in range(count)]
    for setting in settings:
        any_service.declare(setting.name, "int", 0, ["user"])
        any_service.add_rule(setting.name, 9, user="jim")
    older = any_service.snapshot()
    change_all(any_service, 10)

    def respond(request: RecordedRequest) -> Reply | None:
        is_older = request.method == "GET" and random.random() < 0.5
        return older._respond(request) if is_older else None

    any_service.intercept = respond
    found = set()
    for _ in range(20):
        newest_by_service.clear()  # as in a new process
        with polling(any_service) as client:
            found.add(tuple(values(settings)))
            client.refresh(2)
            found.add(tuple(values(settings)))
    assert found <= {(9,), (10,)}
    assert (10,) in found


def test_d10_the_newest_revision_of_a_refresh_is_required(service: FakeService, many: list[Setting[int]]) -> None:
    """With the same repetitions, pauses and new connections as a revision that was applied."""
    for setting in many:
        service.add_rule(setting.name, 9, user="jim")
    older = service.snapshot()
    change_all(service, 10)
    count = 0

    def respond(request: RecordedRequest) -> Reply | None:
        nonlocal count
        count += str(request) == QUERY
        return older._respond(request) if str(request) == QUERY and count != 2 and count < 10 else None

    service.intercept = respond
    newest_by_service.clear()
    with polling(service) as client:
        assert values(many) == {10}
        queries = service.requests_to(QUERY)
        assert len({query.query["settings"] for query in queries[2:]}) == 1
        assert [query.headers.get("connection") for query in queries] == [None] * 6 + ["close"] * 4
        assert client.now - START == pytest.approx(0.4)


@pytest.mark.parametrize(("lagging", "waits"), [(QUERY, [1, 2, 4, 8]), (CONTEXT_FEATURES, [1, 60, 60, 60])])
def test_d10_an_endpoint_that_lags_for_longer_does_not_prevent_a_start(
    any_service: FakeService, setting: Setting[int], lagging: str, waits: list[float]
) -> None:
    """For example because of a cache. The refreshes that follow soon are ever rarer. Unmodified responses are valid
    for the older order as well."""
    older = any_service.snapshot()
    any_service.declare("s", "int", 7, ["user"])
    older.declare("s", "int", 7, ["user"])
    any_service.add_rule("s", 8, user="jim")
    any_service.change_another_setting()
    any_service.respond_with(lagging, older._respond)
    with polling(any_service) as client:
        assert client.status().state is State.FRESH
        assert setting.get(user="jim") == (7 if lagging == QUERY else 8)
        assert len(any_service.requests_to(lagging)) == 1 + 3 * 9
        client.refresh(4)
        assert client.waits == waits
        assert client.status().state is State.FRESH
        any_service.intercept = lambda request: None
        client.refresh()
        assert (setting.get(user="jim"), client.session.wait()) == (8, 60)


@pytest.mark.parametrize(
    "reply",
    [Response(503), Response(404), NoResponse(OSError()), Oversized(200, 10), Response(200, b"<html>"), Response(304)],
)
def test_d10_a_response_that_fails_when_it_is_repeated_is_used(
    service: FakeService, many: list[Setting[int]], reply: Reply
) -> None:
    """Without ETags, so that a 304 is not usable either. The next refresh follows within a second."""
    with polling(service) as client:
        start_with_rules(service, client, many)
        count = 0

        def intercept(request: RecordedRequest) -> Reply | None:
            nonlocal count
            count += str(request) == QUERY
            if count == 2 and str(request) == QUERY:
                change_all(service, 2)
            if count > 2:
                return reply
            response = service._respond(dataclasses.replace(request, headers={}))
            return replace(response, headers={k: v for k, v in response.headers.items() if k != "etag"})

        service.intercept = intercept
        client.reload()
        assert values(many) == {1, 2}
        assert client.session.wait() == 1


@pytest.mark.parametrize("reply", [Response(503), NoResponse(OSError()), Response(200, b"<html>")])
def test_d10_an_order_that_fails_when_it_is_read_again_is_used(
    service: FakeService, setting: Setting[int], reply: Reply
) -> None:
    """With the responses to the queries."""
    with polling(service) as client:
        service.add_rule("s", 1, user="jim")
        client.reload()
        service.change_another_setting()
        change_during(service, QUERY, 1)
        change, count = service.intercept, 0

        def intercept(request: RecordedRequest) -> Reply | None:
            nonlocal count
            change(request)
            count += str(request) == CONTEXT_FEATURES
            return reply if count > 1 else None

        service.intercept = intercept
        client.reload()
        assert (setting.get(user="jim"), count, client.session.wait()) == (101, 4, 1)


def test_d10_a_setting_that_is_renamed_between_two_queries_keeps_its_rules(
    service: FakeService, many: list[Setting[int]]
) -> None:
    """The names of the first response are not used any more."""
    with polling(service) as client:
        start_with_rules(service, client, many)
        first = client.service.requests_to(QUERY)[-2].query["settings"].split(",")[0]
        count = 0

        def rename(request: RecordedRequest) -> None:
            nonlocal count
            count += str(request) == QUERY
            if count == 1:
                change_all(service, 2)
            if count == 2:
                service.intercept = lambda request: None
                service.rename(first, "renamed", "1.1")
                change_all(service, 3)

        service.intercept = rename
        client.reload()
        assert values(many) == {3}
        assert client.status().settings[first].canonical_name == "renamed"


def test_d10_without_a_revision_nothing_is_sent_again(service: FakeService, many: list[Setting[int]]) -> None:
    service.offers_changes = False
    with polling(service) as client:
        start_with_rules(service, client, many)
        change_during(service, QUERY, 2)
        before = len(service.requests_to(QUERY))
        client.reload()
        assert values(many) == {1, 102}
        assert len(service.requests_to(QUERY)) - before == 2


def test_d10_a_switch_to_another_database_during_a_refresh(service: FakeService, many: list[Setting[int]]) -> None:
    """All is requested again, whichever database comes first in the alphabet."""
    other = FakeService(FEATURES)
    other.offers_changes = True
    for setting in many:
        other.declare(setting.name, "int", 0, ["user"])
        other.add_rule(setting.name, 2, user="jim")
    with polling(service) as client:
        for name in ("0", "f" * 16):
            service.intercept = lambda request: None
            start_with_rules(service, client, many)
            other.database = name
            count = 0

            def switch(request: RecordedRequest) -> Reply | None:
                nonlocal count
                count += str(request) == QUERY
                return other._respond(request) if count >= 2 else None

            service.intercept = switch
            client.reload()
            assert values(many) == {2}
            assert client.session.wait() == 60
