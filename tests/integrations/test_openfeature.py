"""The OpenFeature provider, by way of OpenFeature's own API, on a real service."""

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
from tests.support.clients import PATIENCE, eventually
from tests.support.service import QUERY, Answer, WatchedService

DATA = json.loads((Path(__file__).parents[1] / "data" / "openfeature" / "scenarios.json").read_text())


class Mixed(Enum):
    """The values of an object, which are of several types."""

    YES = True
    TITLE = "Check out these pics!"
    NUMBER = 100


TYPES: Mapping[str, Any] = {"bool": bool, "str": str, "int": int, "float": float, "Mapping<Enum>": Mapping[str, Mixed]}


@pytest.fixture(autouse=True)
def _no_provider_is_left() -> Iterator[None]:
    yield
    api.clear_providers()


def declared(name: str) -> Setting[Any]:
    flag = DATA["flags"][name]
    features = sorted({feature for rule in flag["rules"] for feature in rule["when"]}) or ["customer"]
    return Setting(name, TYPES[flag["type"]], features, flag["default"])


@pytest.mark.parametrize("scenario", DATA["scenarios"], ids=lambda scenario: scenario["it"].replace(" ", "_"))
@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_the_scenarios_of_openfeature(scenario: dict[str, Any], waits: bool) -> None:
    """Details and values, by the methods that wait and by those that do not."""
    settings = {name: declared(name) for name in DATA["flags"]}
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
        if waits:
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


class Version(str, Enum):  # noqa: UP042 - its text is another one
    FIVE = "5"


class Options(IntFlag):
    BIG = 1
    FAST = 2


def test_values_are_as_the_service_has_them() -> None:
    """Enums by their values, flags and sequences as lists; a whole number serves where a float is asked for."""
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
def provided(client: Any, **options: Any) -> Iterator[OpenFeatureClient]:
    api.set_provider_and_wait(HeksherProvider(client, **options))
    yield api.get_client()


def test_contexts_become_context_features() -> None:
    """By name, by a mapping, and by the targeting key; attributes of other settings are no matter."""
    setting = Setting("s", int, ["user", "version", "is_new"], 7)
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [Rule({"user": "jim", "version": "5", "is_new": "true"}, 8)]
        attributes: Any = {"version": Version.FIVE, "is_new": True, "other": {"nested": [1]}, "user": "ann"}
        with provided(stub, targeting_key="user") as client:
            assert client.get_integer_value("s", 0, EvaluationContext("jim", attributes)) == 8
            assert client.get_integer_value("s", 0, EvaluationContext(None, attributes)) == 7
        mapping = {"app.version": "version", "fresh": "is_new"}
        with provided(stub, targeting_key="user", attributes=mapping) as client:
            mapped: Any = {"app.version": 5, "fresh": True, "version": "4"}
            details = client.get_integer_details("s", 0, EvaluationContext("jim", mapped))
        stub[setting].rules = [Rule({"user": "5"}, 9)]
        stub.set_defaults(version="1", is_new="false")
        with provided(stub, targeting_key="user") as client:
            number: Any = 5
            assert client.get_integer_value("s", 0, EvaluationContext(number)) == 9
    assert details.value == 8
    assert details.flag_metadata == {
        "setting": "s", "version": "1.0", "source": "rule", "conditions": "user:jim,version:5,is_new:true",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("context", "code", "words"),
    [
        (EvaluationContext("jim", {"version": {"major": 5}}), "INVALID_CONTEXT", "the attribute version is nested"),
        (EvaluationContext("jim", {"version": [5]}), "INVALID_CONTEXT", "the attribute version is nested"),
        (EvaluationContext("jim", {"version": 5.5}), "INVALID_CONTEXT", "version is of float"),
        (EvaluationContext("jim", {"version": datetime(2026, 1, 1)}), "INVALID_CONTEXT", "version is of datetime"),
        (EvaluationContext("jim", {}), "INVALID_CONTEXT", "no value for the context feature version"),
        (EvaluationContext(None, {"version": "5"}), "TARGETING_KEY_MISSING", "no value for the context feature user"),
        (EvaluationContext("jim", {"version": b"5"}), "INVALID_CONTEXT", "version is of bytes"),
    ],
)
def test_contexts_that_cannot_be_used_are_said_in_words(context: EvaluationContext, code: str, words: str) -> None:
    """And the program goes on with its fallback."""
    _setting = Setting("s", int, ["user", "version"], 7)
    with SyncStubHeksherClient() as stub, provided(stub, targeting_key="user") as client:
        details = client.get_integer_details("s", 1, context)
    assert (details.value, details.reason, details.error_code) == (1, Reason.ERROR, code)
    assert words in str(details.error_message)


def test_flags_are_found_by_name_and_alias_also_later() -> None:
    """As settings come and go."""
    setting = Setting("new", int, ["user"], 7, alias="old", version="1.1")
    with SyncStubHeksherClient() as stub, provided(stub) as client:
        stub.set_defaults(user="jim")
        assert [client.get_integer_value(name, 0) for name in ("new", "old", "later")] == [7, 7, 0]
        other = Setting("old", int, ["user"], 9)
        assert client.get_integer_value("old", 0) == 9  # its own name, and not somebody's former one
        later = Setting("later", int, ["user"], 8)
        assert client.get_integer_value("later", 0) == 8
        del later
        gc.collect()
        assert client.get_integer_value("later", 0) == 0
    assert (setting.alias, other.name) == ("old", "old")


def test_a_flag_that_nobody_declares_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until there is another setting; but the name of one that is gone may be what another one was called before."""
    setting = Setting("new", int, ["user"], 7, alias="old", version="1.1")
    other = Setting("old", int, ["user"], 9)
    with SyncStubHeksherClient() as stub, provided(stub) as client:
        stub.set_defaults(user="jim")
        look_up = Mock(side_effect=HeksherProvider._look_up)
        monkeypatch.setattr(HeksherProvider, "_look_up", lambda self: look_up(self))
        assert [client.get_integer_value(name, 0) for name in ("old", "none", "none")] == [9, 0, 0]
        assert look_up.call_count == 1
        del other
        gc.collect()
        assert [client.get_integer_value("old", 0) for _ in range(2)] == [7, 7]
        assert look_up.call_count == 2
    assert setting.default_value == 7


def test_threads_that_evaluate_while_settings_are_added_find_each_of_them() -> None:
    """Whoever looks for them at the moment."""
    kept = [Setting("first", int, ["user"], 7)]
    missing: list[str] = []
    is_over = threading.Event()
    with SyncStubHeksherClient() as stub, provided(stub) as client:
        stub.set_defaults(user="jim")

        def evaluate() -> None:
            while not is_over.is_set():
                name = kept[-1].name
                if client.get_integer_value(name, 0) != 7:
                    missing.append(name)

        threads = [threading.Thread(target=evaluate) for _ in range(3)]
        for thread in threads:
            thread.start()
        for name in (f"s{number}" for number in range(200)):
            setting = Setting(name, int, ["user"], 7)
            kept.append(setting)
        is_over.set()
        for thread in threads:
            thread.join()
    assert missing == []


def test_events_follow_the_client(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready, changed, error, stale and ready again; the client starts and ends with its provider."""
    setting = Setting("s", int, ["user"], 7, alias="old", version="1.1")
    client = ThreadHeksherClient(
        service.url, 60, ["environment", "user", "theme"], max_backoff=60, jitter=0, stale_after=1e8
    )
    client.set_defaults(user="jim")
    service.declare("old", "int", 7, ["user"])
    told: SimpleQueue[tuple[ProviderEvent, EventDetails]] = SimpleQueue()
    provider = HeksherProvider(client)
    for event in ProviderEvent:
        api.add_handler(event, lambda details, event=event: told.put((event, details)))  # type: ignore[misc]

    def heard(wanted: ProviderEvent) -> EventDetails:
        while True:
            event, details = told.get(timeout=PATIENCE)
            if event is wanted:
                return details

    try:
        api.set_provider_and_wait(provider)
        flags = api.get_client()
        heard(ProviderEvent.PROVIDER_READY)
        assert flags.get_integer_value("s", 0) == 7
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert heard(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED).flags_changed == ["s", "old"]
        assert flags.get_integer_details("s", 0).variant == "1"
        service.answering(QUERY, Answer(503))
        client.reload()
        assert "503" in str(heard(ProviderEvent.PROVIDER_ERROR).message)
        assert flags.get_integer_value("s", 0) == 8
        object.__setattr__(client._session._options, "stale_after", 1e-9)
        assert flags.get_integer_details("s", 0).reason is Reason.TARGETING_MATCH  # it was looked at a moment ago
        monkeypatch.setattr("heksher_client.openfeature._BETWEEN_LOOKS", 0)
        assert flags.get_integer_details("s", 0).reason is Reason.STALE  # though no refresh has ended
        heard(ProviderEvent.PROVIDER_STALE)
        object.__setattr__(client._session._options, "stale_after", 1e8)
        service.renew()
        service.declare("old", "int", 7, ["user"])
        client.reload()
        heard(ProviderEvent.PROVIDER_READY)
        assert eventually(lambda: flags.get_provider_status() is ProviderStatus.READY)
        api.clear_providers()
        assert eventually(lambda: client.closed)
    finally:
        client.close()
    assert setting.name == "s"


@pytest.fixture
def failing(service: WatchedService) -> Iterator[ThreadHeksherClient]:
    """A client that has a value for `s`, and whose last refresh failed."""
    setting = Setting("s", int, ["user"], 7)
    with ThreadHeksherClient(service.url, 60, ["environment", "user", "theme"], max_backoff=60, jitter=0) as client:
        client.set_defaults(user="jim")
        service.answering(QUERY, Answer(503))
        refresh(client)
        assert client.status().state is State.FAILING
        yield client
    assert setting.name == "s"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ProviderEvent, str | None]]:
    """What providers tell OpenFeature of how they fare, and not what that tells by itself."""
    told: list[tuple[ProviderEvent, str | None]] = []
    emit = HeksherProvider.emit

    def note(provider: HeksherProvider, event: ProviderEvent, details: ProviderEventDetails) -> None:
        emit(provider, event, details)
        told.append((event, details.message))

    monkeypatch.setattr(HeksherProvider, "emit", note)
    return told


def refresh(client: ThreadHeksherClient, times: int = 1) -> None:
    """Wait for refreshes, and for those who hear of them."""
    heard: list[Refresh] = []
    note = client.on_refresh(lambda refresh: heard.append(refresh))
    for number in range(times):
        client.reload()
        assert eventually(lambda number=number: len(heard) > number)  # type: ignore[misc]
    client.off_refresh(note)


@pytest.mark.parametrize("look", ["evaluation", "refresh"])
def test_a_provider_whose_client_fails_from_the_start_soon_says_so(
    failing: ThreadHeksherClient, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """Though OpenFeature calls it ready, as its values can be used."""
    with provided(failing) as flags:
        assert flags.get_provider_status() is ProviderStatus.READY
        if look == "evaluation":
            monkeypatch.setattr("heksher_client.openfeature._BETWEEN_LOOKS", 0)
            assert flags.get_integer_details("s", 0).reason is Reason.DEFAULT
        else:
            refresh(failing)
        assert flags.get_provider_status() is ProviderStatus.ERROR


def test_a_provider_whose_client_is_stale_from_the_start_soon_says_so(
    failing: ThreadHeksherClient,
    service: WatchedService,
    monkeypatch: pytest.MonkeyPatch,
    told: list[tuple[ProviderEvent, str | None]],
) -> None:
    """And its values are called stale at once; nothing has failed since, so there are no words."""
    service.renew()
    refresh(failing)
    object.__setattr__(failing._session._options, "stale_after", 1e-9)
    with provided(failing) as flags:
        assert flags.get_integer_details("s", 0).reason is Reason.STALE
        monkeypatch.setattr("heksher_client.openfeature._BETWEEN_LOOKS", 0)
        flags.get_integer_value("s", 0)
        assert told == [(ProviderEvent.PROVIDER_STALE, None)]
        assert flags.get_provider_status() is ProviderStatus.STALE


def test_a_refresh_that_ends_before_openfeature_tells_of_an_error_is_told_again(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch, told: list[tuple[ProviderEvent, str | None]]
) -> None:
    """Else the provider would be in error for ever, while its client is fresh; after that, it is ready but once."""
    _setting = Setting("s", int, ["user"], 7)

    class Overtaken(HeksherProvider):
        def initialize(self, evaluation_context: EvaluationContext) -> None:
            try:
                super().initialize(evaluation_context)
            finally:
                service.renew()
                refresh(client)

    service.answering(QUERY, Answer(503))
    client = ThreadHeksherClient(service.url, 60, ["environment", "user", "theme"], max_backoff=60, jitter=0)
    with client:
        with pytest.raises(Exception, match="503"):
            api.set_provider_and_wait(Overtaken(client))
        assert api.get_client().get_provider_status() is ProviderStatus.ERROR
        told.clear()
        monkeypatch.setattr("heksher_client.openfeature._UNTIL_TOLD", 0)
        refresh(client, 3)
        assert api.get_client().get_provider_status() is ProviderStatus.READY
        assert told == [(ProviderEvent.PROVIDER_READY, None)]


def test_a_provider_that_is_ready_is_not_called_so_again(
    service: WatchedService, told: list[tuple[ProviderEvent, str | None]]
) -> None:
    """Neither by the first refresh nor by a later one."""
    with ThreadHeksherClient(service.url, 60, ["environment", "user", "theme"]) as client, provided(client):
        refresh(client, 2)
        assert told == []


def test_a_service_that_does_not_answer_is_an_error_until_it_does() -> None:
    """Flags have their defaults meanwhile."""
    setting = Setting("s", int, ["user"], 7)
    client = ThreadHeksherClient("http://127.0.0.1:9", 60, ["user"], start_timeout=1)
    provider = HeksherProvider(client)
    client.set_defaults(user="jim")
    try:
        with pytest.raises(Exception, match="no answer"):
            api.set_provider_and_wait(provider)
        assert api.get_client().get_provider_status() is ProviderStatus.ERROR
        assert api.get_client().get_integer_value("s", 0) == setting.default_value
        with pytest.raises(Exception, match="no answer"):
            provider.initialize(EvaluationContext())
        provider.shutdown()
        assert not client._session.refresh_listeners
    finally:
        client.close()


def test_an_asyncio_client_has_to_run_already() -> None:
    """Since nobody could wait for it."""
    client = AsyncHeksherClient("http://host", 60, ["user"])
    with pytest.raises(Exception, match="the client does not run: start it"):
        api.set_provider_and_wait(HeksherProvider(client))


def test_a_provider_whose_client_is_not_the_main_one_is_not_ready(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch, told: list[tuple[ProviderEvent, str | None]]
) -> None:
    """As values would be another client's; it is again when that has ended."""
    setting = Setting("s", int, ["user"], 7)
    context = EvaluationContext(None, {"user": "a"})
    client = ThreadHeksherClient(service.url, 60, ["environment", "user", "theme"])
    provider = HeksherProvider(client)
    with client:
        with SyncStubHeksherClient(), pytest.raises(Exception, match="another client is the main one"):
            api.set_provider_and_wait(provider)
        flags = api.get_client()
        assert eventually(lambda: flags.get_provider_status() is ProviderStatus.READY)
        monkeypatch.setattr("heksher_client.openfeature._BETWEEN_LOOKS", 0)
        with SyncStubHeksherClient() as stub:
            stub[setting].rules = 8
            details = flags.get_integer_details("s", 1, context)
            assert (details.value, details.error_code) == (1, "PROVIDER_NOT_READY")
            assert "another client is the main one" in str(details.error_message)
            assert told[-1][0] is ProviderEvent.PROVIDER_ERROR
            assert "another client is the main one" in str(told[-1][1])
        assert eventually(lambda: flags.get_provider_status() is ProviderStatus.READY)
        assert flags.get_integer_details("s", 0, context).variant == "default"


def test_a_stub_beside_the_main_client_is_not_ready_either() -> None:
    """Though nobody would start it."""
    another = pytest.raises(Exception, match="another client is the main one")
    with SyncStubHeksherClient() as stub, SyncStubHeksherClient(), another:
        api.set_provider_and_wait(HeksherProvider(stub))
    with pytest.raises(Exception, match="the client does not run"):
        api.set_provider_and_wait(HeksherProvider(SyncStubHeksherClient()))


def test_values_of_a_client_that_is_closed_are_stale(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch, told: list[tuple[ProviderEvent, str | None]]
) -> None:
    """And the provider says why."""
    setting = Setting("s", int, ["user"], 7)
    context = EvaluationContext(None, {"user": "a"})
    monkeypatch.setattr("heksher_client.openfeature._BETWEEN_LOOKS", 0)
    with ThreadHeksherClient(service.url, 60, ["environment", "user", "theme"]) as client, provided(client) as flags:
        assert flags.get_integer_details("s", 0, context).reason is Reason.DEFAULT
    details = flags.get_integer_details("s", 0, context)
    assert (details.value, details.reason) == (setting.default_value, Reason.STALE)
    assert told == [(ProviderEvent.PROVIDER_ERROR, "the client is closed")]


def test_a_client_that_a_provider_has_started_ends_with_the_last_that_uses_it(service: WatchedService) -> None:
    """Whichever that is; then it is refused in words. What the program has started is the program's to end."""
    client = ThreadHeksherClient(service.url, 60, ["environment", "user", "theme"])
    first, second = HeksherProvider(client), HeksherProvider(client)
    api.set_provider_and_wait(first)
    api.set_provider_and_wait(second, "of a domain")
    first.initialize(EvaluationContext())
    first.shutdown()
    first.shutdown()
    assert client.status().is_main
    second.shutdown()
    assert client.closed
    with ThreadHeksherClient(service.url, 60, ["environment", "user", "theme"]) as other:
        theirs = HeksherProvider(other)
        theirs.initialize(EvaluationContext())
        theirs.shutdown()
        assert other.status().is_main
    api.clear_providers()
    provider = HeksherProvider(client)
    with pytest.raises(Exception, match="the client is closed, with a former provider perhaps"):
        api.set_provider_and_wait(provider)


@pytest.mark.parametrize(
    ("arguments", "words"),
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
def test_impossible_arguments_of_a_provider_are_refused(arguments: dict[str, Any], words: str) -> None:
    """Where they are given, and not with the first flag."""
    with pytest.raises(TypeError, match=words):
        HeksherProvider(**{"client": SyncStubHeksherClient(), **arguments})


@pytest.mark.parametrize("options", [{"targeting_key": "usr"}, {"attributes": {"app.user": "usr"}}])
def test_context_features_that_the_client_does_not_have_are_refused(options: dict[str, Any]) -> None:
    """Of a client and of a stub, with those that there are."""
    client = ThreadHeksherClient("http://host", 60, ["user"])
    with SyncStubHeksherClient(context_features=["user"]) as stub:
        for one in (client, stub):
            with pytest.raises(Exception, match="the client has no context feature usr; it has: user"):
                api.set_provider_and_wait(HeksherProvider(one, **options))
    client.close()


def test_a_rule_without_an_id_has_no_variant() -> None:
    """As those of stubs have none, unless they are given one."""
    setting = Setting("s", int, ["user"], 7)
    with SyncStubHeksherClient() as stub, provided(stub) as client:
        stub[setting].rules = 8
        assert client.get_integer_details("s", 0, EvaluationContext(None, {"user": "a"})).variant is None


def test_a_setting_type_of_the_programs_own_is_a_flag_by_its_json() -> None:
    """Whatever its values are in Python."""

    class Seconds(SettingType[complex]):
        def heksher_string(self) -> str:
            return "float"

        def convert_from_heksher(self, x: object) -> Any:
            conversion = setting_type(float).convert_from_heksher(x)
            return type(conversion)(complex(conversion.value))

        def convert_to_heksher(self, x: complex) -> object:
            return x.real

    setting = Setting("wait", Seconds(), ["user"], complex(2.5))
    with SyncStubHeksherClient() as stub, provided(stub) as client:
        stub.set_defaults(user="jim")
        assert client.get_float_value("wait", 0.0) == 2.5
    assert setting.default_value == complex(2.5)
