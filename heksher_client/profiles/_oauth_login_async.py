"""Sign-in from a task: the functions of `_oauth_login` whose callbacks an asynchronous program awaits.

Requests, the keyring and the token store are used in threads, so that the event loop goes on. A task that is cancelled
ends the sign-in at once.
"""

import asyncio
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from os import PathLike
from typing import Any, Final

from heksher_client._core.refresh.options import checked_seconds
from heksher_client._core.settings.user_functions import check_function, is_coroutine_function, plain_result
from heksher_client._drivers.flow_runner import run_async
from heksher_client._drivers.timeout import Timeout
from heksher_client._runtime.worker_threads import run_in_daemon_threads
from heksher_client.profiles._login_flows import (
    CallBlocking,
    CallProgram,
    DeviceCode,
    LoginTarget,
    Wait,
    browser_flow,
    headless_flow,
)


async def login_async(
    show_browser: Callable[[str], object] = webbrowser.open,
    *,
    profile: str | None = None,
    timeout: float = 300.0,
    path: str | PathLike[str] | None = None,
    url: str | None = None,
    oauth: Mapping[str, Any] | None = None,
) -> str:
    """Do the same as `login` without blocking the event loop.

    `show_browser` is awaited in the event loop if it is a coroutine function, and canceled after `timeout` seconds.
    Another function is called in a thread, which it may block, and is not awaited any longer then.
    """
    _check_callback(show_browser, "show_browser")
    target = LoginTarget(profile, path, url, oauth)
    return await run_async(browser_flow(show_browser, target, checked_seconds("timeout", timeout)), _PERFORMERS)


async def login_headless_async(
    get_code: Callable[[DeviceCode], object],
    *,
    profile: str | None = None,
    timeout: float | None = None,
    path: str | PathLike[str] | None = None,
    url: str | None = None,
    oauth: Mapping[str, Any] | None = None,
) -> str:
    """Do the same as `login_headless` without blocking the event loop.

    `get_code` is awaited in the event loop if it is a coroutine function, and canceled after `timeout` seconds.
    Another function is called in a thread, which it may block, and is not awaited any longer then.
    """
    _check_callback(get_code, "get_code")
    return await run_async(headless_flow(get_code, LoginTarget(profile, path, url, oauth), timeout), _PERFORMERS)


def _check_callback(function: object, name: str) -> None:
    if not is_coroutine_function(function):
        check_function(function, name)


async def _call_blocking(step: CallBlocking) -> Any:
    # Not in the executor of the loop, as the end of the loop would wait for it.
    outcome: Future[tuple[Any, BaseException | None]] = Future()
    outcome.set_running_or_notify_cancel()  # So that the cancellation of this task does not cancel it.

    def work() -> None:
        try:
            outcome.set_result((step.call(), None))
        except BaseException as error:  # Any error is for the task. As a result: a future refuses a StopIteration.
            outcome.set_result((None, error))

    run_in_daemon_threads("heksher-client-sign-in", work)
    result, error = await asyncio.wrap_future(outcome)
    if error is not None:
        raise error
    return result


async def _call_program(step: CallProgram) -> object:
    function: Any = step.function
    with Timeout(step.seconds):
        if is_coroutine_function(function):
            return await function(step.argument)
        return await _call_blocking(CallBlocking(lambda: plain_result(function, function(step.argument))))
    return None


async def _wait(step: Wait) -> None:
    if step.future is None:
        await asyncio.sleep(step.seconds)
        return
    with Timeout(step.seconds):
        await asyncio.wrap_future(step.future)


_PERFORMERS: Final[Mapping[type, Callable[[Any], Awaitable[Any]]]] = {
    CallBlocking: _call_blocking,
    CallProgram: _call_program,
    Wait: _wait,
}
