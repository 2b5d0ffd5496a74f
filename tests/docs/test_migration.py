"""The guide for migrating from `heksher` 0.2.2: a test for each difference that it describes."""

import copy
import importlib
import json
import logging
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, IntFlag
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

import heksher_client
from heksher_client import (
    TRACK_ALL,
    AsyncHeksherClient,
    ClientNotRunningError,
    Conversion,
    HeksherError,
    MissingContextError,
    NoMatchError,
    Reason,
    Rule,
    Setting,
    SettingData,
    SettingType,
    ThreadHeksherClient,
    UnknownContextError,
    setting_type,
)
from heksher_client.testing import Rule as StubRule
from heksher_client.testing import SyncStubHeksherClient
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, Kind, Subject, eventually, running
from tests.support.service import QUERY, CannedResponse, WatchedService

GUIDE = (Path(__file__).parents[2] / "docs" / "how-to" / "migrate-from-heksher.md").read_text()
TESTED: set[str] = set()
TestT = TypeVar("TestT", bound=Callable[..., None])


def difference(heading: str) -> Callable[[TestT], TestT]:
    """Record that a test covers a difference, by its words in the guide."""
    TESTED.add(heading)
    return lambda test: test


def described() -> set[str]:
    """Return the differences in the guide: its bold text, the rows of its tables, its bullets and its last headings."""
    values = GUIDE.partition("## Different values")[2].partition("## Different errors")[0]
    errors = GUIDE.partition("## Different errors")[2].partition("## New features")[0]
    possible = GUIDE.partition("## New features")[2].partition("## Removed names")[0]
    gone = GUIDE.partition("## Removed names")[2].partition("## Hooks")[0]
    later = GUIDE[GUIDE.index("## Hooks") :]
    found = set(re.findall(r"^\*\*(.+?)\.?\*\*", values, re.MULTILINE))
    found |= {row for row in re.findall(r"^\| (.+?) \|", errors, re.MULTILINE) if row not in ("what", "---")}
    found |= {row for row in re.findall(r"^\| (.+?) \|", gone, re.MULTILINE) if row not in ("`heksher`", "---")}
    found |= set(re.findall(r"^(`\w+\(\)`) of ", gone, re.MULTILINE))
    found |= {
        line.split(". ")[0].split(": ")[0].rstrip(".") for line in re.findall(r"^- (.+)$", possible, re.MULTILINE)
    }
    return found | set(re.findall(r"^## (.+)$", later, re.MULTILINE)) | {"imports"}


def test_each_difference_in_the_guide_has_a_test() -> None:
    """Each test covers a difference that is in the guide."""
    assert described() - TESTED == set()
    assert TESTED - described() == set()


@difference("imports")
def test_each_name_is_where_the_guide_says() -> None:
    """The right column of the table is correct."""
    rows = re.findall(r"^\| `from heksher\S* import (.+?)` \| `from (\S+) import (.+?)` \|$", GUIDE, re.MULTILINE)
    assert len(rows) == 5
    for older, module, names in rows:
        for name in (older if names == "..." else names).split(", "):
            assert hasattr(importlib.import_module(module), name), name


@difference("The priority of rules")
def test_the_later_feature_decides_between_rules(kind: Kind, service: WatchedService) -> None:
    setting = Setting("s", int, list(FEATURES), 0)
    with running(kind, service.url) as client:
        service.add_rule("s", 1, environment="prod", theme="dark")
        service.add_rule("s", 2, user="jim", theme="dark")
        client.reload()
        assert setting.get(environment="prod", user="jim", theme="dark") == 2


@difference("The order of context features")
def test_the_order_of_features_is_that_of_the_service(kind: Kind, service: WatchedService) -> None:
    setting = Setting("s", int, ["theme", "user"], 0)
    client = Subject(kind, service.url, 60, tuple(reversed(FEATURES)))
    client.start()
    try:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, theme="dark")
        client.reload()
        assert setting.get(user="jim", theme="dark") == 2
    finally:
        client.close()


@difference("Numbers")
def test_numbers_have_the_declared_type(kind: Kind, service: WatchedService) -> None:
    integer, number = Setting("integer", int, ["user"], 0), Setting("number", float, ["user"], 0.0)
    with running(kind, service.url) as client:
        service.add_rule("integer", 5.0, user="a")
        service.add_rule("number", 5, user="a")
        client.reload()
        values = integer.get(user="a"), number.get(user="a")
        assert [(value, type(value)) for value in values] == [(5, int), (5.0, float)]
    with pytest.raises(TypeError):
        integer.type.convert_from_heksher(True)


@difference("Strings for sequences")
def test_a_string_is_not_a_sequence() -> None:
    with pytest.raises(TypeError):
        Setting("s", Sequence[str], ["user"], ()).type.convert_from_heksher("abc")


@difference("Defaults")
def test_defaults_are_immutable() -> None:
    setting = Setting("s", Sequence[str], ["user"], ["a"])
    assert setting.get(user="jim") == ("a",)


@difference("Mappings")
def test_mappings_are_immutable_dicts() -> None:
    setting = Setting("s", Mapping[str, int], ["user"], {"a": 1})
    value: Any = setting.get(user="jim")
    assert json.dumps(value) == '{"a": 1}'
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value  # noqa: S301 - it is pickled here
    with pytest.raises(TypeError):
        value["a"] = 2


@difference("Tracking")
def test_without_tracking_all_rules_are_used(kind: Kind, service: WatchedService) -> None:
    setting = Setting("s", int, ["user"], 0)
    with running(kind, service.url) as client:
        service.add_rule("s", 1, user="jim")
        client.reload()
        assert setting.get(user="jim") == 1


class Letters(IntFlag):
    NONE = 0
    A = 1
    B = 2
    AB = 3
    FIRST = 1


@difference("Flags")
def test_only_single_flags_are_declared() -> None:
    assert Setting("s", Letters, ["user"], Letters.A).type.heksher_string() == 'Flags["A","B"]'


@difference("Flags with an invalid element")
@pytest.mark.parametrize("raw", [["A", 5, "B"], [5, "A", "B"], ["A", "B", 5]])
def test_an_invalid_flag_is_dropped_at_any_position(raw: list[Any]) -> None:
    conversion = Setting("s", Letters, ["user"], Letters.A).type.convert_from_heksher(raw)
    assert (conversion.value, conversion.coercions) == (Letters.AB, ("unknown flag 5 dropped",))
    with pytest.raises(TypeError):
        Setting("s", Letters, ["user"], Letters.A).type.convert_from_heksher("AB")


@difference("Coercions")
@pytest.mark.parametrize(
    ("python_type", "raw", "text"),
    [
        (Letters, ["A", "Z"], "unknown flag 'Z' dropped"),
        (Sequence[int], [1, "x"], "element 1 dropped: ..."),
        (Mapping[str, int], {"a": "x"}, "key 'a' dropped: ..."),
    ],
)
def test_coercions_are_a_tuple_with_the_texts_of_the_guide(python_type: Any, raw: Any, text: str) -> None:
    coercions = setting_type(python_type).convert_from_heksher(raw).coercions
    assert text in " ".join(GUIDE.split())
    assert type(coercions) is tuple
    assert coercions[0].startswith(text.removesuffix("..."))


@difference("a context feature without a value in `get`")
def test_a_missing_context_value_is_an_error_with_and_without_rules() -> None:
    setting = Setting("s", int, ["user"], 0)
    with SyncStubHeksherClient() as stub:
        for rules in ([], [StubRule({"user": "jim"}, 1)]):
            stub[setting].rules = rules
            with pytest.raises(MissingContextError) as caught:
                setting.get()
            assert isinstance(caught.value, RuntimeError)


@difference("a context value in `get` that is not a string")
def test_a_context_value_that_is_not_a_string_is_an_error() -> None:
    setting = Setting("s", int, ["user"], 0)
    assert setting.get(user=5) == 0  # type: ignore[arg-type]
    with SyncStubHeksherClient():
        with pytest.raises(TypeError):
            setting.get(user=5)  # type: ignore[arg-type]
        with pytest.raises(MissingContextError):
            setting.get(user=None)  # type: ignore[arg-type]


@difference("an unknown context feature in `get`")
def test_an_unknown_feature_is_an_error() -> None:
    with pytest.raises(UnknownContextError) as caught:
        Setting("s", int, ["user"], 0).get(planet="mars")
    assert isinstance(caught.value, ValueError)


@difference("an unknown context feature in `set_defaults`, `track_contexts`")
@pytest.mark.parametrize("method", ["set_defaults", "track_contexts"])
def test_an_unknown_feature_is_an_error_in_a_client_too(kind: Kind, method: str) -> None:
    with pytest.raises(UnknownContextError):
        getattr(kind.make("http://host", 60, FEATURES), method)(planet="mars")


@difference('a value that the service does not allow in rules (`"has-dash"`), in `track_contexts`')
def test_a_value_that_cannot_be_in_a_filter_is_tracked_in_the_client(kind: Kind) -> None:
    client = kind.make("http://host", 60, FEATURES)
    client.track_contexts(user="has-dash")
    with pytest.raises(ValueError, match="without control characters"):
        client.track_contexts(user="a\n")


@difference("a default of the wrong type, a name or a version that the service refuses")
@pytest.mark.parametrize(
    ("changes", "error"),
    [({"default_value": "x"}, TypeError), ({"name": "a b"}, ValueError), ({"version": "1"}, ValueError)],
)
def test_an_invalid_declaration_is_an_error_in_the_constructor(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Setting(**{"name": "s", "type": int, "configurable_features": ["user"], "default_value": 0, **changes})


class Both(Enum):
    ONE = 1
    TRUE = True


@difference("an `Enum` that holds both `1` and `True`")
def test_an_enum_with_equal_values_is_refused() -> None:
    with pytest.raises(TypeError, match="are equal"):
        Setting("s", Both, ["user"], Both.ONE)


@difference("something that is not a setting type")
def test_an_unsupported_type_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="not a setting type"):
        Setting("s", dict, ["user"], {})  # type: ignore[call-overload]


@difference('context features as one string (`"user"`), of a client or a setting')
def test_features_as_one_string_are_a_type_error(kind: Kind) -> None:
    with pytest.raises(TypeError, match="not one string"):
        kind.make("http://host", 60, "user")
    with pytest.raises(TypeError, match="not one string"):
        Setting("s", int, "user", 0)


@difference("a `service_url` that is not an absolute `http://` or `https://` URL")
@pytest.mark.parametrize("url", ["localhost:8300", "ftp://host", "", "//host"])
def test_the_url_is_checked_by_the_constructor(kind: Kind, url: str) -> None:
    with pytest.raises(ValueError, match=r"service_url: .* (must start with|has no host name)"):
        kind.make(url, 60, FEATURES)


@difference("a validator, a hook, a callback or `on_coerce` that is a coroutine function, or cannot be called")
@pytest.mark.parametrize("pass_", [Setting.add_validator, Setting.on_change, vars(Setting)["on_coerce"].fset])
def test_a_function_of_the_program_is_checked(pass_: Any) -> None:
    async def function(*_: Any) -> None: ...

    for invalid in (function, 5):
        with pytest.raises(TypeError, match="must be a"):
            pass_(Setting("s", int, ["user"], 0), invalid)


@difference("copying or pickling a `Setting`")
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_setting_cannot_be_copied(duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="import it from the module"):
        duplicate(Setting("s", int, ["user"], 0))


@difference("a failed declaration at the start of the async client")
def test_a_failed_declaration_is_raised_at_the_start(kind: Kind, service: WatchedService) -> None:
    _setting = Setting("s", int, ["nowhere"], 0)
    client = Subject(kind, service.url, 60, FEATURES)
    if kind.raises_at_start:
        with pytest.raises(HeksherError):
            client.start()
        assert client.client.closed
    else:
        client.start()
        client.close()


@difference("a failed `ping`")
def test_a_failed_ping_raises_an_error_of_both_libraries(kind: Kind) -> None:
    client = Subject(kind, "http://127.0.0.1:9", 60, FEATURES)
    with pytest.raises(httpx.HTTPError) as caught:
        client.ping()
    assert isinstance(caught.value, HeksherError)
    client.close()


@difference("a failed `get_settings`")
def test_a_failed_get_settings_is_an_error_of_this_package(kind: Kind) -> None:
    client = Subject(kind, "http://127.0.0.1:9", 60, FEATURES)
    with pytest.raises(HeksherError) as caught:
        client.get_settings()
    assert not isinstance(caught.value, httpx.HTTPError)
    assert isinstance(caught.value.__cause__, httpx.HTTPError)
    client.close()


@difference("`reload` before the start or after the end")
def test_reload_without_a_running_client_is_an_error(kind: Kind) -> None:
    client = Subject(kind, "http://host", 60, FEATURES)
    with pytest.raises(ClientNotRunningError):
        client.reload()
    client.close()
    with pytest.raises(RuntimeError):
        client.reload()


@difference("`set_defaults` may be called again for the same feature")
def test_a_later_default_replaces_an_earlier_one() -> None:
    setting = Setting("s", int, ["user"], 0)
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [StubRule({"user": "ann"}, 1)]
        stub.set_defaults(user="jim")
        stub.set_defaults(user="ann")
        assert setting.get() == 1


@difference("`track_contexts` may be called again for the same feature, and with `TRACK_ALL` after single values")
def test_tracked_values_accumulate(kind: Kind, service: WatchedService) -> None:
    setting = Setting("s", int, ["user"], 0)
    with running(kind, service.url) as client:
        for number, user in enumerate(("a", "b", "c"), 1):
            service.add_rule("s", number, user=user)
        client.client.track_contexts(user="a")
        client.client.track_contexts(user=["b"])
        client.reload()
        assert [setting.get(user=user) for user in "abc"] == [1, 2, 0]
        client.client.track_contexts(user=TRACK_ALL)
        client.reload()
        assert [setting.get(user=user) for user in "abc"] == [1, 2, 3]


@difference("A second client may be set as main while the first one runs")
def test_a_second_client_is_the_main_one_until_it_closes(kind: Kind, service: WatchedService) -> None:
    setting = Setting("s", int, ["user"], 0)
    with running(kind, service.url) as first:
        with running(kind, service.url) as second:
            assert second.client.status().is_main
            with pytest.raises(ClientNotRunningError):
                first.reload()
        service.add_rule("s", 1, user="jim")
        first.reload()
        assert setting.get(user="jim") == 1


@difference("After a failed start, a closed client or a stub, the next client updates the settings")
def test_settings_belong_to_the_next_client(kind: Kind, service: WatchedService) -> None:
    setting = Setting("s", int, ["user"], 0)
    failing = Subject(kind, "http://127.0.0.1:9", 60, FEATURES)
    try:
        failing.start()
    except HeksherError:
        assert kind.raises_at_start
    failing.close()
    with SyncStubHeksherClient():
        assert setting.get(user="jim") == 0
    with running(kind, service.url) as client:
        service.add_rule("s", 1, user="jim")
        client.reload()
        assert setting.get(user="jim") == 1


@difference("Several settings with the same name, or with an old and a new name, all receive the rules")
def test_settings_with_the_same_name_have_the_same_rules(kind: Kind, service: WatchedService) -> None:
    settings = [Setting("s", int, ["user"], 0), Setting("s", int, ["user"], 0)]
    with running(kind, service.url) as client:
        service.add_rule("s", 1, user="jim")
        client.reload()
        assert [setting.get(user="jim") for setting in settings] == [1, 1]


@difference("`client.add_settings(...)`")
@difference("`declaration_loop_interval` of the thread client")
def test_a_setting_created_later_is_declared_immediately(kind: Kind, service: WatchedService) -> None:
    """It is declared long before the next interval, without a call."""
    with running(kind, service.url) as client:
        assert not hasattr(client.client, "add_settings")
        assert not hasattr(client.client, "declaration_loop_interval")
        _setting = Setting("later", int, ["user"], 0)
        assert eventually(lambda: "later" in client.get_settings())


@difference("`client.context_namespace(...)`")
def test_an_explanation_has_the_complete_context() -> None:
    setting = Setting("s", int, ["environment", "user"], 0)
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(environment="prod")
        assert not hasattr(stub, "context_namespace")
        assert setting.explain(user="jim").context == {"environment": "prod", "user": "jim"}


@difference("`Setting.convert_server_value(...)`")
def test_a_type_converts_without_validators() -> None:
    setting = Setting("s", int, ["user"], 0)
    setting.add_validator(lambda value, *_: value + 1)
    assert not hasattr(setting, "convert_server_value")
    assert setting.type.convert_from_heksher(5.0).value == 5


@difference("`Setting.update(...)`")
def test_a_stub_assigns_the_rules_of_a_setting() -> None:
    setting = Setting("s", int, ["user"], 0)
    assert not hasattr(setting, "update")
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [StubRule({"user": "jim"}, 1)]
        assert setting.get(user="jim") == 1


@difference("`Setting.last_ruleset`")
@difference("`Setting.server_default_value`")
def test_explain_and_status_report_rules_and_the_server_default(kind: Kind, service: WatchedService) -> None:
    service.declare("s", "int", 0, ["user"])
    service.declare("s", "int", 7, ["user"], version="1.1")
    service.add_rule("s", 1, user="jim")
    setting = Setting("s", int, ["user"], 0)
    assert not hasattr(setting, "last_ruleset")
    assert not hasattr(setting, "server_default_value")
    with running(kind, service.url) as client:
        assert client.client.status().settings["s"].rules == 1
        assert setting.explain(user="jim").rule is not None
        explained = setting.explain(user="ann")
        assert (explained.value, explained.reason) == (7, Reason.SERVER_DEFAULT)


@difference("`Setting.to_v1_declaration_body()`")
def test_the_parts_of_a_declaration_are_attributes() -> None:
    setting = Setting("s", int, ["user"], 7, {"owner": "jane"}, alias="old", version="1.2")
    assert not hasattr(setting, "to_v1_declaration_body")
    parts = (setting.name, setting.type.heksher_string(), setting.configurable_features, setting.default_value)
    assert parts == ("s", "int", ("user",), 7)
    assert (setting.metadata, setting.alias, setting.version) == ({"owner": "jane"}, "old", "1.2")


@difference("`convert_from_heksher(x=...)` and `convert_to_heksher(x=...)` of a type")
def test_conversions_have_a_positional_argument() -> None:
    type_: Any = Setting("s", int, ["user"], 7).type
    assert (type_.convert_to_heksher(5), type_.convert_from_heksher(5).value) == (5, 5)
    for convert in (type_.convert_to_heksher, type_.convert_from_heksher):
        with pytest.raises(TypeError, match="positional"):
            convert(x=5)


@difference("`Setting.version_str`, and `version` as a pair of numbers")
def test_a_version_is_a_string() -> None:
    setting = Setting("s", int, ["user"], 0, version="1.2")
    assert setting.version == "1.2"
    assert not hasattr(setting, "version_str")


@difference("`NoMatchError` from `get`")
def test_a_setting_without_a_rule_has_its_default() -> None:
    setting = Setting("s", int, ["user"], 7)
    assert issubclass(NoMatchError, HeksherError)
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [StubRule({"user": "jim"}, 1)]
        assert setting.get(user="ann") == 7


class Percent(SettingType[int]):
    """A custom setting type."""

    def heksher_string(self) -> str:
        return "int"

    def convert_from_heksher(self, x: object) -> Conversion[int]:
        if not isinstance(x, int):
            raise TypeError(f"{x!r} is not a percentage")
        return Conversion(min(x, 100), ("more than 100",) if x > 100 else ())

    def convert_to_heksher(self, x: int) -> object:
        return x


@difference("types of your own as `SimpleSettingType`")
def test_a_custom_type_has_three_methods(kind: Kind, service: WatchedService) -> None:
    assert not hasattr(heksher_client, "SimpleSettingType")
    setting = Setting("s", Percent(), ["user"], 0)
    with running(kind, service.url) as client:
        service.add_rule("s", 300, user="jim")
        client.reload()
        assert setting.get(user="jim") == 100


@difference("`get_settings()`")
def test_get_settings_returns_all_data_of_all_settings(kind: Kind, service: WatchedService) -> None:
    service.declare("s", "int", 7, ["user"], metadata={"owner": "jane"})
    with running(kind, service.url) as client:
        settings = client.get_settings()
    assert settings == {"s": SettingData("s", ["user"], "int", 7, {"owner": "jane"}, [], "1.0")}


@difference("Hooks")
def test_one_hook_is_called_after_each_refresh(kind: Kind, service: WatchedService) -> None:
    _setting = Setting("s", int, ["user"], 0)
    with running(kind, service.url) as client:
        while not client.client.outcomes.empty():
            client.client.outcomes.get()
        client.reload()
        assert client.client.outcomes.get(timeout=TIMEOUT_SECONDS) is None
        service.respond_with(QUERY, CannedResponse(503))
        client.state_after_reload()
        assert isinstance(client.client.outcomes.get(timeout=TIMEOUT_SECONDS), HeksherError)


@difference("Validators and `on_coerce`")
def test_a_validator_that_raises_rejects_one_value(kind: Kind, service: WatchedService) -> None:
    setting = Setting("s", int, ["user"], 0)

    @setting.add_validator
    def small(value: int, rule: Rule[int] | None, setting: Setting[int]) -> int:
        if rule is not None and rule.match_conditions["user"] == "jim":
            raise KeyError(rule.rule_id)
        return value

    with running(kind, service.url) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, user="ann")
        client.reload()
        assert [setting.get(user=user) for user in ("jim", "ann")] == [0, 2]


@difference("Stub clients")
def test_stubs_record_calls_check_values_and_restore_settings() -> None:
    setting = Setting("s", int, ["user"], 0)
    with SyncStubHeksherClient() as stub:
        stub.reload()
        assert [call.method for call in stub.calls] == ["set_as_main", "reload"]
        stub[setting].rules = 5
        with pytest.raises(TypeError):
            stub[setting].rules = "many"  # type: ignore[assignment]
        with pytest.raises(TypeError):
            stub[setting].rules = [StubRule({"user": 5}, 1)]  # type: ignore[dict-item]
        with pytest.raises(ValueError, match="without control characters"):
            stub[setting].rules = [StubRule({"user": "a\n"}, 1)]
        assert StubRule({"user": None}, 1) == StubRule({}, 1)  # type: ignore[dict-item]
        with pytest.warns(DeprecationWarning, match="assign stub"), stub.patch(setting, 6):
            assert setting.get(user="jim") == 6
        assert setting.get(user="jim") == 5
    assert setting.get(user="jim") == 0


@difference("Logs")
def test_reads_log_nothing(kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "heksher_client")
    setting = Setting("s", int, ["user"], 0)
    with running(kind, service.url):
        caplog.clear()
        for user in ("jim", "ann"):
            setting.get(user=user)
        assert [record for record in caplog.records if record.name.startswith("heksher")] == []


def test_clients_accept_the_arguments_of_the_older_clients() -> None:
    """Positional and keyword arguments are the same."""
    for client in (AsyncHeksherClient, ThreadHeksherClient):
        instance: Any = client("http://host", 60, ["user"], http_client_args={"timeout": 3})
        assert not instance.closed
