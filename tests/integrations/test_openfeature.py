"""The OpenFeature provider, called through the API of OpenFeature, with stubs and with a real service."""

import gc
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import Enum, IntFlag
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest.mock import Mock

import anyio
import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent, ProviderEventDetails
from openfeature.flag_evaluation import FlagEvaluationDetails, Reason
from openfeature.provider import ProviderStatus

from heksher_client import AsyncHeksherClient, HeksherMapping, Setting, SettingType, ThreadHeksherClient, setting_type
from heksher_client._core.refresh.status import Refresh, State
from heksher_client.openfeature import HeksherProvider
from heksher_client.testing import Rule, SyncStubHeksherClient
from tests.support.clients import TIMEOUT_SECONDS, ThreadClient, eventually
from tests.support.service import QUERY, CannedResponse, WatchedService

DATA = json.loads((Path(__file__).parents[1] / "data" / "openfeature" / "scenarios.json").read_text())


class Mixed(Enum):
    """Values of several types, for the parts of an object flag."""

    YES = True
    TITLE = "Check out these pics!"
    NUMBER = 100


TYPES: Mapping[str, Any] = {"bool": bool, "str": str, "int": int, "float": float, "Mapping<Enum>": Mapping[str, Mixed]}


@pytest.fixture(autouse=True)
def _clear_providers() -> Iterator[None]:
    yield
    api.clear_providers()


def declare(name: str) -> Setting[Any]:
    flag = DATA["flags"][name]
    features = sorted({feature for rule in flag["rules"] for feature in rule["when"]}) or ["customer"]
    return Setting(name, TYPES[flag["type"]], features, flag["default"])


@pytest.mark.parametrize("scenario", DATA["scenarios"], ids=lambda scenario: scenario["it"].replace(" ", "_"))
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_scenarios_of_the_openfeature_specification(scenario: dict[str, Any], is_async: bool) -> None:
    """Details and values are as the scenario requires, with the sync and the async methods."""
    settings = {name: declare(name) for name in DATA["flags"]}
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(customer="nobody", fn="", ln="", age="")
        for name, setting in settings.items():
            rules = [Rule(rule["when"], _member(rule["value"]), 7) for rule in DATA["flags"][name]["rules"]]
            stub[setting].rules = rules
        api.set_provider_and_wait(HeksherProvider(stub))
        client = api.get_client()
        arguments = (scenario["flag"], scenario["fallback"], EvaluationContext(None, scenario.get("context", {})))
        name = f"get_{scenario['as']}_details"
        details: FlagEvaluationDetails[Any]
        if is_async:
            details = anyio.run(getattr(client, f"{name}_async"), *arguments)
        else:
            details = getattr(client, name)(*arguments)
        assert details.value == scenario["value"]
        assert type(details.value) is type(scenario["value"])
        assert (details.reason, details.error_code) == (scenario["reason"], scenario.get("error"))
        if "error" not in scenario:
            assert details.variant == scenario.get("variant", "7")
            assert getattr(client, f"get_{scenario['as']}_value")(*arguments) == scenario["value"]


def _member(value: Any) -> Any:
    return {name: Mixed(part) for name, part in value.items()} if isinstance(value, dict) else value


class Color(Enum):
    RED = "red"


class Version(str, Enum):  # noqa: UP042 - `str()` of a StrEnum is its value, of this it is not
    FIVE = "5"


class Options(IntFlag):
    BIG = 1
    FAST = 2


def test_values_are_the_json_values_of_the_service() -> None:
    """Enum members become their values, flags and sequences become lists. An int setting is also a float flag."""
    settings = [
        Setting("color", Color, ["user"], Color.RED),
        Setting("options", Options, ["user"], Options.BIG | Options.FAST),
        Setting("names", Sequence[str], ["user"], ("a", "b")),
        Setting("nested", HeksherMapping(Sequence[int]), ["user"], {"a": [1]}),
        Setting("size", int, ["user"], 3),
    ]
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(user="jim")
        api.set_provider_and_wait(HeksherProvider(stub))
        client = api.get_client()
        assert client.get_string_value("color", "") == "red"
        assert client.get_object_value("options", []) == ["BIG", "FAST"]
        assert client.get_object_value("names", []) == ["a", "b"]
        assert client.get_object_value("nested", {}) == {"a": [1]}
        size = client.get_float_value("size", 0.0)
        assert (size, type(size)) == (3.0, float)
    assert len(settings) == 5


@contextmanager
def provider_of(client: Any, **options: Any) -> Iterator[OpenFeatureClient]:
    api.set_provider_and_wait(HeksherProvider(client, **options))
    yield api.get_client()


def test_attributes_and_the_targeting_key_become_context_values() -> None:
    """Attributes are matched by name or by a mapping. Attributes that the setting does not use are ignored."""
    setting = Setting("s", int, ["user", "version", "is_new"], 7)
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [Rule({"user": "jim", "version": "5", "is_new": "true"}, 8)]
        attributes: Any = {"version": Version.FIVE, "is_new": True, "other": {"nested": [1]}, "user": "ann"}
        with provider_of(stub, targeting_key="user") as client:
            assert client.get_integer_value("s", 0, EvaluationContext("jim", attributes)) == 8
            assert client.get_integer_value("s", 0, EvaluationContext(None, attributes)) == 7
        mapping = {"app.version": "version", "fresh": "is_new"}
        with provider_of(stub, targeting_key="user", attributes=mapping) as client:
            mapped: Any = {"app.version": 5, "fresh": True, "version": "4"}
            details = client.get_integer_details("s", 0, EvaluationContext("jim", mapped))
        stub[setting].rules = [Rule({"user": "5"}, 9)]
        stub.set_defaults(version="1", is_new="false")
        with provider_of(stub, targeting_key="user") as client:
            number: Any = 5
            assert client.get_integer_value("s", 0, EvaluationContext(number)) == 9
    assert details.value == 8
    assert details.flag_metadata == {
        "setting": "s", "version": "1.0", "source": "rule", "conditions": "user:jim,version:5,is_new:true",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("context", "code", "message"),
    [
        (EvaluationContext("jim", {"version": {"major": 5}}), "INVALID_CONTEXT", "the attribute version is nested"),
        (EvaluationContext("jim", {"version": [5]}), "INVALID_CONTEXT", "the attribute version is nested"),
        (EvaluationContext("jim", {"version": 5.5}), "INVALID_CONTEXT", "version is of type float"),
        (EvaluationContext("jim", {"version": datetime(2026, 1, 1)}), "INVALID_CONTEXT", "version is of type datetime"),
        (EvaluationContext("jim", {}), "INVALID_CONTEXT", "no value for the context feature version"),
        (EvaluationContext(None, {"version": "5"}), "TARGETING_KEY_MISSING", "no value for the context feature user"),
        (EvaluationContext("jim", {"version": b"5"}), "INVALID_CONTEXT", "version is of type bytes"),
    ],
)
def test_an_unusable_context_is_an_error_with_a_message(context: EvaluationContext, code: str, message: str) -> None:
    """The caller gets its fallback."""
    _setting = Setting("s", int, ["user", "version"], 7)
    with SyncStubHeksherClient() as stub, provider_of(stub, targeting_key="user") as client:
        details = client.get_integer_details("s", 1, context)
    assert (details.value, details.reason, details.error_code) == (1, Reason.ERROR, code)
    assert message in str(details.error_message)


def test_flags_are_found_by_name_and_alias_as_settings_come_and_go() -> None:
    """A name takes precedence over the alias of another setting."""
    setting = Setting("new", int, ["user"], 7, alias="old", version="1.1")
    with SyncStubHeksherClient() as stub, provider_of(stub) as client:
        stub.set_defaults(user="jim")
        assert [client.get_integer_value(name, 0) for name in ("new", "old", "later")] == [7, 7, 0]
        other = Setting("old", int, ["user"], 9)
        assert client.get_integer_value("old", 0) == 9
        later = Setting("later", int, ["user"], 8)
        assert client.get_integer_value("later", 0) == 8
        del later
        gc.collect()
        assert client.get_integer_value("later", 0) == 0
    assert (setting.alias, other.name) == ("old", "old")


def test_the_lookup_is_not_rebuilt_for_each_evaluation_of_an_undeclared_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is rebuilt when a setting is added or gone. The name of a setting that is gone may be the alias of another."""
    setting = Setting("new", int, ["user"], 7, alias="old", version="1.1")
    other = Setting("old", int, ["user"], 9)
    with SyncStubHeksherClient() as stub, provider_of(stub) as client:
        stub.set_defaults(user="jim")
        rebuild = Mock(side_effect=HeksherProvider._rebuild_lookup)
        monkeypatch.setattr(HeksherProvider, "_rebuild_lookup", lambda self: rebuild(self))
        assert [client.get_integer_value(name, 0) for name in ("old", "none", "none")] == [9, 0, 0]
        assert rebuild.call_count == 1
        del other
        gc.collect()
        assert [client.get_integer_value("old", 0) for _ in range(2)] == [7, 7]
        assert rebuild.call_count == 2
    assert setting.default_value == 7


def test_threads_find_settings_that_are_added_during_evaluations() -> None:
    """An evaluation never misses a setting, whichever thread rebuilds the lookup."""
    kept = [Setting("first", int, ["user"], 7)]
    missing: list[str] = []
    is_finished = threading.Event()
    with SyncStubHeksherClient() as stub, provider_of(stub) as client:
        stub.set_defaults(user="jim")

        def evaluate() -> None:
            while not is_finished.is_set():
                name = kept[-1].name
                if client.get_integer_value(name, 0) != 7:
                    missing.append(name)

        threads = [threading.Thread(target=evaluate) for _ in range(3)]
        for thread in threads:
            thread.start()
        for name in (f"s{number}" for number in range(200)):
            setting = Setting(name, int, ["user"], 7)
            kept.append(setting)
        is_finished.set()
        for thread in threads:
            thread.join()
    assert missing == []


def test_events_report_the_state_of_the_client(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are ready, changed, error, stale and ready again. The client starts and closes with its provider."""
    setting = Setting("s", int, ["user"], 7, alias="old", version="1.1")
    client = ThreadClient(service.url, 60, ["environment", "user", "theme"], max_backoff=60, jitter=0, stale_after=1e8)
    client.set_defaults(user="jim")
    service.declare("old", "int", 7, ["user"])
    events: SimpleQueue[tuple[ProviderEvent, EventDetails]] = SimpleQueue()
    provider = HeksherProvider(client)
    for event in ProviderEvent:
        api.add_handler(event, lambda details, event=event: events.put((event, details)))  # type: ignore[misc]

    def wait_for(expected: ProviderEvent) -> EventDetails:
        while True:
            event, details = events.get(timeout=TIMEOUT_SECONDS)
            if event is expected:
                return details

    try:
        api.set_provider_and_wait(provider)
        flags = api.get_client()
        wait_for(ProviderEvent.PROVIDER_READY)
        assert flags.get_integer_value("s", 0) == 7
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert wait_for(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED).flags_changed == ["s", "old"]
        assert flags.get_integer_details("s", 0).variant == "1"
        service.respond_with(QUERY, CannedResponse(503))
        client.reload()
        assert "503" in str(wait_for(ProviderEvent.PROVIDER_ERROR).message)
        assert flags.get_integer_value("s", 0) == 8
        client._session._health._stale_after = 1e-9
        assert flags.get_integer_details("s", 0).reason is Reason.TARGETING_MATCH  # checked a moment ago
        monkeypatch.setattr("heksher_client.openfeature._STATUS_INTERVAL", 0)
        assert flags.get_integer_details("s", 0).reason is Reason.STALE  # no refresh has ended since
        wait_for(ProviderEvent.PROVIDER_STALE)
        client._session._health._stale_after = 1e8
        service.reset()
        service.declare("old", "int", 7, ["user"])
        client.reload()
        wait_for(ProviderEvent.PROVIDER_READY)
        assert eventually(lambda: flags.get_provider_status() is ProviderStatus.READY)
        api.clear_providers()
        assert eventually(lambda: client.closed)
    finally:
        client.close()
    assert setting.name == "s"


@pytest.fixture
def failing_client(service: WatchedService) -> Iterator[ThreadHeksherClient]:
    """A client with rules for the setting `s`, whose last refresh failed."""
    setting = Setting("s", int, ["user"], 7)
    with ThreadClient(service.url, 60, ["environment", "user", "theme"], max_backoff=60, jitter=0) as client:
        client.set_defaults(user="jim")
        service.respond_with(QUERY, CannedResponse(503))
        refresh(client)
        assert client.status().state is State.FAILING
        yield client
    assert setting.name == "s"


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ProviderEvent, str | None]]:
    """The events that providers emit, without those that OpenFeature emits itself."""
    emitted: list[tuple[ProviderEvent, str | None]] = []
    emit = HeksherProvider.emit

    def record(provider: HeksherProvider, event: ProviderEvent, details: ProviderEventDetails) -> None:
        emit(provider, event, details)
        emitted.append((event, details.message))

    monkeypatch.setattr(HeksherProvider, "emit", record)
    return emitted


def refresh(client: ThreadHeksherClient, times: int = 1) -> None:
    """Refresh, and wait until the callbacks of each refresh were called."""
    refreshes: list[Refresh] = []
    callback = client.on_refresh(lambda refresh: refreshes.append(refresh))
    for number in range(times):
        client.reload()
        assert eventually(lambda number=number: len(refreshes) > number)  # type: ignore[misc]
    client.off_refresh(callback)


@pytest.mark.parametrize("trigger", ["evaluation", "refresh"])
def test_a_client_that_fails_from_the_start_is_reported_soon(
    failing_client: ThreadHeksherClient, monkeypatch: pytest.MonkeyPatch, trigger: str
) -> None:
    """OpenFeature reports the provider as ready first, as its values are usable."""
    with provider_of(failing_client) as flags:
        assert flags.get_provider_status() is ProviderStatus.READY
        if trigger == "evaluation":
            monkeypatch.setattr("heksher_client.openfeature._STATUS_INTERVAL", 0)
            assert flags.get_integer_details("s", 0).reason is Reason.DEFAULT
        else:
            refresh(failing_client)
        assert flags.get_provider_status() is ProviderStatus.ERROR


def test_a_client_that_is_stale_from_the_start_is_reported_soon(
    failing_client: ThreadHeksherClient,
    service: WatchedService,
    monkeypatch: pytest.MonkeyPatch,
    emitted: list[tuple[ProviderEvent, str | None]],
) -> None:
    """Its values have the reason STALE immediately. Without a failure, the event has no message."""
    service.reset()
    refresh(failing_client)
    failing_client._session._health._stale_after = 1e-9
    with provider_of(failing_client) as flags:
        assert flags.get_integer_details("s", 0).reason is Reason.STALE
        monkeypatch.setattr("heksher_client.openfeature._STATUS_INTERVAL", 0)
        flags.get_integer_value("s", 0)
        assert emitted == [(ProviderEvent.PROVIDER_STALE, None)]
        assert flags.get_provider_status() is ProviderStatus.STALE


def test_an_event_that_openfeature_overwrites_is_emitted_again(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch, emitted: list[tuple[ProviderEvent, str | None]]
) -> None:
    """Otherwise the provider would stay in error although its client is fresh. The event is emitted once more only."""
    _setting = Setting("s", int, ["user"], 7)

    class RefreshedTooEarly(HeksherProvider):
        def initialize(self, evaluation_context: EvaluationContext) -> None:
            try:
                super().initialize(evaluation_context)
            finally:
                service.reset()
                refresh(client)

    service.respond_with(QUERY, CannedResponse(503))
    client = ThreadClient(service.url, 60, ["environment", "user", "theme"], max_backoff=60, jitter=0)
    monkeypatch.setattr("heksher_client.openfeature._INITIALIZATION_SECONDS", TIMEOUT_SECONDS)
    with client:
        with pytest.raises(Exception, match="503"):
            api.set_provider_and_wait(RefreshedTooEarly(client))
        assert api.get_client().get_provider_status() is ProviderStatus.ERROR
        emitted.clear()
        monkeypatch.setattr("heksher_client.openfeature._INITIALIZATION_SECONDS", 0)
        refresh(client, 3)
        assert api.get_client().get_provider_status() is ProviderStatus.READY
        assert emitted == [(ProviderEvent.PROVIDER_READY, None)]


def test_a_ready_event_is_not_repeated(
    service: WatchedService, emitted: list[tuple[ProviderEvent, str | None]]
) -> None:
    """Neither the first refresh nor a later one emits it again."""
    with ThreadClient(service.url, 60, ["environment", "user", "theme"]) as client, provider_of(client):
        refresh(client, 2)
        assert emitted == []


def test_an_unavailable_service_is_an_error() -> None:
    """Flags have their defaults, and a failed initialization leaves no callbacks behind."""
    setting = Setting("s", int, ["user"], 7)
    client = ThreadHeksherClient("http://127.0.0.1:9", 60, ["user"], start_timeout=1)
    provider = HeksherProvider(client)
    client.set_defaults(user="jim")
    try:
        with pytest.raises(Exception, match="no response"):
            api.set_provider_and_wait(provider)
        assert api.get_client().get_provider_status() is ProviderStatus.ERROR
        assert api.get_client().get_integer_value("s", 0) == setting.default_value
        with pytest.raises(Exception, match="no response"):
            provider.initialize(EvaluationContext())
        provider.shutdown()
        assert not client._session.refresh_listeners
    finally:
        client.close()


def test_an_async_client_must_be_running() -> None:
    """`initialize` is synchronous and cannot await its start."""
    client = AsyncHeksherClient("http://host", 60, ["user"])
    with pytest.raises(Exception, match="the client is not running: start it"):
        api.set_provider_and_wait(HeksherProvider(client))


def test_a_provider_is_not_ready_while_another_client_is_the_main_one(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch, emitted: list[tuple[ProviderEvent, str | None]]
) -> None:
    """Values would be those of the other client. When that is closed, the provider is ready again."""
    setting = Setting("s", int, ["user"], 7)
    context = EvaluationContext(None, {"user": "a"})
    client = ThreadClient(service.url, 60, ["environment", "user", "theme"])
    provider = HeksherProvider(client)
    with client:
        with SyncStubHeksherClient(), pytest.raises(Exception, match="another client is the main one"):
            api.set_provider_and_wait(provider)
        flags = api.get_client()
        assert eventually(lambda: flags.get_provider_status() is ProviderStatus.READY)
        monkeypatch.setattr("heksher_client.openfeature._STATUS_INTERVAL", 0)
        with SyncStubHeksherClient() as stub:
            stub[setting].rules = 8
            details = flags.get_integer_details("s", 1, context)
            assert (details.value, details.error_code) == (1, "PROVIDER_NOT_READY")
            assert "another client is the main one" in str(details.error_message)
            assert emitted[-1][0] is ProviderEvent.PROVIDER_ERROR
            assert "another client is the main one" in str(emitted[-1][1])
        assert eventually(lambda: flags.get_provider_status() is ProviderStatus.READY)
        assert flags.get_integer_details("s", 0, context).variant == "default"


def test_a_stub_that_is_not_the_main_client_is_not_ready() -> None:
    """A provider does not start a stub."""
    not_main = pytest.raises(Exception, match="another client is the main one")
    with SyncStubHeksherClient() as stub, SyncStubHeksherClient(), not_main:
        api.set_provider_and_wait(HeksherProvider(stub))
    with pytest.raises(Exception, match="the client is not running"):
        api.set_provider_and_wait(HeksherProvider(SyncStubHeksherClient()))


def test_values_of_a_closed_client_are_stale(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch, emitted: list[tuple[ProviderEvent, str | None]]
) -> None:
    """The event of the provider has the cause."""
    setting = Setting("s", int, ["user"], 7)
    context = EvaluationContext(None, {"user": "a"})
    monkeypatch.setattr("heksher_client.openfeature._STATUS_INTERVAL", 0)
    with ThreadClient(service.url, 60, ["environment", "user", "theme"]) as client, provider_of(client) as flags:
        assert flags.get_integer_details("s", 0, context).reason is Reason.DEFAULT
    details = flags.get_integer_details("s", 0, context)
    assert (details.value, details.reason) == (setting.default_value, Reason.STALE)
    assert emitted == [(ProviderEvent.PROVIDER_ERROR, "the client is closed")]


def test_a_client_that_a_provider_started_closes_with_its_last_provider(service: WatchedService) -> None:
    """A closed client is refused with a message. A client that the program started is not closed by a provider."""
    client = ThreadClient(service.url, 60, ["environment", "user", "theme"])
    first, second = HeksherProvider(client), HeksherProvider(client)
    api.set_provider_and_wait(first)
    api.set_provider_and_wait(second, "a domain")
    first.initialize(EvaluationContext())
    first.shutdown()
    first.shutdown()
    assert client.status().is_main
    second.shutdown()
    assert client.closed
    with ThreadClient(service.url, 60, ["environment", "user", "theme"]) as other:
        third = HeksherProvider(other)
        third.initialize(EvaluationContext())
        third.shutdown()
        assert other.status().is_main
    api.clear_providers()
    provider = HeksherProvider(client)
    with pytest.raises(Exception, match="the client is closed, possibly by another provider"):
        api.set_provider_and_wait(provider)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"client": None}, "client must be a client or a stub, not None"),
        ({"client": ThreadHeksherClient}, "client must be a client or a stub, not <class"),
        ({"targeting_key": 5}, "targeting_key must be the name of a context feature, not 5"),
        ({"attributes": ["user"]}, r"attributes must be a dict of .*, not \['user'\]"),
        ({"attributes": "user"}, "attributes must be a dict of .*, not 'user'"),
        ({"attributes": {"user": 5}}, "attributes must be a dict of .*, not {'user': 5}"),
        ({"attributes": {5: "user"}}, "attributes must be a dict of .*, not {5: 'user'}"),
    ],
)
def test_invalid_arguments_of_a_provider_are_refused(arguments: dict[str, Any], message: str) -> None:
    """The constructor raises, and not the first evaluation."""
    with pytest.raises(TypeError, match=message):
        HeksherProvider(**{"client": SyncStubHeksherClient(), **arguments})


@pytest.mark.parametrize("options", [{"targeting_key": "usr"}, {"attributes": {"app.user": "usr"}}])
def test_unknown_context_features_are_refused(options: dict[str, Any]) -> None:
    """The error lists the context features that the client or the stub has."""
    client = ThreadHeksherClient("http://host", 60, ["user"])
    with SyncStubHeksherClient(context_features=["user"]) as stub:
        for candidate in (client, stub):
            with pytest.raises(Exception, match="the client has no context feature usr; it has: user"):
                api.set_provider_and_wait(HeksherProvider(candidate, **options))
    client.close()


def test_a_rule_without_an_id_has_no_variant() -> None:
    """The rules of stubs have no ID unless the test gives them one."""
    setting = Setting("s", int, ["user"], 7)
    with SyncStubHeksherClient() as stub, provider_of(stub) as client:
        stub[setting].rules = 8
        assert client.get_integer_details("s", 0, EvaluationContext(None, {"user": "a"})).variant is None


def test_a_custom_setting_type_is_a_flag_by_its_json_value() -> None:
    """The type of its values in Python does not matter."""

    class Seconds(SettingType[complex]):
        def heksher_string(self) -> str:
            return "float"

        def convert_from_heksher(self, x: object) -> Any:
            conversion = setting_type(float).convert_from_heksher(x)
            return type(conversion)(complex(conversion.value))

        def convert_to_heksher(self, x: complex) -> object:
            return x.real

    setting = Setting("wait", Seconds(), ["user"], complex(2.5))
    with SyncStubHeksherClient() as stub, provider_of(stub) as client:
        stub.set_defaults(user="jim")
        assert client.get_float_value("wait", 0.0) == 2.5
    assert setting.default_value == complex(2.5)
