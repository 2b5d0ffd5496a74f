"""Refreshes of a service that has not changed: it says its revision with the order of the features, and that is all."""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from heksher_client import Setting, State
from heksher_client.testing import SyncStubHeksherClient
from tests.support.driven import DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.last_known_good import MemoryFile
from tests.support.service import CONTEXT_FEATURES, DECLARE, QUERY, CannedResponse


@pytest.fixture(autouse=True)
def setting(service: FakeService) -> Setting[int]:
    """A setting with a rule, of a service that says its revision."""
    service.offers_changes = True
    service.declare("s", "int", 1, ["user"])
    service.add_rule("s", 2, user="jim")
    return Setting("s", int, ["user"], 1)


def polling(service: FakeService, **options: Any) -> AbstractContextManager[DrivenClient]:
    return driven(service, update_interval=60, follow_changes=False, **options)


def requests_of_reload(client: DrivenClient) -> list[str]:
    before = len(client.service.requests)
    client.reload()
    return [str(request) for request in client.service.requests[before:]]


def test_a_refresh_without_changes_is_one_request(service: FakeService) -> None:
    """It is a success, and the values are as fresh as after any other one."""
    with polling(service) as client:
        client.advance(3600)
        requests = list(map(str, service.requests))
        assert requests == [CONTEXT_FEATURES, DECLARE, QUERY, *[CONTEXT_FEATURES] * 60]
        status = client.status()
        assert (status.state, status.age, set(client.outcomes)) == (State.FRESH, 0, {None})


def test_a_revision_without_the_identity_of_the_database_is_not_enough(service: FakeService) -> None:
    """The database may have been restored from a backup."""
    service.database = ""
    with polling(service) as client:
        assert requests_of_reload(client) == [CONTEXT_FEATURES, QUERY]


CHANGES_OF_SERVICE: dict[str, Callable[[FakeService], object]] = {
    "rule": lambda service: service.add_rule("s", 3, user="ann"),
    "rule-of-another-setting": FakeService.change_another_setting,
    "order": lambda service: service.move_feature("user", to_after="theme"),
    "epoch": lambda service: service.restart(),
    "database": lambda service: service.replace_database(),
    "backup": lambda service: service.restore(service.snapshot()),
}


@pytest.mark.parametrize("change", CHANGES_OF_SERVICE)
def test_any_change_in_the_service_is_queried(service: FakeService, setting: Setting[int], change: str) -> None:
    """Once."""
    with polling(service) as client:
        CHANGES_OF_SERVICE[change](service)
        assert QUERY in requests_of_reload(client)
        assert setting.get(user="ann") == (3 if change == "rule" else 1)
        assert requests_of_reload(client) == [CONTEXT_FEATURES]


def test_a_new_setting_is_declared_and_queried(service: FakeService) -> None:
    with polling(service) as client:
        new = Setting("new", int, ["user"], 1)
        # The declaration changes the revision, so the order is read again.
        assert requests_of_reload(client) == [CONTEXT_FEATURES, DECLARE, QUERY, CONTEXT_FEATURES]
        assert requests_of_reload(client) == [CONTEXT_FEATURES]
        assert new.get() == 1


def test_a_validator_is_applied_to_the_present_values(service: FakeService, setting: Setting[int]) -> None:
    with polling(service) as client:
        setting.add_validator(lambda value, rule, setting: value + 10)
        assert requests_of_reload(client) == [CONTEXT_FEATURES, QUERY]
        assert setting.get(user="jim") == 12
        assert requests_of_reload(client) == [CONTEXT_FEATURES]


def test_what_is_tracked_is_queried(service: FakeService, setting: Setting[int]) -> None:
    with polling(service) as client:
        client.track_contexts(user="jim")
        assert requests_of_reload(client) == [CONTEXT_FEATURES, QUERY]
        assert requests_of_reload(client) == [CONTEXT_FEATURES]


def test_what_is_tracked_during_a_refresh_is_queried_by_the_next_one(
    service: FakeService, setting: Setting[int]
) -> None:
    with polling(service) as client:
        client.track_contexts(user="jim")
        client.reload()
        service.add_rule("s", 3, user="ann")
        service.respond_with(QUERY, lambda request: client.track_contexts(user="ann"), times=1)
        assert requests_of_reload(client) == [CONTEXT_FEATURES, QUERY]
        assert requests_of_reload(client) == [CONTEXT_FEATURES, QUERY]
        assert setting.get(user="ann") == 3
        assert requests_of_reload(client) == [CONTEXT_FEATURES]


def test_rules_of_another_client_are_replaced(service: FakeService, setting: Setting[int]) -> None:
    """And those of a stub, which restores the former ones."""
    with polling(service) as client:
        other = FakeService()
        with driven(other):
            assert setting.get(user="jim") == 1
        assert requests_of_reload(client) == [CONTEXT_FEATURES, QUERY]
        assert setting.get(user="jim") == 2
        with SyncStubHeksherClient() as stub:
            stub[setting].rules = 5
            assert setting.get(user="jim") == 5
        assert setting.get(user="jim") == 2
        assert requests_of_reload(client) == [CONTEXT_FEATURES, QUERY]
        assert requests_of_reload(client) == [CONTEXT_FEATURES]


def test_a_setting_with_a_problem_of_its_own_is_tried_again_and_the_others_are_up_to_date(service: FakeService) -> None:
    """Its declaration is refused. The status says so, and a caller that waits for a refresh tries it at once."""
    bad = Setting("bad", int, ["user"], 1)
    service.respond_with(DECLARE, lambda request: CannedResponse(422, b"no") if b"bad" in request.body else None)
    with polling(service) as client:
        client.advance(60)
        before = len(service.requests)
        client.advance(600)
        requests = [str(request) for request in service.requests[before:]]
        assert requests.count(CONTEXT_FEATURES) == 10
        assert set(requests) == {CONTEXT_FEATURES, DECLARE}
        status = client.status()
        assert (status.state, status.age, status.settings["bad"].declaration) == (State.FAILING, 0, "refused")
        service.intercept = lambda request: None
        assert DECLARE in requests_of_reload(client)
        assert requests_of_reload(client) == [CONTEXT_FEATURES]
        assert (bad.get(), client.status().state) == (1, State.FRESH)


def test_a_setting_whose_problem_ends_by_itself_is_up_to_date_as_well(service: FakeService) -> None:
    bad = Setting("bad", int, ["user"], 1)
    service.respond_with(DECLARE, lambda request: CannedResponse(422, b"no") if b"bad" in request.body else None)
    with polling(service) as client:
        client.advance(60)
        service.intercept = lambda request: None
        client.advance(600)
        service.add_rule("bad", 2, user="jim")
        assert requests_of_reload(client) == [CONTEXT_FEATURES, QUERY]
        assert requests_of_reload(client) == [CONTEXT_FEATURES]
        assert (bad.get(user="jim"), client.status().state) == (2, State.FRESH)


def test_a_setting_with_a_problem_is_not_kept_alive(service: FakeService) -> None:
    bad = Setting("bad", int, ["user"], 1)
    service.respond_with(DECLARE, lambda request: CannedResponse(422, b"no") if b"bad" in request.body else None)
    with polling(service) as client:
        client.advance(60)
        del bad
        gc.collect()
        assert set(client.status().settings) == {"s"}
        client.reload()
        assert client.status().state is State.FRESH


def test_refreshes_without_a_query_count_as_successes_of_queries(service: FakeService) -> None:
    """After an hour of them, larger queries are tried again than those that a service could answer in an outage."""
    _others = [Setting(f"s{i}", int, ["user"], 1) for i in range(39)]
    with polling(service) as client:
        service.change_another_setting()
        service.respond_with(QUERY, lambda request: CannedResponse(500) if "," in request.query["settings"] else None)
        client.reload()
        service.intercept = lambda request: None
        for queries in (40, 20):
            service.change_another_setting()
            assert requests_of_reload(client).count(QUERY) == queries
            client.advance(3600)


def test_responses_that_may_be_of_several_revisions_are_queried_again(service: FakeService) -> None:
    """The service changed between the requests, again and again."""
    with polling(service) as client:
        service.change_another_setting()
        service.intercept = lambda request: service.change_another_setting()
        client.reload()
        service.intercept = lambda request: None
        assert requests_of_reload(client) == [CONTEXT_FEATURES, QUERY]
        assert requests_of_reload(client) == [CONTEXT_FEATURES]


def test_a_stale_order_is_not_trusted_if_a_change_was_announced(service: FakeService, setting: Setting[int]) -> None:
    """A cache may respond with a former order and revision. The stream says that there is a later one."""
    with driven(service) as client:
        stale = service.snapshot()
        service.respond_with(CONTEXT_FEATURES, stale._respond)
        service.add_rule("s", 3, user="ann")
        client.advance(0)
        assert setting.get(user="ann") == 3


def test_a_failed_refresh_is_followed_by_a_complete_one(service: FakeService, setting: Setting[int]) -> None:
    """The change that it did not load is still to be loaded."""
    with polling(service) as client:
        service.add_rule("s", 3, user="ann")
        service.respond_with(QUERY, CannedResponse(503), times=1)
        client.refresh(2)
        assert setting.get(user="ann") == 3
        service.is_running = False
        client.refresh()
        service.is_running = True
        assert requests_of_reload(client) == [CONTEXT_FEATURES]


def test_the_last_known_good_is_confirmed(service: FakeService, setting: Setting[int]) -> None:
    """Also if it could not be stored before, or was deleted by somebody."""
    file = MemoryFile()
    with polling(service, last_known_good=file) as client:
        assert file.names() == {"s"}
        confirmed = file.content.settings["s"][0].confirmed if file.content else 0
        client.advance(3600)
        assert file.content is not None
        assert file.content.settings["s"][0].confirmed > confirmed + 2900
        file.content = None
        client.advance(120)
        assert file.names() == {"s"}
        service.add_rule("s", 3, user="ann")
        file.error = OSError(28, "No space left on device")
        client.reload()
        file.error = None
        assert file.content is not None
        assert requests_of_reload(client) == [CONTEXT_FEATURES]
        assert b"ann" in bytes(file.content.settings["s"][0].content)
