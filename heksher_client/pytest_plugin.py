"""Fixtures and marks for tests of programs that read settings.

pytest finds them by itself where this package is installed, and nothing happens until a test uses one:

    @pytest.mark.settings(cache_size=5)
    @pytest.mark.settings_context(user="jim")
    def test_a_small_cache() -> None: ...

    def test_rules(heksher: SyncStubHeksherClient) -> None:
        heksher[cache_size].rules = [Rule({"user": "jim"}, 200), Rule({}, 50)]

    def test_with_a_service(heksher_service: HeksherService) -> None:
        with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features) as client:
            heksher_service.add_rule(cache_size, 5, user="jim")
            client.reload()

What a mark says of a setting is a value, or a list of `heksher_client.testing.Rule`. Names with dots, or the settings
themselves, go into a dict: `@pytest.mark.settings({"shop.color": "blue"})`. The marks of a function add to those of its
class and module, and win.

In the configuration of pytest: `heksher_strict = true` has each test fail that reads a setting which it did not stub
(`--heksher-strict` does the same once, `@pytest.mark.strict_settings` for one test, and `strict_settings(False)` leaves
one out). `heksher_context_features` names the context features in their order; without it, stubs take any, and services
have those of the settings that are declared.
"""

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import pytest

if TYPE_CHECKING:
    from heksher_client import Setting
    from heksher_client._drivers.admin import AdminClient
    from heksher_client.testing import AsyncStubHeksherClient, SyncStubHeksherClient

    Stub = SyncStubHeksherClient | AsyncStubHeksherClient

T = TypeVar("T")

_MARKS: Final = {
    "settings": "settings(**values): stub settings, by name, with values or lists of rules",
    "settings_context": "settings_context(**values): what reads take for the context features that they do not give",
    "strict_settings": "strict_settings(is_strict=True): fail if a setting is read that was not stubbed",
}
_UNSTUBBED: Final = pytest.StashKey[list[str]]()
"""The settings that a test has read though it did not stub them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    words = "have tests fail that read settings which they did not stub"
    parser.getgroup("heksher").addoption("--heksher-strict", action="store_true", help=words)
    parser.addini("heksher_strict", words, type="bool", default=False)
    parser.addini("heksher_context_features", "the context features, in their order", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Add the marks."""
    for words in _MARKS.values():
        config.addinivalue_line("markers", words)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests that are marked, by whatever there is in the program's `conftest.py` as well, use a stub."""
    for item in items:
        _have_use_a_stub(item)


def _have_use_a_stub(item: pytest.Item) -> None:
    """Have a test use a stub if it is marked, also if it does not ask for it.

    It is made after the fixtures of wider scopes, which may start a client of their own, and before those of the test.
    """
    fixtures: list[str] | None = getattr(item, "fixturenames", None)
    if fixtures is None or not {"async_heksher", "heksher"}.isdisjoint(fixtures):
        return
    # A test with a service is about a client, and strict tests are about stubs.
    is_strict = _is_strict(item) and "heksher_service" not in fixtures
    if is_strict or any(item.get_closest_marker(name) for name in _MARKS if name != "strict_settings"):
        info: dict[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
        wider = [name for name in fixtures if name in info and info[name][-1].scope != "function"]
        at = max((fixtures.index(name) + 1 for name in wider), default=0)
        # A list of its own: pytest has one for all parameters of a test.
        vars(item)["fixturenames"] = [*fixtures[:at], "heksher", *fixtures[at:]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget what was read when the test ran before: some plugins run it again."""
    item.stash[_UNSTUBBED] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Have a test fail that has read what it did not stub, and let nobody hear of it."""
    with _judged(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """The same for what it reads as it is torn down."""
    item.stash[_UNSTUBBED] = []
    with _judged(item):
        yield


@contextmanager
def _judged(item: pytest.Item) -> Iterator[None]:
    """Have a test fail for what it has read inside; one that fails for something else tells that as well."""
    try:
        yield
    except BaseException as error:
        if (words := _unstubbed(item)) and not isinstance(error, pytest.skip.Exception):
            error.add_note(words)
        raise
    if words := _unstubbed(item):
        pytest.fail(words, pytrace=False)


def _unstubbed(item: pytest.Item) -> str:
    names = item.stash[_UNSTUBBED]
    return f"settings were read that the test did not stub: {', '.join(sorted(set(names)))}" if names else ""


@pytest.fixture
def heksher(request: pytest.FixtureRequest) -> "Iterator[SyncStubHeksherClient]":
    """A stub that is the main client for as long as the test runs, with what the test's marks say."""
    from heksher_client.testing import SyncStubHeksherClient

    with _prepared(SyncStubHeksherClient(context_features=_context_features(request.config)), request.node) as stub:
        yield stub


@pytest.fixture
def async_heksher(request: pytest.FixtureRequest) -> "Iterator[AsyncStubHeksherClient]":
    """The same, for programs that use an asyncio client."""
    from heksher_client.testing import AsyncStubHeksherClient

    with _prepared(AsyncStubHeksherClient(context_features=_context_features(request.config)), request.node) as stub:
        yield stub


class HeksherService:
    """A local service that runs as long as the test, and an operator of it."""

    def __init__(self, url: str, context_features: Sequence[str], operator: "AdminClient") -> None:
        """Hold what the fixture has made."""
        self.url = url
        self.context_features = tuple(context_features)
        """Those of the service, in their order."""
        self._operator = operator
        self._settings: dict[int, Setting[Any]] = {}
        """The settings of rules that were added to one, by the rules' ids."""

    @overload
    def add_rule(self, setting: "Setting[T]", value: T, /, **conditions: str) -> int: ...
    @overload
    def add_rule(self, setting: str, value: Any, /, **conditions: str) -> int: ...
    def add_rule(self, setting: "Setting[Any] | str", value: Any, /, **conditions: str) -> int:
        """Add a rule to a setting that a client has declared; gives its id.

        Args:
            setting: The setting, or its name.
            value: Of the setting's type; a JSON value where only the name is given.
            **conditions: The exact value that the rule demands, by context feature: one at least.

        Raises:
            UnexpectedResponseError: The service refuses it: it does not know the setting, as no client has declared it
                yet, or was not made with the setting's context features (`heksher_context_features`).
        """
        if isinstance(setting, str):
            return self._operator.add_rule(setting, value, conditions)
        rule_id = self._operator.add_rule(setting.name, setting.type.convert_to_heksher(value), conditions)
        self._settings[rule_id] = setting
        return rule_id

    def set_rule(self, rule_id: int, value: Any, /) -> None:
        """Give a rule another value: of the setting's type, if the rule was added to a setting; else a JSON value."""
        setting = self._settings.get(rule_id)
        self._operator.set_rule(rule_id, value if setting is None else setting.type.convert_to_heksher(value))

    def remove_rule(self, rule_id: int, /) -> None:
        """Remove a rule."""
        self._operator.remove_rule(rule_id)


@pytest.fixture
def heksher_service(request: pytest.FixtureRequest) -> Iterator[HeksherService]:
    """A real service for one test, with nothing in it. Needs the extra `service`."""
    try:
        from heksher_client.service import LocalService
    except ImportError as error:
        pytest.fail(f"the fixture heksher_service needs a local service: {error}", pytrace=False)
    from heksher_client import ThreadHeksherClient
    from heksher_client._drivers.admin import AdminClient

    features = _context_features(request.config) or _features_of_settings()
    with LocalService(features) as service:
        operator = AdminClient(ThreadHeksherClient(service.url, 60, features))
        try:
            yield HeksherService(service.url, features, operator)
        finally:
            operator.close()


def _context_features(config: pytest.Config) -> tuple[str, ...]:
    return tuple(config.getini("heksher_context_features"))


def _features_of_settings() -> tuple[str, ...]:
    from heksher_client._core.settings.registry import registry

    return tuple(dict.fromkeys(f for entry in registry.entries() for f in entry.declaration.configurable_features))


def _is_strict(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("strict_settings")
    if mark is None:
        return bool(item.config.getoption("heksher_strict") or item.config.getini("heksher_strict"))
    given = [*mark.args, *mark.kwargs.values()]
    if len(given) > 1 or not {*mark.kwargs} <= {"is_strict"} or not all(isinstance(value, bool) for value in given):
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.strict_settings takes True or False, or nothing")
    return given == [] or given[0]


@contextmanager
def _activated(stub: "Stub") -> Iterator[None]:
    """Make a stub the main client inside the block, without an event loop even if its methods are coroutines."""
    from heksher_client.testing import SyncStubHeksherClient

    if isinstance(stub, SyncStubHeksherClient):
        with stub:
            yield
        return
    _complete(stub.set_as_main())
    try:
        yield
    finally:
        _complete(stub.aclose())


def _complete(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine of a stub, which never suspends, in one step."""
    with suppress(StopIteration):
        coroutine.send(None)


@contextmanager
def _prepared(stub: Any, item: pytest.Item) -> Iterator[Any]:
    """A stub that is the main client, with the rules and the context of the test's marks."""
    from heksher_client._core.settings.observers import ReadObserver
    from heksher_client._core.settings.registry import registry
    from heksher_client.testing import UnstubbedSettingError

    def refuse(setting: "Setting[Any]", given: Mapping[str, str]) -> None:
        is_in_place = registry.main is session  # and no client, or other stub, that the test has started inside
        if is_in_place and not stub[setting].is_assigned:
            item.stash[_UNSTUBBED].append(setting.name)
            raise UnstubbedSettingError(
                f"setting {setting.name} was read in the context {dict(given)}, and the test did not stub it: use "
                f"@pytest.mark.settings, or assign heksher[...].rules"
            )

    observation = ReadObserver(refuse, 1.0, float)
    with _activated(stub):
        session = registry.main
        for mark in _marks_of(item):
            if mark.name == "settings_context":
                stub.set_defaults(**_given(mark))
            elif mark.name == "settings":
                for setting, value in _given(mark).items():
                    for one in _settings_called(setting):
                        stub[one].rules = value
        stub.calls.clear()
        is_strict = _is_strict(item)
        if is_strict:
            registry.add_observer(observation)
        try:
            yield stub
        finally:
            if is_strict:
                registry.remove_observer(observation)


def _marks_of(item: pytest.Item) -> Iterator[pytest.Mark]:
    """The marks of a test, those that win at the end: its module's, its class's, its own, those of its parameters."""
    for node in item.listchain():
        yield from node.own_markers


def _given(mark: pytest.Mark) -> dict[Any, Any]:
    """What a mark gives by name: as keywords, or in one dict."""
    if len(mark.args) > 1 or not all(isinstance(argument, Mapping) for argument in mark.args):
        pytest.fail(f"@pytest.mark.{mark.name} takes keywords, and at most one dict before them", pytrace=False)
    return {**dict(*mark.args), **mark.kwargs}


def _settings_called(setting: Any) -> "list[Setting[Any]]":
    """The settings of a name; there may be several. A setting stands for itself."""
    from heksher_client import Setting
    from heksher_client._core.settings.registry import registry

    if isinstance(setting, Setting):
        return [setting]
    found = [entry.setting for entry in registry.entries() if entry.name == setting]
    if not found:
        names = sorted({entry.name for entry in registry.entries()})
        close = get_close_matches(str(setting), names)
        hint = f"is it {' or '.join(close)}?" if close else f"there are: {', '.join(names) or 'none'}"
        pytest.fail(f"no setting {setting!r} is declared where the test is collected; {hint}", pytrace=False)
    return found
