"""Sign-in from a task, with callbacks that are awaited."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heksher_client import (
    CredentialError,
    CredentialTimeoutError,
    DeviceCode,
    connect,
    login,
    login_async,
    login_headless,
    login_headless_async,
)
from tests.support.clients import eventually
from tests.support.oauth import OAuthServer
from tests.support.profiles import browse, load_tokens, token_file

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _short_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heksher_client.profiles._login_flows._SHORTEST_POLLING_SECONDS", 0.01)
    monkeypatch.setattr("heksher_client.profiles._login_flows._SLOW_DOWN_SECONDS", 0.01)


def test_the_functions_for_tasks_have_the_arguments_of_the_others() -> None:
    assert inspect.signature(login_async) == inspect.signature(login)
    assert inspect.signature(login_headless_async) == inspect.signature(login_headless)


async def test_login_async_awaits_its_callback_in_the_event_loop(oauth: OAuthServer, login_config: Path) -> None:
    """A plain function is called in a thread instead, as `webbrowser.open` may block."""
    threads = []

    async def show_browser(url: str) -> None:
        await asyncio.sleep(0)
        threads.append(threading.current_thread())
        browse(url)

    def show_browser_in_thread(url: str) -> None:
        threads.append(threading.current_thread())
        browse(url)

    for show in (show_browser, show_browser_in_thread):
        assert await login_async(show, profile="shop", path=login_config) == str(token_file(login_config))
        with connect() as client:
            client.ping()
    assert threads[0] is threading.current_thread()
    assert threads[1].name == "heksher-client-sign-in"


async def test_login_headless_async_awaits_its_callback_in_the_event_loop(
    oauth: OAuthServer, login_config: Path
) -> None:
    """It polls until the user has entered the code. Other tasks run during that time."""
    codes: list[DeviceCode] = []

    async def get_code(code: DeviceCode) -> None:
        await asyncio.sleep(0)
        codes.append(code)

    for get in (get_code, codes.append):
        oauth.pending_polls = 2
        assert await login_headless_async(get) == str(token_file(login_config))
        with connect() as client:
            client.ping()
    assert [code.code for code in codes] == ["WDJB-MJHT", "WDJB-MJHT"]


async def test_a_sign_in_from_a_task_times_out(oauth: OAuthServer, login_config: Path) -> None:
    """As one from a thread does."""
    oauth.pending_polls = 1_000_000
    with pytest.raises(CredentialTimeoutError, match=r"the sign-in was not completed within 0\.01 seconds"):
        await login_async(lambda url: None, timeout=0.01)
    with pytest.raises(CredentialTimeoutError, match=r"the code was not entered within 0\.02 seconds"):
        await login_headless_async(lambda code: None, timeout=0.02)
    assert load_tokens(login_config) is None


async def test_a_callback_that_does_not_end_is_not_awaited_any_longer(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coroutine is canceled. Also without device codes, where it waits for a code that the user pastes."""
    metadata, released, canceled = oauth.metadata(), threading.Event(), []

    async def never(_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            canceled.append(True)

    functions: list[Any] = [never, lambda _: released.wait()]
    try:
        for function in functions:
            monkeypatch.setattr(oauth, "metadata", lambda: metadata)
            for call in (login_async, login_headless_async):
                with pytest.raises(CredentialTimeoutError, match=r"was not (completed|entered) within 0\.01 seconds"):
                    await call(function, timeout=0.01)
            monkeypatch.setattr(
                oauth,
                "metadata",
                lambda: {key: value for key, value in metadata.items() if not key.startswith("device")},
            )
            with pytest.raises(CredentialTimeoutError, match=r"was not completed within 0\.01 seconds"):
                await login_headless_async(function, timeout=0.01)
    finally:
        released.set()
    assert canceled == [True] * 3
    assert not oauth.token_requests


async def test_a_cancelled_task_ends_its_sign_in(oauth: OAuthServer, login_config: Path) -> None:
    """While it waits for the user, and while it waits for a server. Nothing is stored."""
    shown = asyncio.Event()

    async def show(_: object) -> None:
        shown.set()

    oauth.pending_polls = 1_000_000
    oauth.gate.clear()
    for call in (login_async, login_headless_async):
        shown.clear()
        task: asyncio.Task[str] = asyncio.create_task(call(show))
        await shown.wait()
        if call is login_headless_async:
            await asyncio.to_thread(eventually, lambda: oauth.token_requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    oauth.gate.set()
    assert await asyncio.to_thread(eventually, lambda: "heksher-client-sign-in" not in names_of_threads())
    assert load_tokens(login_config) is None


async def test_an_error_of_a_callback_ends_the_sign_in(oauth: OAuthServer, login_config: Path) -> None:
    """The program receives it, whichever kind of function raises it."""

    def fail(_: object) -> None:
        raise KeyError("no screen")

    async def fail_later(_: object) -> None:
        raise KeyError("no screen")

    async def find_no_browser(url: str) -> bool:
        return False

    functions: list[Any] = [fail, fail_later]
    for function in functions:
        for call in (login_async, login_headless_async):
            with pytest.raises(KeyError, match="no screen"):
                await call(function)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await login_async(lambda url: next(iter(())))
    with pytest.raises(CredentialError, match="no browser could be opened"):
        await login_async(find_no_browser)


async def test_a_callback_that_cannot_be_awaited_is_refused(oauth: OAuthServer, login_config: Path) -> None:
    """The functions for threads name those for tasks."""

    async def show(_: object) -> None: ...

    blocking: Callable[[Any], object]
    not_a_function: Any = 5
    for blocking, name in ((login, "login_async"), (login_headless, "login_headless_async")):
        with pytest.raises(TypeError, match=f"must be a plain function, .* it is not awaited: use {name}$"):
            blocking(show)
    for call in (login_async, login_headless_async):
        with pytest.raises(TypeError, match=r"must be a function, not int"):
            await call(not_a_function)
        with pytest.raises(TypeError, match=r"returned an object of type coroutine, which is not awaited"):
            await call(lambda _: show(_))
    with pytest.raises(ValueError, match="timeout must be a positive number"):
        await login_async(show, timeout=0)


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]
