"""Replicas that lag, restored databases, and changes during a refresh, by the ids of the table in the documentation.

Their variations are in `tests/core/refresh/test_positions.py`; a replica of PostgreSQL is in `tests/service`.
"""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from heksher_client import Setting, State, UnexpectedResponseError, pinned
from heksher_client.service import LocalService
from tests.support.clients import FEATURES, Kind, eventually, running
from tests.support.fake_service import FakeService
from tests.support.http import http_client
from tests.support.in_memory import LoopbackService
from tests.support.service import QUERY, RecordedRequest


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    """An empty service that sends the revision of its database."""
    with LoopbackService() as service:
        service.offers_changes = True
        yield service


@pytest.mark.unmeasured
@pytest.mark.parametrize("has_identity", [True, False])
@pytest.mark.parametrize("follow_changes", [True, False])
def test_d9_a_replica_lags(
    kind: Kind, service: LoopbackService, setting: Setting[int], follow_changes: bool, has_identity: bool
) -> None:
    """It responds to every second request. No value goes back, and the state is fresh."""
    service.database = service.database if has_identity else ""
    with running(kind, service.url, follow_changes=follow_changes) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        service.replica = service.snapshot()
        service.add_rule("s", 9, user="ann")
        client.reload()
        for value in range(10):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
            assert (setting.get(user="ann"), setting.get(user=f"u{value}")) == (9, value)
            assert client.client.status().state is State.FRESH


@pytest.mark.slow
@pytest.mark.unmeasured
def test_d9_all_replicas_lag(
    kind: Kind, service: LoopbackService, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The values stay, the status and the log say why, and the client recovers."""
    with running(kind, service.url, follow_changes=False) as client:
        replica = service.snapshot()
        service.add_rule("s", 9, user="ann")
        client.reload()
        service.intercept = replica._respond
        for _ in range(2):
            client.reload_expecting(UnexpectedResponseError)
        status = client.client.status()
        assert (setting.get(user="ann"), status.state) == (9, State.FAILING)
        assert "was received before" in (status.last_error or "")
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len([message for message in errors if "was received before" in message]) == 1
        service.intercept = lambda request: None
        client.reload()
        assert client.client.status().state is State.FRESH


def test_d9_a_backup_is_restored(kind: Kind, setting: Setting[int], tmp_path: Path) -> None:
    """While the service is stopped, as the documentation has it. Its revision is lower."""
    database, backup = tmp_path / "settings.db", tmp_path / "backup.db"
    service = LocalService(FEATURES, database=database)
    with service, running(kind, service.url, 0.05, max_backoff=0.05) as client, http_client(service.url) as http:
        client.reload()
        service.stop()
        shutil.copy(database, backup)
        service.start()
        rule = {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}
        assert eventually(lambda: http.post("/api/v1/rules", json=rule).status_code == 201)
        assert eventually(lambda: setting.get(user="jim") == 8)
        service.stop()
        shutil.copy(backup, database)
        service.start()
        assert eventually(lambda: setting.get(user="jim") == 7)
        assert eventually(lambda: client.client.status().state is State.FRESH)


def test_d10_a_change_between_two_queries(kind: Kind, service: LoopbackService) -> None:
    """The refresh that it happens in ends with one revision."""
    settings = [Setting(f"s{i}", int, ["user"], 0) for i in range(80)]
    with running(kind, service.url, follow_changes=False) as client:
        for setting in settings:
            service.add_rule(setting.name, 1, user="jim")
        client.reload()
        service.change_another_setting()
        answered = 0

        def change(request: RecordedRequest) -> None:
            nonlocal answered
            answered += str(request) == QUERY
            if answered == 2:
                service.intercept = lambda request: None
                with service._lock:
                    for stored in service.settings.values():
                        for rule in stored.rules.values():
                            rule.value = 2
                    service._changed()

        service.intercept = change
        client.reload()
        with pinned():
            assert {setting.get(user="jim") for setting in settings} == {2}


def test_d10_a_change_between_the_order_and_the_query(kind: Kind, service: LoopbackService) -> None:
    setting = Setting("s", int, ["environment", "user"], 7)
    with running(kind, service.url, follow_changes=False) as client:
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
        assert setting.get(environment="prod", user="jim") == 2


def test_a_snapshot_does_not_change_with_the_service() -> None:
    service = FakeService()
    service.declare("s", "int", 7, ["user"])
    rule = service.add_rule("s", 8, user="jim")
    snapshot = service.snapshot()
    service.change_rule(rule, 9)
    assert snapshot.setting("s").rules[rule].value == 8
    assert (snapshot.revision, service.revision) == (2, 3)
