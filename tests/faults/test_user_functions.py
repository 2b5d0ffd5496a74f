"""Functions that a program passes: what is not a plain function is refused, or is an error of that function."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from functools import partial, wraps
from queue import SimpleQueue
from typing import Any

import httpx
import pytest

from heksher_client import (
    Conversion,
    CredentialError,
    HeksherSequence,
    ServiceUnavailableError,
    Setting,
    SettingType,
    State,
    ThreadHeksherClient,
    UnexpectedResponseError,
    login,
    login_headless,
)
from heksher_client._core.settings.setting import entry_of
from heksher_client._drivers.flow_runner import run_async
from heksher_client.credentials import RefreshableToken, TokenFrom
from heksher_client.integrations import asgi, wsgi
from heksher_client.testing import AsyncStubHeksherClient, Rule, SyncStubHeksherClient
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, AsyncClient, Kind, ThreadClient, eventually, running
from tests.support.deferred_functions import (
    AsyncCallable,
    Deferred,
    async_generator_function,
    coroutine_function,
    generator_function,
)
from tests.support.fake_service import FakeService
from tests.support.in_memory import running_in_memory, transport_to
from tests.support.log_records import summaries
from tests.support.oauth import OAuthServer
from tests.support.service import QUERY, CannedResponse, WatchedService
from tests.support.threads import threads_of_clients

current_user: ContextVar[str] = ContextVar("current_user")

ENDPOINT: Any = {"token_url": "http://host/token"}

Pass = Callable[[Any], object]


def make_setting(**arguments: Any) -> Setting[int]:
    return Setting("s", int, ["user"], 0, **arguments)


def set_on_coerce(function: Any) -> None:
    make_setting().on_coerce = function


def define_type(function: Any, name: str) -> type[SettingType[Any]]:
    methods = dict.fromkeys(["heksher_string", "convert_from_heksher", "convert_to_heksher"], staticmethod(len))
    return type("OwnType", (SettingType,), {**methods, name: staticmethod(function)})


def make_refreshable_token(function: Any) -> RefreshableToken:
    return RefreshableToken(None, "refresh", client_id="shop", on_new_tokens=function, **ENDPOINT)


PARAMETERS: dict[str, tuple[str, Pass]] = {
    "validator": ("validator", lambda function: make_setting().add_validator(function)),
    "on_coerce": ("on_coerce", lambda function: make_setting(on_coerce=function)),
    "on_coerce, assigned": ("on_coerce", set_on_coerce),
    "Setting.on_change": ("callback", lambda function: make_setting().on_change(function)),
    "convert_from_heksher": ("convert_from_heksher", partial(define_type, name="convert_from_heksher")),
    "convert_to_heksher": ("convert_to_heksher", partial(define_type, name="convert_to_heksher")),
    "heksher_string": ("heksher_string", partial(define_type, name="heksher_string")),
    "show_browser": ("show_browser", login),
    "get_code": ("get_code", login_headless),
    "asgi": ("values", lambda function: asgi.ContextMiddleware(coroutine_function, {current_user: function})),
    "wsgi": ("values", lambda function: wsgi.ContextMiddleware(len, {current_user: function})),  # type: ignore[arg-type]
    "stub.on_change": ("callback", lambda function: SyncStubHeksherClient().on_change(function)),
    "stub.on_refresh": ("callback", lambda function: AsyncStubHeksherClient().on_refresh(function)),
}
"""The parameters that do not belong to a client: a word of the message, and a function that passes an argument."""


@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize("function", [5, "print", coroutine_function, AsyncCallable(), async_generator_function])
def test_c20_each_parameter_refuses_what_is_not_a_plain_function(parameter: str, function: Any) -> None:
    """The error is raised when it is passed, and names the parameter."""
    word, pass_ = PARAMETERS[parameter]
    with pytest.raises(TypeError, match=rf"\b{word}\b.* must be a (plain )?function, not "):
        pass_(function)


def test_c20_on_coerce_may_be_none() -> None:
    """Coerced values are rejected then."""
    setting = make_setting(on_coerce=None)
    setting.on_coerce = None
    assert setting.on_coerce is None


def test_c20_functions_of_credentials_may_be_coroutine_functions() -> None:
    """The async client awaits them. Other deferred functions are refused."""
    assert repr(TokenFrom(AsyncCallable())) == "<TokenFrom AsyncCallable>"
    assert repr(make_refreshable_token(AsyncCallable())) == "<RefreshableToken shop at host>"
    for function in (5, async_generator_function, generator_function):
        with pytest.raises(TypeError, match=r"^get_token must be a"):
            TokenFrom(function)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^on_new_tokens must be a"):
            make_refreshable_token(function)


def test_c20_a_wsgi_application_is_not_asynchronous() -> None:
    """It may be a generator function; an ASGI application has other middleware."""
    wsgi.ContextMiddleware(generator_function, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"wrap an ASGI application with integrations\.asgi"):
        wsgi.ContextMiddleware(coroutine_function, {})  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [coroutine_function, AsyncCallable(), async_generator_function, 5])
def test_c20_a_client_refuses_callbacks_hooks_and_auth(kind: Kind, function: Any) -> None:
    """They are refused when they are passed. The methods of a subclass are refused by its constructor."""
    client = kind.make("http://host", 60, FEATURES)
    for subscribe in (client.on_change, client.on_refresh):
        with pytest.raises(TypeError, match=r"^callback must be a (plain )?function, not "):
            subscribe(function)
    for hook in ("on_update_ok", "on_update_error"):
        own: Any = type("OwnClient", (type(client),), {hook: function})
        with pytest.raises(TypeError, match=f"^{hook} must be a (plain )?function, not "):
            own("http://host", 60, FEATURES)
    with pytest.raises(TypeError, match=r"^auth must be a"):
        kind.make("http://host", 60, FEATURES, auth=function)
    with pytest.raises(TypeError, match=r"^auth must be a"):
        client.use_credential(function)


def test_c20_event_hooks_of_the_thread_client_are_plain_functions(kind: Kind) -> None:
    """They are called without an await. The async client awaits its own. Those of a shared client are checked too."""
    http_class: Any = httpx.AsyncClient if kind.raises_at_start else httpx.Client
    for event in ("request", "response"):
        arguments = {"event_hooks": {event: [coroutine_function]}}
        for options in ({"http_client_args": arguments}, {"http_client": http_class(**arguments)}):
            if kind.raises_at_start:
                kind.make("http://host", 60, FEATURES, **options)
            else:
                with pytest.raises(TypeError, match=f"^event_hooks: a hook for {event} must be a plain function"):
                    kind.make("http://host", 60, FEATURES, **options)


@pytest.mark.parametrize("hooks", [5, {"request": 5}, {"request": len}, {"request": [5]}, {"request": "print"}])
def test_c20_event_hooks_are_lists_of_functions(kind: Kind, hooks: Any) -> None:
    """The async client refuses others as well."""
    with pytest.raises(TypeError, match=r"^event_hooks"):
        kind.make("http://host", 60, FEATURES, http_client_args={"event_hooks": hooks})


def test_c20_event_hooks_of_the_async_client_are_no_generators(kind: Kind) -> None:
    """Neither client iterates over a result."""
    for function in (generator_function, async_generator_function):
        with pytest.raises(TypeError, match=r"^event_hooks: a hook for request must be a plain function"):
            kind.make("http://host", 60, FEATURES, http_client_args={"event_hooks": {"request": [function]}})


def test_c20_event_hooks_of_credentials_are_plain_functions() -> None:
    """Tokens are requested in threads, also for the async client."""
    with pytest.raises(TypeError, match=r"^event_hooks: a hook for request must be a plain function"):
        RefreshableToken(
            None, "x", client_id="x", http_client_args={"event_hooks": {"request": [coroutine_function]}}, **ENDPOINT
        )


class AsyncFlow(httpx.Auth):
    async def auth_flow(self, request: httpx.Request) -> Any:
        yield request


class CoroutineFlow(httpx.Auth):
    async def auth_flow(self, request: httpx.Request) -> Any: ...  # type: ignore[override]


class CoroutineAsyncFlow(httpx.Auth):
    async def async_auth_flow(self, request: httpx.Request) -> Any: ...  # type: ignore[override]


class GoodFlows(httpx.Auth):
    async def async_auth_flow(self, request: httpx.Request) -> Any:
        yield request


@pytest.mark.parametrize("auth", [AsyncFlow(), CoroutineFlow(), CoroutineAsyncFlow()])
def test_c20_the_flows_of_an_auth_object_are_generators(kind: Kind, auth: Any) -> None:
    """Only `async_auth_flow` is asynchronous."""
    with pytest.raises(TypeError, match=r"^auth: \w+ must be an? (plain|asynchronous) generator function$"):
        kind.make("http://host", 60, FEATURES, auth=auth)
    client = kind.make("http://host", 60, FEATURES, auth=GoodFlows())
    with pytest.raises(TypeError, match=r"^auth: "):
        client.use_credential(auth)


class DeferringCallable:
    """An object whose call is not asynchronous, and returns a coroutine."""

    def __call__(self, *_: Any) -> Any:
        return coroutine_function()


def deferring() -> list[Any]:
    """Return functions that only their calls show to return a coroutine, or the like."""
    return [
        lambda *_: coroutine_function(),
        partial(defer, 1),
        DeferringCallable(),
        DeferringCallable().__call__,
        wraps(coroutine_function)(lambda *_: coroutine_function()),
        lambda *_: generator_function(),
        lambda *_: async_generator_function(),
        lambda *_: Deferred(),
    ]


NOT_AWAITED = r"\(DeferredResultError: {}: .+ returned an object of type \w+, which is not awaited\)$"


def respond(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"version": "1"})


def ping(kind: Kind, **options: Any) -> None:
    """Send one request with an HTTP client that needs no server."""
    arguments = {"transport": httpx.MockTransport(respond), **options.pop("http_client_args", {})}
    kind.call(kind.make("http://host", 60, FEATURES, http_client_args=arguments, **options).ping())


def test_c20_an_auth_that_returns_a_coroutine_fails_the_request(kind: Kind) -> None:
    """With a message, however the function is written, and wherever it is passed."""
    for function in deferring():
        for options in ({"auth": function}, {"http_client_args": {"auth": function}}):
            with pytest.raises(ServiceUnavailableError, match=NOT_AWAITED.format("auth")):
                ping(kind, **options)
        client = kind.make("http://host", 60, FEATURES, http_client_args={"transport": httpx.MockTransport(respond)})
        client.use_credential(function)
        with pytest.raises(ServiceUnavailableError, match=NOT_AWAITED.format("auth")):
            kind.call(client.ping())
    ping(kind, auth=lambda request: request)


def test_c20_an_event_hook_that_returns_a_coroutine_fails_the_request(kind: Kind) -> None:
    """In the thread client; the async client awaits it, and fails if it cannot."""
    for event in ("request", "response"):
        good: list[Any]
        bad: list[Any]
        if kind.raises_at_start:
            *good, _, _, _ = deferring()
            bad, words = [lambda _: None, lambda _: generator_function()], "which cannot be awaited"
        else:
            bad, words = deferring(), "which is not awaited"
            good = [lambda _: None, lambda _: Future()]
        for function in bad:
            role = f"DeferredResultError: event_hooks: a hook for {event}: .+ returned an object of type"
            with pytest.raises(ServiceUnavailableError, match=rf"\({role} \w+, {words}\)$"):
                ping(kind, http_client_args={"event_hooks": {event: [function]}})
        for function in good:
            ping(kind, http_client_args={"event_hooks": {event: [function]}})


def test_c20_an_http_client_that_is_asynchronous_in_disguise_fails_the_request() -> None:
    """Its method `send` is plain, and returns a coroutine."""

    class Disguised(httpx.Client):
        def send(self, *_: Any, **__: Any) -> Any:
            return coroutine_function()

    with Disguised() as http:
        client = ThreadHeksherClient("http://host", 60, FEATURES, http_client=http)
        with pytest.raises(ServiceUnavailableError, match=NOT_AWAITED.format("http_client")):
            client.ping()


def test_c20_an_event_hook_of_a_credential_that_returns_a_coroutine() -> None:
    """The request of the token fails, and says why."""
    with OAuthServer() as server:
        credential = RefreshableToken(
            None,
            server.issue_refresh_token(),
            token_url=server.token_url,
            client_id="shop",
            http_client_args={"event_hooks": {"request": [defer]}},
        )
        with pytest.raises(CredentialError, match="event_hooks: a hook for request: defer returned an object of type"):
            credential.force_refresh()


@pytest.mark.parametrize("function", [coroutine_function, AsyncCallable(), async_generator_function, 5, None])
def test_c20_a_hook_that_is_assigned_to_a_client_is_checked(kind: Kind, function: Any) -> None:
    """A client and a stub keep the former hook."""
    stub = AsyncStubHeksherClient() if kind.raises_at_start else SyncStubHeksherClient()
    for each in (kind.make("http://host", 60, FEATURES), stub):
        for hook in ("on_update_ok", "on_update_error"):
            setattr(each, hook, print)
            with pytest.raises(TypeError, match=f"^{hook} must be a (plain )?function, not "):
                setattr(each, hook, function)
            assert getattr(each, hook) is print


def test_c20_a_type_that_returns_a_coroutine() -> None:
    """A declaration is refused, and a value from the service is rejected; also within another type, and as a part."""
    good = {"heksher_string": lambda _: "int", "convert_from_heksher": lambda _, x: Conversion(x)}
    methods: dict[str, Any] = {**good, "convert_to_heksher": lambda _, x: x}
    for name in methods:
        bad = type("Bad", (SettingType,), {**methods, name: lambda *_: coroutine_function()})()
        with pytest.raises(TypeError, match=r"setting s: .*<lambda> returned an object of type coroutine"):
            Setting("s", bad, ["user"], 0)
    wrapping = type("Wrapping", (SettingType,), {**methods, "convert_from_heksher": lambda *_: Conversion(defer())})()
    with pytest.raises(TypeError, match="setting s: the value of a Conversion is an object of type coroutine, which"):
        Setting("s", wrapping, ["user"], 0)
    later = type(
        "Later", (SettingType,), {**methods, "convert_from_heksher": lambda _, x: Conversion(x) if x else defer()}
    )()
    for type_, raw in ((later, 0), (HeksherSequence(later), [1, 0])):
        setting = Setting("s", type_, ["user"], 1 if raw == 0 else [1], on_coerce=None)
        with pytest.raises(TypeError, match="<lambda> returned an object of type coroutine, which is not awaited"):
            entry_of(setting).convert(raw, lambda: None)


def test_c20_a_wsgi_application_that_returns_a_coroutine() -> None:
    """The request fails."""
    for pin in (False, True):
        middleware = wsgi.ContextMiddleware(defer, {}, pin=pin)
        with pytest.raises(TypeError, match="the WSGI application returned an object of type coroutine"):
            middleware({}, None)


@pytest.mark.parametrize("stub_class", [SyncStubHeksherClient, AsyncStubHeksherClient])
def test_c20_a_stub_refuses_the_hooks_that_a_client_refuses(stub_class: Any) -> None:
    """A test of a program finds the mistake."""
    own: Any = type("OwnStub", (stub_class,), {"on_update_ok": coroutine_function})
    with pytest.raises(TypeError, match=r"^on_update_ok must be a plain function"):
        own()


def defer(*_: Any, **__: Any) -> Any:
    """Return a coroutine, which can be noticed only when it is called."""
    return coroutine_function()


def test_c20_a_validator_that_returns_a_coroutine_rejects_the_value(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The default of the declaration is used, and one record says why."""
    setting = make_setting()
    with running(kind, service.url) as client:
        service.add_rule("s", 5, user="jim")
        client.reload()
        setting.add_validator(defer)
        caplog.clear()
        client.reload()
        assert setting.get(user="jim") == 0
        (rejected,) = client.client.status().settings["s"].first_rejected
    assert rejected.reason == "defer returned an object of type coroutine, which is not awaited"
    records = [message for _, message, _ in summaries(caplog.records) if message.startswith("setting s: 1 rules were")]
    assert len(records) == 1


def test_c20_an_on_coerce_that_returns_a_coroutine_rejects_the_value() -> None:
    """As if it had raised an error."""
    setting = Setting("s", Sequence[int], ["user"], (), on_coerce=defer)
    with pytest.raises(TypeError, match="defer returned an object of type coroutine"):
        entry_of(setting).convert([1, "x"], lambda: None)


def test_c20_hooks_and_callbacks_that_return_a_coroutine_are_logged_as_errors(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The refresh itself succeeds."""
    setting = make_setting()
    with running(kind, service.url) as client:
        client.client.on_update_ok = defer  # Only its call shows that it returns a coroutine.
        client.client.on_refresh(lambda _: defer())
        setting.on_change(lambda _: defer())
        caplog.clear()
        service.add_rule("s", 5, user="jim")
        client.reload()
        assert setting.get(user="jim") == 5
    messages = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert sorted(messages) == ["<lambda> raised", "<lambda> raised", "defer raised"]


def test_c20_callbacks_of_a_stub_that_return_a_coroutine_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Like an error that the callback raises."""
    setting = make_setting()
    setting.on_change(defer)
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [Rule({"user": "jim"}, 5)]
        assert setting.get(user="jim") == 5
    assert [record.getMessage() for record in caplog.records] == ["defer raised"]


def test_c20_new_tokens_are_used_if_they_cannot_be_stored(caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine function stored nothing, and the program finds that in its log."""
    with OAuthServer() as server:
        credential = RefreshableToken(
            None, server.issue_refresh_token(), token_url=server.token_url, client_id="shop", on_new_tokens=defer
        )
        credential.force_refresh()
        assert eventually(lambda: caplog.records)
    assert [record.getMessage() for record in caplog.records] == [
        "on_new_tokens raised DeferredResultError: the new tokens may not be stored"
    ]


def test_c20_an_extractor_that_returns_a_coroutine_is_an_error() -> None:
    """Of the request, as the value would match no rule."""
    middleware = wsgi.ContextMiddleware(lambda *_: [], {current_user: defer})
    with pytest.raises(TypeError, match="defer returned an object of type coroutine, which is not awaited"):
        middleware({}, None)


def test_m1_the_hook_for_errors_has_the_parameter_of_the_documentation(kind: Kind, service: WatchedService) -> None:
    """A program can call it by keyword, like that of the older client; so it can those of stubs."""
    setting, errors = Setting("s", int, ["user"], 7), SimpleQueue[Exception]()

    class Program(AsyncClient if kind.raises_at_start else ThreadClient):  # type: ignore[misc]
        def on_update_error(self, exc: Exception) -> None:
            super().on_update_error(exc=exc)
            errors.put(exc)

    client = Program(service.url)
    kind.call(client.set_as_main())
    service.respond_with(QUERY, CannedResponse(503))
    with suppress(UnexpectedResponseError):
        kind.call(client.reload())
    assert isinstance(errors.get(timeout=TIMEOUT_SECONDS), UnexpectedResponseError)
    assert setting.get(user="jim") == 7
    kind.call(client.aclose() if kind.raises_at_start else client.close())
    for stub in (SyncStubHeksherClient(), AsyncStubHeksherClient()):
        stub.on_update_error(exc=ValueError())


PARAMETER_NAMES: dict[str, list[str]] = {
    "__init__": ["service_url", "update_interval", "context_features", "args", "options"],
    "on_update_error": ["exc"],
    "on_update_ok": [],
    "set_as_main": ["timeout"],
    "reload": ["timeout"],
    "ping": ["timeout"],
    "get_settings": ["timeout"],
}
"""The parameters of the fixed interface, which the older client has as well, except for timeouts. Context features are
keywords."""


def test_m1_parameters_have_the_names_of_the_fixed_interface(kind: Kind) -> None:
    """None of them is positional-only, in clients and stubs."""
    client_class = type(kind.make("http://host", 60, FEATURES))
    for each in (client_class, SyncStubHeksherClient, AsyncStubHeksherClient):
        for name, expected in PARAMETER_NAMES.items():
            parameters = list(inspect.signature(getattr(each, name)).parameters.values())[1:]
            assert [parameter.name for parameter in parameters] == expected, name
            assert all(parameter.kind is not parameter.POSITIONAL_ONLY for parameter in parameters), name
    expected_of_settings = ["name", "type", "configurable_features", "default_value", "metadata", "alias", "version"]
    assert list(inspect.signature(Setting).parameters) == [*expected_of_settings, "on_coerce"]
    assert list(inspect.signature(Setting.add_validator).parameters) == ["self", "validator"]
    assert list(inspect.signature(Rule).parameters)[:2] == ["match_conditions", "value"]
    assert list(inspect.signature(SyncStubHeksherClient.patch).parameters) == ["self", "setting", "value"]


# -- errors of any class -----------------------------------------------------------------------------------------------


class Panic(BaseException):
    """An error as extensions of Python raise it."""


class FunctionAuth(httpx.Auth):
    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        self._function()
        yield request


def options_with(place: str, function: Callable[[], None], kind: Kind, service: FakeService) -> dict[str, Any]:
    """Return options of a client that calls a function for each request."""
    if place == "auth":
        return {"auth": FunctionAuth(function)}
    if place == "transport":
        inner: Any = transport_to(service).handler

        def respond_after(request: httpx.Request) -> httpx.Response:
            function()
            response: httpx.Response = inner(request)
            return response

        return {"http_client_args": {"transport": httpx.MockTransport(respond_after)}}

    async def async_hook(_: object) -> None:
        function()

    hook = async_hook if kind.raises_at_start else lambda _: function()
    return {"http_client_args": {"event_hooks": {place: [hook]}}}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of a thread for requests
@pytest.mark.parametrize("error", [asyncio.CancelledError, Panic])
@pytest.mark.parametrize("place", ["auth", "request", "response", "transport"])
def test_c11_code_of_a_request_that_raises_anything_fails_the_request(
    kind: Kind, place: str, error: type[BaseException]
) -> None:
    """Even CancelledError, as of a task of the program that the code awaits: the client itself was not canceled."""
    service, setting, is_broken = FakeService(), make_setting(), False
    others = threads_of_clients()

    def fail() -> None:
        if is_broken:
            raise error

    with running_in_memory(kind, service, **options_with(place, fail, kind, service)) as client:
        is_broken = True
        failure = client.reload_expecting(ServiceUnavailableError)
        if kind.raises_at_start:
            assert f"code of the program raised {error.__name__}" in str(failure)
        is_broken = False
        service.add_rule("s", 5, user="jim")
        client.reload()
        assert setting.get(user="jim") == 5
        assert client.client.status().state is State.FRESH
    # The error of a thread that ended later would be reported in another test.
    assert eventually(lambda: threads_of_clients() <= others)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_c11_what_ends_the_event_loop_ends_a_flow(error: type[BaseException]) -> None:
    """And is raised as it is."""

    async def fail(_: object) -> None:
        raise error

    def flow() -> Generator[int, None, None]:
        yield 1

    with pytest.raises(error):
        run_async(flow(), {int: fail}).send(None)


def test_c11_a_log_handler_that_raises_ends_no_refresh(kind: Kind) -> None:
    """The client logs a failure, and goes on."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the disk is full")

    service, setting, handler = FakeService(), make_setting(), Handler()
    with running_in_memory(kind, service) as client:
        logging.getLogger("heksher_client").addHandler(handler)
        try:
            service.respond_with(QUERY, CannedResponse(503), times=1)
            client.reload_expecting(UnexpectedResponseError)
            service.add_rule("s", 5, user="jim")
            client.reload()
        finally:
            logging.getLogger("heksher_client").removeHandler(handler)
        assert setting.get(user="jim") == 5


@pytest.mark.parametrize("error", [asyncio.CancelledError, Panic, SystemError])
def test_c11_a_validator_may_raise_anything(kind: Kind, error: type[BaseException]) -> None:
    """The value is rejected, as the value of a rule or as the default; other settings are updated."""
    service, setting, other = FakeService(), make_setting(), Setting("other", int, ["user"], 0)

    def reject(*_: Any) -> int:
        raise error

    with running_in_memory(kind, service) as client:
        setting.add_validator(reject)
        service.add_rule("s", 5, user="jim")
        service.add_rule("other", 5, user="jim")
        client.reload()
        assert (setting.get(user="jim"), other.get(user="jim")) == (0, 5)
        status = client.client.status()
        assert status.state is State.FRESH
        assert [rule.reason for rule in status.settings["s"].first_rejected] == [error.__name__]
