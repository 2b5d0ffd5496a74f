"""Changes that the service announces: what a client loads because of them, and what it does without a stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from heksher_client import HeksherError, Setting, State, UnexpectedResponseError
from heksher_client._core.refresh.effects import Response
from tests.support.driven import DrivenClient, driven
from tests.support.fake_service import UNREACHABLE, FakeService
from tests.support.service import CHANGES, CONTEXT_FEATURES, QUERY, CannedResponse, RecordedRequest


@pytest.fixture
def service(service: FakeService) -> FakeService:
    """A service that announces the change stream to clients."""
    service.offers_changes = True
    return service


@pytest.fixture
def setting() -> Setting[int]:
    return Setting("s", int, ["user", "theme"], 7)


@contextmanager
def following_client(service: FakeService, **options: Any) -> Iterator[DrivenClient]:
    """Run a client that follows changes. Its interval is an hour, so only the stream can cause a refresh.

    Its own declarations were announced some time ago, and have caused one already.
    """
    with driven(service, **options) as client:
        client.advance(10)
        assert client.status().is_following
        yield client


# -- changes -----------------------------------------------------------------------------------------------------------


def test_a_change_is_loaded_at_once(service: FakeService, setting: Setting[int]) -> None:
    """A new rule is used, and a deleted rule no longer used, without waiting for the interval."""
    with following_client(service) as client:
        rule = service.add_rule("s", 8, user="jim")
        client.advance(0)
        assert setting.get(user="jim") == 8
        service.delete_rule(rule)
        client.advance(0)
        assert setting.get(user="jim") == 7


def test_a_new_order_of_context_features_is_loaded_at_once(service: FakeService, setting: Setting[int]) -> None:
    """It changes the priority of rules."""
    with following_client(service) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, theme="dark")
        client.advance(0)
        assert setting.get(user="jim", theme="dark") == 2
        service.move_feature("user", to_after="theme")
        client.advance(0)
        assert setting.get(user="jim", theme="dark") == 1


def test_changes_of_undeclared_settings_do_not_cause_refreshes(service: FakeService, setting: Setting[int]) -> None:
    """Changes of a renamed setting, which have its new name, do."""
    service.declare("other", "int", 1, ["user"])
    with following_client(service) as client:
        service.rename("s", "t", "1.1")
        client.advance(0)
        before = len(service.requests)
        service.add_rule("other", 2, user="jim")
        client.advance(0)
        assert len(service.requests) == before
        service.add_rule("t", 9, user="jim")
        client.advance(0)
        assert setting.get(user="jim") == 9


def test_a_change_during_the_refresh_that_learns_the_name_of_its_setting_is_loaded(
    service: FakeService, setting: Setting[int]
) -> None:
    """The setting was renamed: when its change is announced, its new name is not known yet."""
    with following_client(service) as client:

        def change(request: RecordedRequest) -> None:
            service.add_rule("t", 9, user="jim")

        service.respond_with("GET /api/v1/settings/s", change, times=1)
        service.rename("s", "t", "1.1")
        client.advance(0)
        assert setting.get(user="jim") == 9


def test_many_changes_in_a_row_cost_a_refresh_each_second(service: FakeService, setting: Setting[int]) -> None:
    """After the first three. The last change is loaded a second later at most."""
    with following_client(service) as client:
        before = len(client.outcomes)
        for value in range(100):
            service.add_rule("s", value, user=f"u{value}")
            client.advance(0.1)
        assert len(client.outcomes) - before <= 3 + 10
        client.advance(1)
        assert setting.get(user="u99") == 99


def test_a_query_is_repeated_while_its_response_is_older_than_the_change(
    service: FakeService, setting: Setting[int]
) -> None:
    """A second later each time. A cache or a replica of the database may lag behind the stream."""
    with following_client(service) as client:
        cached = Response(
            200,
            b'{"settings":{"s":{"default_value":7,"rules":[]}}}',
            {"heksher-revision": str(service.revision), "heksher-database": service.label},
        )
        # Three refreshes. Each sends the query again for a second and a half, as the order of the features is newer.
        service.respond_with(QUERY, cached, times=3 * (1 + 3 * 9))
        service.add_rule("s", 8, user="jim")
        client.advance(3 * 2.5 - 0.1)
        assert setting.get(user="jim") == 7
        client.advance(0.2)
        assert setting.get(user="jim") == 8
        assert client.session.wait() == pytest.approx(3600, abs=0.2)


# -- a stream that ends ------------------------------------------------------------------------------------------------


def test_a_stream_that_ends_is_opened_again(service: FakeService, setting: Setting[int]) -> None:
    """After a random part of 4 seconds. The changes in between are loaded then."""
    with following_client(service) as client:
        client.random = 0.5
        client.lose_stream()
        assert not client.status().is_following
        service.add_rule("s", 8, user="jim")
        client.advance(1.9)
        assert (client.status().is_following, setting.get(user="jim")) == (False, 7)
        client.advance(0.1)
        assert (client.status().is_following, setting.get(user="jim")) == (True, 8)


def test_changes_in_a_new_database_are_loaded(service: FakeService, setting: Setting[int]) -> None:
    """Its revisions are lower than those that the client has received. The settings are declared again."""
    with following_client(service) as client:
        service.add_rule("s", 9, user="jim")
        client.advance(0)
        service.replace_database()
        client.lose_stream()
        client.advance(4)
        assert setting.get(user="jim") == 7
        assert client.status().is_following
        service.add_rule("s", 8, user="jim")
        client.advance(0)
        assert setting.get(user="jim") == 8


def test_the_client_refreshes_at_intervals_while_there_is_no_stream(
    service: FakeService, setting: Setting[int]
) -> None:
    """Its state is fresh: the stream is not needed for that. It is opened again after growing delays."""
    with driven(service, update_interval=60) as client:
        service.respond_with(CHANGES, UNREACHABLE)
        client.random = 1.0
        client.lose_stream()
        service.add_rule("s", 8, user="jim")
        client.advance(60)
        assert setting.get(user="jim") == 8
        assert (client.status().state, client.status().is_following) == (State.FRESH, False)
        assert len(service.requests_to(CHANGES)) - 1 == 4  # after 4, 12, 28 and 60 seconds


@pytest.mark.usefixtures("setting")
def test_the_start_and_the_end_of_the_stream_are_logged(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """The level is INFO: a lost stream is not an error, as the client still refreshes at intervals."""
    caplog.set_level("INFO", "heksher_client")
    with following_client(service) as client:
        client.lose_stream()
        client.advance(4)
        client.lose_stream(Response(200))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "following changes as they are made"),
        ("INFO", "the stream of changes has ended (ConnectionError); changes arrive at intervals"),
        ("INFO", "following changes as they are made"),
        ("INFO", "the stream of changes has ended (the service ended it); changes arrive at intervals"),
    ]


@pytest.mark.usefixtures("setting")
def test_the_end_of_the_stream_of_a_former_main_client_is_not_logged(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """It has ended the stream itself. It opens another one when it is the main client again."""
    caplog.set_level("INFO", "heksher_client")
    with following_client(service) as client:
        with driven(FakeService()):
            client.lose_stream()
        assert not any("has ended" in record.getMessage() for record in caplog.records)
        client.advance(0)
        assert client.status().is_following


def test_a_failed_request_for_context_features_does_not_close_the_stream(
    service: FakeService, setting: Setting[int]
) -> None:
    """The known order is used, and later changes still arrive."""
    with following_client(service) as client:
        service.respond_with(CONTEXT_FEATURES, CannedResponse(500), times=1)
        client.refresh()
        assert isinstance(client.outcomes[-1], UnexpectedResponseError)
        service.add_rule("s", 8, user="jim")
        client.advance(0)
        assert setting.get(user="jim") == 8
        assert client.status().is_following


def test_a_failed_refresh_does_not_close_the_stream(service: FakeService, setting: Setting[int]) -> None:
    """A change ends the wait for the next attempt."""
    with following_client(service) as client:
        service.respond_with(QUERY, CannedResponse(503), times=5)
        service.change_another_setting()
        client.refresh(5)
        assert client.session.wait() == 16
        service.add_rule("s", 8, user="jim")
        client.advance(0)
        assert setting.get(user="jim") == 8


# -- no stream ---------------------------------------------------------------------------------------------------------


def test_a_client_of_a_service_without_a_change_stream_refreshes_at_intervals(
    service: FakeService, setting: Setting[int]
) -> None:
    """It does not request the stream."""
    service.offers_changes = False
    with driven(service, update_interval=60) as client:
        service.add_rule("s", 8, user="jim")
        client.advance(60)
        assert setting.get(user="jim") == 8
        assert not client.status().is_following
    assert service.requests_to(CHANGES) == []


def test_the_stream_is_not_requested_if_it_is_disabled(service: FakeService, setting: Setting[int]) -> None:
    """The client refreshes at intervals."""
    with driven(service, update_interval=60, follow_changes=False) as client:
        service.add_rule("s", 8, user="jim")
        client.advance(60)
        assert setting.get(user="jim") == 8
        assert client.session.wait() == 60
    assert service.requests_to(CHANGES) == []


def test_the_stream_is_not_requested_before_a_refresh_has_succeeded(
    service: FakeService, setting: Setting[int]
) -> None:
    """Until then the client does not know whether there is one."""
    service.respond_with(QUERY, CannedResponse(503))
    with driven(service) as client:
        client.advance(60)
        assert service.requests_to(CHANGES) == []
        service.intercept = lambda request: None
        client.advance(60)
        assert client.status().is_following
        assert setting.get(user="jim") == 7


def test_the_stream_is_closed_if_the_service_no_longer_offers_it(service: FakeService, setting: Setting[int]) -> None:
    """For example after a downgrade of the service. It is opened when the service offers it again."""
    with following_client(service, update_interval=60) as client:
        service.offers_changes = False
        client.lose_stream()
        client.advance(120)
        requests = len(service.requests_to(CHANGES))
        client.advance(600)
        assert len(service.requests_to(CHANGES)) == requests
        service.offers_changes = True
        client.advance(600)
        assert client.status().is_following
        assert setting.get(user="jim") == 7


@pytest.mark.parametrize(
    "response",
    [
        CannedResponse(404),
        CannedResponse(401),
        CannedResponse.of({"detail": "no"}, 403),
        CannedResponse(302),
        CannedResponse(200, b"<html>"),
        CannedResponse(503),
    ],
    ids=lambda response: str(response.status),
)
def test_a_client_without_access_to_the_stream_refreshes_at_intervals(
    service: FakeService, setting: Setting[int], response: CannedResponse
) -> None:
    """A proxy may reject the request. The client stays healthy, and requests the stream again only if that may help:
    after up to 5 minutes if somebody must change something, and soon otherwise."""
    service.respond_with(CHANGES, response)
    with driven(service, update_interval=30) as client:
        service.add_rule("s", 8, user="jim")
        client.advance(30)
        assert setting.get(user="jim") == 8
        assert (client.status().state, client.status().is_following) == (State.FRESH, False)
        client.advance(90)
        attempts = len(service.requests_to(CHANGES))
        assert attempts == 1 if 300 <= response.status < 500 else attempts >= 4

        service.intercept = lambda request: None
        client.advance(300)
        assert client.status().is_following


@pytest.mark.usefixtures("setting")
def test_a_closed_client_receives_nothing(service: FakeService) -> None:
    """Its stream ends with the next bytes at the latest, if the driver has not closed it already."""
    client = DrivenClient(service)
    client.start()
    assert client.status().is_following
    client.close()
    before = len(service.requests)
    service.add_rule("s", 8, user="jim")
    assert not client.status().is_following
    assert len(service.requests) == before
    with pytest.raises(HeksherError):
        client.reload()
