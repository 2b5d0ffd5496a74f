"""The types of the pytest plugin and the integrations. Checked by mypy and pyright, never run."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, assert_type

import pytest
from openfeature.flag_evaluation import FlagResolutionDetails

from heksher_client import (
    AsyncHeksherClient,
    Change,
    Reason,
    Refresh,
    Resolution,
    Rule,
    Setting,
    State,
    Status,
    ThreadHeksherClient,
)
from heksher_client.integrations import asgi, wsgi
from heksher_client.integrations.celery import propagate, run_client
from heksher_client.openfeature import HeksherProvider
from heksher_client.pytest_plugin import HeksherService
from heksher_client.telemetry import Instrumentation, instrument, instrumented
from heksher_client.testing import AsyncStubHeksherClient, SyncStubHeksherClient, UnstubbedSettingError

user: ContextVar[str] = ContextVar("user")
number: ContextVar[int] = ContextVar("number")
cache_size = Setting("cache_size", int, ["user"], 10)


def resolutions() -> None:
    resolution = cache_size.explain(user="jim")
    assert_type(resolution, Resolution[int])
    assert_type(resolution.value, int)
    assert_type(resolution.reason, Reason)
    assert_type(resolution.rule, Rule[int] | None)
    assert_type(resolution.outranked, tuple[Rule[int], ...])
    assert_type(resolution.context, Mapping[str, str])


class Hooks(AsyncHeksherClient):
    def on_update_ok(self) -> None: ...
    def on_update_error(self, exc: Exception) -> None: ...


def refreshes(client: ThreadHeksherClient) -> None:
    @client.on_refresh
    def note(refresh: Refresh) -> None:
        assert_type(refresh.errors, tuple[Exception, ...])
        assert_type(refresh.seconds, float)
        assert_type(refresh.changed, tuple[str, ...])

    client.off_refresh(note)
    assert_type(client.status(), Status)
    assert_type(client.status().state, State)

    @cache_size.on_change
    def changed(change: Change[int]) -> None:
        assert_type(change.added, tuple[Rule[int], ...])

    cache_size.off_change(changed)


def fixtures(
    heksher: SyncStubHeksherClient, async_heksher: AsyncStubHeksherClient, heksher_service: HeksherService
) -> None:
    heksher[cache_size].rules = 5
    heksher[cache_size].rules = [Rule({"user": "jim"}, 5)]
    heksher[cache_size].rules = "many"  # type: ignore[assignment]
    assert_type(async_heksher[cache_size].is_assigned, bool)
    assert_type(heksher_service.url, str)
    assert_type(heksher_service.add_rule(cache_size, 5, user="jim"), int)
    heksher_service.add_rule("cache_size", "any JSON", user="jim")
    heksher_service.add_rule(cache_size, 5, user=5)  # type: ignore[call-overload]
    with pytest.raises(UnstubbedSettingError):
        cache_size.get(user="jim")


def flags(client: ThreadHeksherClient, stub: SyncStubHeksherClient) -> None:
    provider = HeksherProvider(client, targeting_key="user", attributes={"app.env": "environment"})
    assert_type(provider.resolve_boolean_details("s", False), FlagResolutionDetails[bool])
    assert_type(provider.resolve_integer_details("s", 5), FlagResolutionDetails[int])
    HeksherProvider(stub)
    HeksherProvider("http://host")  # type: ignore[arg-type]


def telemetry(client: ThreadHeksherClient, stub: SyncStubHeksherClient) -> None:
    assert_type(instrument(client, reads=0.01), Instrumentation)
    with instrumented(stub) as instrumentation:
        assert_type(instrumentation, Instrumentation)


def frameworks(app: Any, client: ThreadHeksherClient) -> None:
    asgi.ContextMiddleware(app, {user: asgi.header("x-user")}, pin=True)
    wsgi.ContextMiddleware(app, {user: lambda environ: environ.get("USER")})
    wsgi.ContextMiddleware(app, {"user": wsgi.header("x-user")})  # type: ignore[dict-item]
    asgi.ContextMiddleware(app, {number: asgi.header("x-user")})  # type: ignore[dict-item]
    propagate(user=user)
    propagate(user=number)  # type: ignore[arg-type]
    run_client(lambda: client)
