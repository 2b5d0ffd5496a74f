"""Fixtures and marks for tests of programs that read settings.

pytest loads the plugin if this package is installed. It does nothing until a test uses a fixture or a mark:

    @pytest.mark.settings(cache_size=5)
    @pytest.mark.settings_context(user="jim")
    def test_a_small_cache() -> None: ...

    def test_rules(heksher: SyncStubHeksherClient) -> None:
        heksher[cache_size].rules = [Rule({"user": "jim"}, 200), Rule({}, 50)]

    def test_with_a_service(heksher_service: HeksherService) -> None:
        with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features) as client:
            heksher_service.add_rule(cache_size, 5, user="jim")
            client.reload()

A mark assigns a value, or a list of `heksher_client.testing.Rule`, to each setting. For names with dots, or the
settings themselves, use a dict: `@pytest.mark.settings({"shop.color": "blue"})`. The marks of a function are added to
those of its class and module, and override them.

The options in pytest's configuration:

- `heksher_strict = true` fails each test that reads a setting that it did not stub. The option `--heksher-strict` does
  the same for one run, `@pytest.mark.strict_settings` for one test. `@pytest.mark.strict_settings(False)` excludes a
  test.
- `heksher_context_features` lists the context features in their order. Without it, stubs accept any feature, and
  services have the features of all declared settings.
"""

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import pytest

if TYPE_CHECKING:
    from heksher_client import Setting
    from heksher_client.admin import AdminClient
    from heksher_client.testing import AsyncStubHeksherClient, SyncStubHeksherClient

    Stub = SyncStubHeksherClient | AsyncStubHeksherClient

# Imports of the package are inside functions: a run of pytest that does not use the plugin must not pay for them.

T = TypeVar("T")

_MARKS: Final = {
    "settings": "settings(**values): stub settings with values or lists of rules, by name",
    "settings_context": "settings_context(**values): default values of context features",
    "strict_settings": "strict_settings(is_strict=True): fail if the test reads a setting that it did not stub",
}
_UNSTUBBED: Final = pytest.StashKey[list[str]]()
"""The names of the settings that a strict test read without stubbing them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    description = "fail tests that read settings that they did not stub"
    parser.getgroup("heksher").addoption("--heksher-strict", action="store_true", help=description)
    parser.addini("heksher_strict", description, type="bool", default=False)
    parser.addini("heksher_context_features", "the context features, in their order", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    for description in _MARKS.values():
        config.addinivalue_line("markers", description)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the fixture `heksher` to the tests that have a mark, including marks that a `conftest.py` adds."""
    for item in items:
        _add_stub_fixture(item)


def _add_stub_fixture(item: pytest.Item) -> None:
    """Add the fixture `heksher` to a test that needs a stub and does not request one.

    The stub is created after the fixtures of wider scopes, which may start a client, and before those of the test.
    """
    fixtures: list[str] | None = getattr(item, "fixturenames", None)
    if fixtures is None or not {"async_heksher", "heksher"}.isdisjoint(fixtures):
        return
    # A test that uses a service reads from a client, to which strictness does not apply.
    is_strict = _is_strict(item) and "heksher_service" not in fixtures
    if is_strict or any(item.get_closest_marker(name) for name in _MARKS if name != "strict_settings"):
        definitions: dict[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
        wider = [name for name in fixtures if name in definitions and definitions[name][-1].scope != "function"]
        position = max((fixtures.index(name) + 1 for name in wider), default=0)
        # A new list: pytest shares one between all parameters of a test.
        vars(item)["fixturenames"] = [*fixtures[:position], "heksher", *fixtures[position:]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Clear the record of a former run of the test: some plugins run a test again."""
    item.stash[_UNSTUBBED] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that read a setting without stubbing it, even if the program caught the error."""
    with _failing_if_unstubbed(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Do the same for reads during teardown."""
    item.stash[_UNSTUBBED] = []
    with _failing_if_unstubbed(item):
        yield


@contextmanager
def _failing_if_unstubbed(item: pytest.Item) -> Iterator[None]:
    """Fail a test for the reads inside the block. If it fails for another reason, add them as a note to that error."""
    try:
        yield
    except BaseException as error:
        if (message := _unstubbed_message(item)) and not isinstance(error, pytest.skip.Exception):
            error.add_note(message)
        raise
    if message := _unstubbed_message(item):
        pytest.fail(message, pytrace=False)


def _unstubbed_message(item: pytest.Item) -> str:
    names = item.stash[_UNSTUBBED]
    return f"the test read settings that it did not stub: {', '.join(sorted(set(names)))}" if names else ""


@pytest.fixture
def heksher(request: pytest.FixtureRequest) -> "Iterator[SyncStubHeksherClient]":
    """A stub that is the main client during the test, with the rules and the context from the marks."""
    from heksher_client.testing import SyncStubHeksherClient

    with _prepared(SyncStubHeksherClient(context_features=_context_features(request.config)), request.node) as stub:
        yield stub


@pytest.fixture
def async_heksher(request: pytest.FixtureRequest) -> "Iterator[AsyncStubHeksherClient]":
    """The same for programs that use `AsyncHeksherClient`."""
    from heksher_client.testing import AsyncStubHeksherClient

    with _prepared(AsyncStubHeksherClient(context_features=_context_features(request.config)), request.node) as stub:
        yield stub


class HeksherService:
    """A local service that runs during the test, with methods to edit its rules."""

    def __init__(self, url: str, context_features: Sequence[str], admin: "AdminClient") -> None:
        """Created by the fixture `heksher_service`."""
        self.url = url
        self.context_features = tuple(context_features)
        """The context features of the service, in their order."""
        self._admin = admin
        self._settings: dict[int, Setting[Any]] = {}
        """By rule ID, the setting of each rule that was added with a setting instead of a name."""

    @overload
    def add_rule(self, setting: "Setting[T]", value: T, /, **conditions: str) -> int: ...
    @overload
    def add_rule(self, setting: str, value: Any, /, **conditions: str) -> int: ...
    def add_rule(self, setting: "Setting[Any] | str", value: Any, /, **conditions: str) -> int:
        """Add a rule to a setting that a client has declared, and return the rule's ID.

        Args:
            setting: The setting, or its name.
            value: A value of the setting's type, or a JSON value if `setting` is a name.
            **conditions: For at least one context feature, the exact value that the rule requires.

        Raises:
            UnexpectedResponseError: The service refuses the rule. Either no client has declared the setting, or the
                service does not have the setting's context features (`heksher_context_features`).
        """
        rule_id = self._admin.add_rule(setting, value, conditions)
        if not isinstance(setting, str):
            self._settings[rule_id] = setting
        return rule_id

    def set_rule(self, rule_id: int, value: Any, /) -> None:
        """Change the value of a rule: to a value of the setting's type, or to a JSON value if it was added by name."""
        self._admin.set_rule(rule_id, value, setting=self._settings.get(rule_id))

    def remove_rule(self, rule_id: int, /) -> None:
        """Remove a rule."""
        self._admin.remove_rule(rule_id)


@pytest.fixture
def heksher_service(request: pytest.FixtureRequest) -> Iterator[HeksherService]:
    """A real, empty service for one test. Requires the extra `service`."""
    try:
        from heksher_client.service import LocalService
    except ImportError as error:
        pytest.fail(f"the fixture heksher_service requires a local service: {error}", pytrace=False)
    from heksher_client.admin import AdminClient

    features = _context_features(request.config) or _features_of_settings()
    with LocalService(features) as service, AdminClient(service.url) as admin:
        yield HeksherService(service.url, features, admin)


def _context_features(config: pytest.Config) -> tuple[str, ...]:
    return tuple(config.getini("heksher_context_features"))


def _features_of_settings() -> tuple[str, ...]:
    from heksher_client._core.settings.registry import registry

    return tuple(dict.fromkeys(f for entry in registry.entries() for f in entry.declaration.configurable_features))


def _is_strict(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("strict_settings")
    if mark is None:
        return bool(item.config.getoption("heksher_strict") or item.config.getini("heksher_strict"))
    arguments = [*mark.args, *mark.kwargs.values()]
    is_valid = len(arguments) <= 1 and {*mark.kwargs} <= {"is_strict"}
    if not is_valid or not all(isinstance(argument, bool) for argument in arguments):
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.strict_settings takes True, False or no argument")
    return arguments == [] or arguments[0]


@contextmanager
def _prepared(stub: "Stub", item: pytest.Item) -> Iterator[Any]:
    """Make a stub the main client inside the block, with the rules and the context from a test's marks."""
    from heksher_client._core.settings.observers import ReadObserver
    from heksher_client._core.settings.registry import registry
    from heksher_client.testing import UnstubbedSettingError

    def refuse_unstubbed(setting: "Setting[Any]", given: Mapping[str, str]) -> None:
        is_active = registry.main is session  # False inside a client or another stub that the test has started
        if is_active and not stub[setting].is_assigned:
            item.stash[_UNSTUBBED].append(setting.name)
            raise UnstubbedSettingError(
                f"setting {setting.name} was read in the context {dict(given)}, but the test did not stub it: use "
                f"@pytest.mark.settings, or assign heksher[...].rules"
            )

    observer = ReadObserver(refuse_unstubbed, 1.0, float)
    with _active(stub):
        session = registry.main
        _apply_marks(stub, item)
        stub.calls.clear()
        is_strict = _is_strict(item)
        if is_strict:
            registry.add_observer(observer)
        try:
            yield stub
        finally:
            if is_strict:
                registry.remove_observer(observer)


def _apply_marks(stub: "Stub", item: pytest.Item) -> None:
    """Assign the rules and the context from a test's marks."""
    for mark in _marks(item):
        if mark.name == "settings_context":
            stub.set_defaults(**_values(mark))
        elif mark.name == "settings":
            for key, value in _values(mark).items():
                for setting in _find_settings(key):
                    stub[setting].rules = value


@contextmanager
def _active(stub: "Stub") -> Iterator[None]:
    """Make a stub the main client inside the block. An async stub needs no event loop, as its methods never suspend."""
    from heksher_client.testing import SyncStubHeksherClient

    if isinstance(stub, SyncStubHeksherClient):
        with stub:
            yield
        return
    _run(stub.set_as_main())
    try:
        yield
    finally:
        _run(stub.aclose())


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never suspends."""
    with suppress(StopIteration):
        coroutine.send(None)


def _marks(item: pytest.Item) -> Iterator[pytest.Mark]:
    """Yield the marks of a test in ascending priority: of its module, its class, itself and its parameters."""
    for node in item.listchain():
        yield from node.own_markers


def _values(mark: pytest.Mark) -> dict[Any, Any]:
    """Return the values of a mark by name, from its dict and its keywords."""
    if len(mark.args) > 1 or not all(isinstance(argument, Mapping) for argument in mark.args):
        pytest.fail(f"@pytest.mark.{mark.name} takes keywords, and at most one dict before them", pytrace=False)
    return {**dict(*mark.args), **mark.kwargs}


def _find_settings(key: Any) -> "list[Setting[Any]]":
    """Return the settings with a name, of which there may be several. A key that is a setting is returned itself."""
    from heksher_client import Setting
    from heksher_client._core.settings.registry import registry

    if isinstance(key, Setting):
        return [key]
    entries = registry.entries()
    settings = [entry.setting for entry in entries if entry.name == key]
    if not settings:
        names = sorted({entry.name for entry in entries})
        close = get_close_matches(str(key), names)
        hint = f"did you mean {' or '.join(close)}?" if close else f"declared settings: {', '.join(names) or 'none'}"
        pytest.fail(f"no setting {key!r} is declared when the test is collected; {hint}", pytrace=False)
    return settings
