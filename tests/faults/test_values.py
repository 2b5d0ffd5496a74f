"""Values of settings where values go: copied, pickled, and written as JSON; and conditions of rules in stubs."""

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, IntFlag
from typing import Any

import msgspec
import orjson
import pytest

from heksher_client import (
    AsyncHeksherClient,
    Change,
    Changed,
    Reason,
    Setting,
    ThreadHeksherClient,
    UnknownContextError,
    pinned,
)
from heksher_client.admin import AdminClient, AsyncAdminClient
from heksher_client.credentials import ClientCredentials, RefreshableToken, StaticToken, TokenFrom
from heksher_client.openfeature import HeksherProvider
from heksher_client.profiles._connect import AsyncConnect
from heksher_client.service import LocalService
from heksher_client.telemetry import instrument
from heksher_client.testing import AsyncStubHeksherClient, Rule, SyncStubHeksherClient
from tests.support.clients import Kind, running
from tests.support.service import WatchedService


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Letters(IntFlag):
    A = 1
    B = 2


TYPES: dict[str, tuple[Any, Any]] = {
    "mapping": (Mapping[str, int], {"a": 1}),
    "nested mapping": (Mapping[str, Mapping[str, Sequence[int]]], {"a": {"b": (1, 2)}, "c": {}}),
    "sequence": (Sequence[int], (1, 2)),
    "sequence of mappings": (Sequence[Mapping[str, str]], ({"a": "b"}, {})),
    "enum": (Mapping[str, Color], {"a": Color.RED}),
    "flags": (Mapping[str, Letters], {"a": Letters.A | Letters.B}),
    "primitives": (Mapping[str, float], {"a": 1.5}),
}
"""A type, and a value of it."""

VALUES = pytest.mark.parametrize("name", TYPES)


def read(name: str) -> Any:
    type_, value = TYPES[name]
    return Setting("s", type_, ["user"], value).get(user="jim")


def unpickled(value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - it is pickled here


COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda value, protocol=protocol: unpickled(value, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
]


def types_in(value: Any) -> list[type]:
    """Return the types of a value and its elements."""
    inner: Any = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ()
    return [type(value), *(kind for element in inner for kind in types_in(element))]


@VALUES
@pytest.mark.parametrize("duplicate", COPIES)
def test_c22_a_copy_of_a_value_equals_it(name: str, duplicate: Callable[[Any], Any]) -> None:
    """It has the same types, and the same hash."""
    value = read(name)
    other = duplicate(value)
    assert (other, types_in(other), hash(other)) == (value, types_in(value), hash(value))
    assert value == TYPES[name][1]


@pytest.mark.parametrize("name", ["mapping", "nested mapping", "sequence", "sequence of mappings", "primitives"])
@pytest.mark.parametrize(
    "encode", [json.dumps, lambda v: json.dumps(v, indent=2, sort_keys=True), orjson.dumps, msgspec.json.encode]
)
def test_c22_json_libraries_accept_values(name: str, encode: Callable[[Any], str | bytes]) -> None:
    """Without a function for unknown types."""
    assert json.loads(encode(read(name))) == json.loads(json.dumps(TYPES[name][1]))


@VALUES
def test_c22_the_type_converts_each_value_to_json(name: str) -> None:
    """Enums become their values, and flags lists of names, as in the service."""
    setting = Setting("s", TYPES[name][0], ["user"], TYPES[name][1])
    wire = json.loads(json.dumps(setting.type.convert_to_heksher(setting.get(user="jim"))))
    assert setting.type.convert_from_heksher(wire).value == setting.get(user="jim")


def test_c22_a_value_has_its_types_in_another_process() -> None:
    """A task queue or a cache takes it there."""
    program = (
        "import sys, pickle; value = pickle.load(sys.stdin.buffer); "
        "print(type(value).__name__, type(value['a']).__name__, value)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(read("nested mapping")), capture_output=True, check=True
    )
    assert result.stdout.split(maxsplit=2) == [b"FrozenDict", b"FrozenDict", b"{'a': {'b': (1, 2)}, 'c': {}}\n"]


@pytest.mark.unmeasured
@pytest.mark.parametrize("duplicate", COPIES)
def test_c22_results_can_be_copied_and_pickled(kind: Kind, service: WatchedService, duplicate: Any) -> None:
    """Resolutions, rules, the status of a client, the settings of the service, and what a setting declares."""
    setting = Setting("s", Mapping[str, int], ["user"], {"a": 1}, metadata={"owner": "jane"})
    with running(kind, service.url) as client:
        rule_id = service.add_rule("s", {"a": 2}, user="jim")
        client.reload()
        resolution = setting.explain(user="jim")
        status, settings = client.client.status(), client.get_settings()
    results = (resolution, resolution.rule, status, settings, setting.metadata, setting.type, setting.default_value)
    for each in results:
        assert duplicate(each) == each
    hash(resolution)
    assert orjson.loads(orjson.dumps(resolution)) == {
        "value": {"a": 2},
        "reason": "rule",
        "context": {"user": "jim"},
        "rule": {"match_conditions": {"user": "jim"}, "value": {"a": 2}, "rule_id": rule_id},
        "outranked": [],
    }
    assert dataclasses.asdict(resolution)["value"] == {"a": 2}
    dataclass_instances: list[Any] = [resolution, resolution.rule, status]
    for each in dataclass_instances:
        assert json.loads(json.dumps(dataclasses.asdict(each))) == orjson.loads(orjson.dumps(each))
    assert orjson.loads(orjson.dumps(settings))["s"]["metadata"] == {"owner": "jane"}


@pytest.mark.parametrize("duplicate", COPIES)
def test_c22_a_setting_cannot_be_copied(duplicate: Callable[[Any], Any]) -> None:
    """No client would update the copy. The error says what to do instead."""
    setting = Setting("cache_size", int, ["user"], 1)
    with pytest.raises(TypeError, match=r"setting cache_size cannot be copied or pickled, .*: import it"):
        duplicate(setting)


def test_c22_a_change_can_be_copied_but_not_pickled() -> None:
    """It refers to its setting."""
    setting = Setting("s", int, ["user"], 1)
    change = Change(setting, (Rule({"user": "jim"}, 2),), default=Changed(1, 2))
    assert copy.copy(change) == copy.deepcopy(change) == change
    assert copy.deepcopy([change])[0].setting is setting
    with pytest.raises(TypeError, match="setting s cannot be copied or pickled"):
        pickle.dumps(change)


def test_c22_reasons_are_texts() -> None:
    """They can be compared with text, formatted, and used as keys of JSON objects."""
    assert [f"{reason}" for reason in Reason] == ["rule", "server default", "declared default"]
    assert json.dumps({Reason.RULE: Reason.SERVER_DEFAULT}) == '{"rule": "server default"}'
    assert Reason("rule") is Reason.RULE


def resources() -> list[Any]:
    """Return an object of each public class that owns connections, threads, locks or callbacks."""
    setting = Setting("s", int, ["user"], 1)
    client = ThreadHeksherClient("http://host", 60, ["user"])
    stub = SyncStubHeksherClient()
    instrumentation = instrument(stub)
    instrumentation.end()
    endpoint: dict[str, Any] = {"token_url": "http://host/token", "client_id": "shop"}
    return [
        client,
        type("OwnClient", (ThreadHeksherClient,), {})("http://host", 60, ["user"]),
        AdminClient("http://host"),
        AsyncAdminClient("http://host"),
        AsyncHeksherClient("http://host", 60, ["user"]),
        AsyncConnect(AsyncHeksherClient("http://host", 60, ["user"])),
        stub,
        AsyncStubHeksherClient(),
        stub[setting],
        client.changes(),
        setting.watch(user="jim"),
        pinned(),
        StaticToken("token"),
        TokenFrom(lambda: "token"),
        RefreshableToken(None, "refresh", **endpoint),
        ClientCredentials(client_secret="secret", **endpoint),  # noqa: S106 - not a secret
        LocalService(),
        HeksherProvider(stub),
        instrumentation,
    ]


@pytest.mark.parametrize("duplicate", COPIES)
def test_c22_an_object_that_owns_something_cannot_be_copied(kind: Kind, duplicate: Callable[[Any], Any]) -> None:
    """A copy of a client would share its connections and threads, and closing the one would close the other."""
    running_client = kind.make("http://host", 60, ["user"])
    for each in (running_client, *resources()):
        for value in (each, [each], {"x": (each,)}):
            if isinstance(value, list | dict) and duplicate is copy.copy:
                continue
            with pytest.raises(TypeError, match=f"^{type(each).__name__} objects cannot be copied or pickled, as they"):
                duplicate(value)


def test_c22_settings_are_compared_by_identity() -> None:
    """Two settings of one name are two keys."""
    first, second = Setting("s", int, ["user"], 1), Setting("s", int, ["user"], 1)
    assert len({first, second}) == 2
    assert first != second


# -- conditions of rules -----------------------------------------------------------------------------------------------


class Name(str):
    __slots__ = ()


def test_t1_a_subclass_of_str_is_a_string() -> None:
    """A member of a `StrEnum`, for example."""
    setting = Setting("s", int, ["user"], 1)
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [Rule({"user": Name("jim")}, 2)]
        assert setting.get(user="jim") == 2


@pytest.mark.parametrize("value", ["", "a\tb", "x" * 256, "jim\n"])
def test_t1_a_stub_refuses_conditions_that_the_service_does_not_allow(value: str) -> None:
    """No rule of the service can have them, so the test would show what production never does."""
    setting = Setting("s", int, ["user"], 1)
    with SyncStubHeksherClient() as stub:
        with pytest.raises(
            ValueError, match="the value of context feature user must have 1 to 255 characters, without"
        ):
            stub[setting].rules = [Rule({"user": value}, 2)]
        with pytest.raises(UnknownContextError):
            stub[setting].rules = [Rule({"planet": "mars"}, 2)]
        assert setting.get(user=value) == 1
