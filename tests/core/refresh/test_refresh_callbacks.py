"""Hooks and callbacks that receive the result of each refresh."""

from functools import partial
from typing import Any

import pytest

from heksher_client import (
    DeclarationError,
    Reason,
    Refresh,
    ServiceUnavailableError,
    Setting,
    State,
    UnexpectedResponseError,
)
from heksher_client._core.refresh.effects import CallUserCode
from heksher_client._core.refresh.hooks import Notifier
from heksher_client._core.refresh.work_budget import WorkBudget
from heksher_client._core.settings.listeners import CallbackRegistry
from tests.support.driven import START, WALL_CLOCK_OFFSET, DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.log_records import summaries
from tests.support.service import DECLARE, QUERY, CannedResponse


def test_a_refresh_has_its_time_duration_and_changed_settings(service: FakeService) -> None:
    """Settings whose rules are unchanged are not included. The duration includes pauses."""
    _setting, _other = Setting("s", int, ["user"], 7), Setting("other", int, ["user"], 7)
    refreshes: list[Refresh] = []
    began = START + WALL_CLOCK_OFFSET
    with driven(service, update_interval=60) as client:
        client.on_refresh(refreshes.append)
        client.reload()
        assert refreshes == [Refresh(began, 0.0, errors=(), changed=())]

        service.add_rule("s", 8, user="jim")
        client.refresh()
        assert refreshes[1:] == [Refresh(began + 60, 0.0, errors=(), changed=("s",))]

        _late = Setting("late", int, ["user"], 7)
        service.respond_with(DECLARE, CannedResponse(500), times=1)
        client.refresh()
        assert (refreshes[2].started_at, refreshes[2].seconds) == pytest.approx((began + 60, 0.1), abs=0.01, rel=0)
        assert refreshes[2].changed == ("late",)


def test_a_failed_refresh_has_its_errors(service: FakeService) -> None:
    """The error has the status of the response."""
    _setting = Setting("s", int, ["user"], 7)
    refreshes: list[Refresh] = []
    with driven(service) as client:
        client.on_refresh(refreshes.append)
        service.respond_with(QUERY, CannedResponse(503))
        failure = client.reload_expecting(UnexpectedResponseError)
    (refresh,) = refreshes
    assert refresh.errors == (failure,)
    assert failure.status == 503


def test_the_error_of_a_refresh_callback_is_logged(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """With the name of the callback, or what it has instead, and the traceback. The next callback is still called."""
    _setting = Setting("s", int, ["user"], 7)
    refreshes: list[Refresh] = []

    def fail(refresh: Refresh) -> None:
        raise ValueError("failed")

    unnamed = partial(fail)
    with driven(service) as client:
        for callback in (fail, unnamed, refreshes.append):
            client.on_refresh(callback)
        client.reload()
    assert len(refreshes) == 1
    assert summaries(caplog.records) == [
        ("ERROR", f"{name} raised", {"hook": name}) for name in ("fail", repr(unnamed))
    ]
    assert [str(record.exc_info and record.exc_info[1]) for record in caplog.records] == ["failed"] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_program_is_not_an_error_of_a_callback(
    service: FakeService, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """It is raised from the refresh that calls it."""
    _setting = Setting("s", int, ["user"], 7)

    def end(refresh: Refresh) -> None:
        raise error

    with driven(service) as client:
        client.on_refresh(end)
        with pytest.raises(error):
            client.refresh()
        client.off_refresh(end)
        client.refresh()
    assert caplog.records == []


def test_a_hook_that_does_not_return_is_logged_once(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """Until it returns. Nothing else is called in between."""
    _setting = Setting("s", int, ["user"], 7)
    refreshes: list[Refresh] = []
    client = DrivenClient(service)
    client.on_refresh(refreshes.append)
    client.is_calling_hooks = False
    client.start()
    for count in (1, 2):
        client.is_calling_hooks = False
        client.refresh(2)
        text = "on_update_ok does not return; no hook is called until it does"
        assert summaries(caplog.records) == [("ERROR", text, {"hook": "on_update_ok"})] * count
        client.is_calling_hooks = True
        client.refresh()
        assert len(refreshes) == count
    client.close()


def test_a_refresh_waits_for_a_hook_for_five_seconds(service: FakeService) -> None:
    """Only a driver that can wait does so."""
    notifier = Notifier(DrivenClient(service), CallbackRegistry(), WorkBudget())
    (effect,) = notifier.dispatch_refresh(Refresh(0.0, 0.0, (), ()), [], is_reported=True)
    assert isinstance(effect, CallUserCode)
    assert effect.seconds == 5.0


def test_a_removed_refresh_callback_is_not_called_again(service: FakeService) -> None:
    """Others are."""
    removed: list[Refresh] = []
    kept: list[Refresh] = []
    with driven(service) as client:
        client.on_refresh(removed.append)
        client.on_refresh(kept.append)
        client.reload()
        client.off_refresh(removed.append)
        client.reload()
    assert (len(removed), len(kept)) == (1, 2)


def test_a_coroutine_function_is_not_accepted_as_a_callback(service: FakeService) -> None:
    """Refresh callbacks are plain functions, like all callbacks."""

    async def callback(refresh: Refresh) -> None: ...

    with driven(service) as client, pytest.raises(TypeError, match="not a coroutine function"):
        client.on_refresh(callback)


# -- when hooks are called ---------------------------------------------------------------------------------------------


def refuse(*names: str) -> Any:
    """Return a fault: the declarations of these settings are refused."""
    return lambda request: (
        CannedResponse(422, b"no") if str(request) == DECLARE and request.json["name"] in names else None
    )


def test_d7_a_setting_that_fails_is_reported_once(service: FakeService) -> None:
    """Not each interval. The refreshes in between have the error, and the status shows it."""
    _good = Setting("good", int, ["user"], 1)
    with driven(service, update_interval=10) as client:
        _bad = Setting("bad", int, ["user"], 1)
        refreshes: list[Refresh] = []
        client.on_refresh(refreshes.append)
        service.intercept = refuse("bad")
        client.advance(3600)
        (error,) = client.outcomes
        assert isinstance(error, DeclarationError)
        assert len(refreshes) >= 360
        assert {refresh.errors[0] for refresh in refreshes if not refresh.changed} >= {error}
        assert all(refresh.errors for refresh in refreshes)
        status = client.status()
        assert (status.state, status.failures) == (State.FAILING, len(refreshes))
        assert status.last_error == str(error)

        service.intercept = lambda request: None
        client.advance(300)
        assert client.outcomes[1:] == [None] * len(client.outcomes[1:])
        assert client.status().state is State.FRESH
        service.delete("bad")
        service.intercept = refuse("bad")
        client.advance(10)
        assert isinstance(client.outcomes[-1], DeclarationError)


def test_d7_a_problem_that_changes_is_reported_again(service: FakeService) -> None:
    """By the retry that shows it. The hook gets the new error, and the others as notes."""
    _good = Setting("good", int, ["user"], 1)
    with driven(service) as client:
        _bad, _worse = Setting("bad", int, ["user"], 1), Setting("worse", int, ["user"], 1)
        service.intercept = refuse("bad", "worse")
        client.advance(0)
        first, *others = client.outcomes
        assert (str(first), others) == ("the service refused the declaration of setting bad: 'no'", [])
        assert first is not None
        assert first.__notes__ == ["and: the service refused the declaration of setting worse: 'no'"]

        client.advance(30)
        assert len(client.outcomes) == 1
        service.intercept = lambda request: CannedResponse(503) if str(request) == DECLARE else None
        client.advance(60)
        (_, changed) = client.outcomes
        assert isinstance(changed, UnexpectedResponseError)
        assert str(changed).startswith("the declaration of setting bad failed: ")
        assert len(changed.__notes__) == 1
        client.advance(600)
        assert len(client.outcomes) == 2


def test_d7_another_setting_that_fails_is_reported(service: FakeService) -> None:
    """With the one that failed before as it was; that is not reported again after the other has recovered."""
    _good = Setting("good", int, ["user"], 1)
    with driven(service, update_interval=10) as client:
        _bad = Setting("bad", int, ["user"], 1)
        service.intercept = refuse("bad", "late")
        client.advance(15)
        late = Setting("late", int, ["user"], 1)
        client.advance(60)
        first, second = client.outcomes
        assert ("bad" in str(first), "late" in str(second)) == (True, True)
        service.intercept = refuse("bad")
        client.advance(600)
        assert late.explain(user="jim").reason is Reason.SERVER_DEFAULT
        assert client.outcomes == [first, second]


def test_d7_a_refresh_that_fails_for_all_settings_is_reported_each_time(service: FakeService) -> None:
    """So is a reload that somebody waits for, which raises the same error."""
    _good, _bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.intercept = refuse("bad")
    with driven(service, update_interval=10) as client:
        client.refresh()
        assert client.outcomes == []
        client.reload_expecting(DeclarationError)
        service.is_running = False
        client.outcomes.clear()
        client.refresh(5)
        assert [type(outcome) for outcome in client.outcomes] == [ServiceUnavailableError] * 5
        service.is_running = True
        client.refresh()
        assert len(client.outcomes) == 5  # The same setting still fails.


def test_d7_a_retry_after_which_all_settings_are_up_to_date_is_a_success(service: FakeService) -> None:
    """For the hooks as well. One after which another setting still fails is only passed to the callbacks."""
    _good, _bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    _worse = Setting("worse", int, ["user"], 1)
    service.intercept = refuse("bad", "worse")
    with driven(service) as client:
        refreshes: list[Refresh] = []
        client.on_refresh(refreshes.append)
        service.intercept = refuse("worse")
        client.advance(30)
        assert (client.outcomes, [refresh.changed for refresh in refreshes]) == ([], [("bad",)])
        service.intercept = lambda request: None
        client.advance(60)
        assert (client.outcomes, [refresh.errors for refresh in refreshes[1:]]) == ([None], [()])
