"""The pytest plugin, in runs of pytest of their own, as the tests of a program use it."""

import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

# Modules that a run of pytest imports are forgotten at its end. Those of the package must not exist twice.
import heksher_client.admin
import heksher_client.service
import heksher_client.testing  # noqa: F401

MODULE = """
    import pytest
    from heksher_client import AsyncHeksherClient, Setting, ThreadHeksherClient
    from heksher_client.testing import Rule

    cache_size = Setting("cache_size", int, ["environment", "user"], 10)
    color = Setting("shop.color", str, ["user"], "red")
"""


Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run tests in this process, and return their outcomes and output.

    The plugins are ours and that of anyio only. In a separate process, pytest finds all plugins that are installed.
    """
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(tests: str, *arguments: str, ini: str = "", in_process: bool = True) -> pytest.RunResult:
        pytester.makeini(f"[pytest]\n{ini}")
        pytester.makepyfile(textwrap.dedent(MODULE) + textwrap.dedent(tests))
        if not in_process:
            return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        plugins = ["no:cacheprovider", "anyio.pytest_plugin", "heksher_client.pytest_plugin"]
        return pytester.runpytest_inprocess(*(f"-p{plugin}" for plugin in plugins), *arguments)

    return run


def test_marks_and_the_fixture_stub_settings_for_one_test(run: Run) -> None:
    """They assign values or rules. A mark of a function overrides one of its class. The test restores everything.

    pytest finds the plugin by the package's entry point, so this runs in a separate process.
    """
    run(
        """
        pytestmark = pytest.mark.settings({"shop.color": "blue"})

        @pytest.mark.settings(cache_size=5)
        @pytest.mark.settings_context(environment="prod", user="jim")
        class TestMarks:
            def test_a_value(self):
                assert (cache_size.get(), color.get()) == (5, "blue")

            @pytest.mark.settings(cache_size=[Rule({"user": "jim"}, 200), Rule({}, 50)])
            def test_rules(self):
                assert (cache_size.get(), cache_size.get(user="ann"), color.get()) == (200, 50, "blue")

            @pytest.mark.settings({cache_size: 7})
            def test_a_setting_itself(self, heksher):
                assert cache_size.get() == 7
                heksher[cache_size].rules = 8
                assert cache_size.get() == 8
                assert heksher.calls == []

        def test_nothing_is_left(heksher):
            assert cache_size.get(environment="prod", user="jim") == 10

        @pytest.fixture
        def fast():
            return cache_size.get()

        @pytest.mark.settings(cache_size=9)
        @pytest.mark.settings_context(environment="prod", user="jim")
        def test_a_fixture_sees_it_as_well(fast):
            assert fast == 9
        """,
        in_process=False,
    ).assert_outcomes(passed=5)


def test_the_nearest_mark_wins(run: Run) -> None:
    """A parameter, a subclass or a function has priority. The stub is created after the fixtures of wider scopes."""
    run(
        """
        from heksher_client.testing import SyncStubHeksherClient

        @pytest.fixture(scope="session", autouse=True)
        def session_stub():
            with SyncStubHeksherClient() as stub:
                stub[cache_size].rules = 99
                yield

        @pytest.mark.settings(cache_size=1)
        @pytest.mark.parametrize("wanted", [1, pytest.param(5, marks=pytest.mark.settings(cache_size=5))])
        def test_parameters(wanted):
            assert cache_size.get(environment="prod", user="jim") == wanted

        @pytest.mark.parametrize("wanted", [99, pytest.param(5, marks=pytest.mark.settings(cache_size=5)), 99])
        def test_parameters_with_and_without_a_mark(wanted):
            assert cache_size.get(environment="prod", user="jim") == wanted

        @pytest.mark.settings(cache_size=1)
        class TestBase:
            wanted = 1

            def test_classes(self):
                assert cache_size.get(environment="prod", user="jim") == self.wanted

        @pytest.mark.settings(cache_size=2)
        class TestDerived(TestBase):
            wanted = 2

        def test_without_marks():
            assert cache_size.get(environment="prod", user="jim") == 99
        """
    ).assert_outcomes(passed=8)


def test_strictness_applies_to_the_stub_of_the_plugin(run: Run) -> None:
    """Reads from a client, or from a stub of the test itself, are allowed. Reading `rules` does not stub a setting."""
    result = run(
        """
        from heksher_client.testing import SyncStubHeksherClient

        def test_a_service(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features, timeout=60):
                assert cache_size.get(environment="prod", user="jim") == 10

        @pytest.mark.settings(cache_size=5)
        def test_a_service_and_a_mark(heksher_service):
            assert cache_size.get(environment="prod", user="jim") == 5
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features, timeout=60):
                assert color.get(user="jim") == "red"

        def test_a_stub_inside():
            with SyncStubHeksherClient() as stub:
                stub[cache_size].rules = 5
                assert cache_size.get(environment="prod", user="jim") == 5

        def test_rules_are_read_only(heksher):
            assert heksher[color].rules == ()
            color.get(user="jim")
        """,
        "--heksher-strict",
    )
    result.assert_outcomes(passed=3, failed=1)


def test_async_heksher_is_a_stub_of_the_async_client(run: Run) -> None:
    """The same marks apply, in tests that anyio runs."""
    run(
        """
        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        @pytest.mark.settings(cache_size=5)
        @pytest.mark.settings_context(environment="prod", user="jim")
        async def test_reload(async_heksher):
            await async_heksher.reload()
            assert cache_size.get() == 5

        @pytest.mark.anyio
        @pytest.mark.settings(cache_size=6)
        async def test_marks_without_the_fixture():
            assert cache_size.get(environment="prod", user="jim") == 6
        """
    ).assert_outcomes(passed=2)


def test_heksher_service_is_a_real_service_for_one_test(run: Run) -> None:
    """It has the context features of the settings, or those in the configuration, and methods to edit rules."""
    tests = """
        import enum

        class Theme(enum.Enum):
            DARK = "dark"
            LIGHT = "light"

        theme = Setting("theme", Theme, ["user"], Theme.LIGHT)

        def test_rules_are_added_and_removed(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features, timeout=60) as client:
                client.set_defaults(environment="prod", user="jim")
                rule = heksher_service.add_rule("cache_size", 5, user="jim")
                heksher_service.add_rule(theme, Theme.DARK, user="jim")
                client.reload()
                assert (cache_size.get(), theme.get()) == (5, Theme.DARK)
                heksher_service.set_rule(rule, 6)
                heksher_service.set_rule(heksher_service.add_rule(theme, Theme.DARK, user="ann"), Theme.LIGHT)
                heksher_service.set_rule(heksher_service.add_rule("cache_size", 5, user="ann"), 7)
                client.reload()
                assert cache_size.get() == 6
                heksher_service.remove_rule(rule)
                client.reload()
                assert cache_size.get() == 10

        def test_the_next_test_has_a_new_service(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features, timeout=60) as client:
                client.set_defaults(environment="prod", user="jim")
                assert cache_size.get() == 10
        """
    features = 'assert heksher_service.context_features == ("environment", "user")'
    run(f"{tests}\n        def test_features(heksher_service):\n            {features}\n").assert_outcomes(passed=3)
    features = 'assert heksher_service.context_features == ("user", "environment", "theme")'
    run(
        f"{tests}\n        def test_features(heksher_service, heksher):\n            {features}\n"
        '            with pytest.raises(ValueError):\n                heksher.set_defaults(planet="mars")\n',
        ini="heksher_context_features = user environment theme",
    ).assert_outcomes(passed=3)


STRICT = """
    def test_stubbed(heksher):
        heksher[cache_size].rules = 5
        assert cache_size.get(environment="prod", user="jim") == 5

    @pytest.mark.settings(cache_size=5)
    def test_another_setting_is_read():
        cache_size.get(environment="prod", user="jim")
        color.get(user="jim")

    def test_the_error_is_caught():
        try:
            color.get(user="jim")
        except Exception:
            pass
        except AssertionError:
            pass

    @pytest.mark.strict_settings(False)
    def test_is_not_strict():
        assert color.get(user="jim") == "red"

    def test_reads_nothing():
        pass
"""


@pytest.mark.parametrize("source", ["ini", "option", "mark"])
def test_a_strict_test_fails_if_it_reads_an_unstubbed_setting(run: Run, source: str) -> None:
    """It fails even if the program catches all errors. A configuration, an option or a mark makes a test strict."""
    mark = "\n    pytestmark = pytest.mark.strict_settings\n" if source == "mark" else ""
    result = run(
        mark + STRICT,
        *(["--heksher-strict"] if source == "option" else []),
        ini="heksher_strict = true" if source == "ini" else "",
    )
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(["*setting shop.color was read in the context {'user': 'jim'}, but the test did not*"])
    result.stdout.fnmatch_lines(["*the test read settings that it did not stub: shop.color*"])


def test_reads_during_the_teardown_of_a_strict_test_count_too(run: Run) -> None:
    """They do even if the finalizer catches the error."""
    result = run(
        """
        def test_torn_down(request):
            def end():
                try:
                    color.get(user="jim")
                except AssertionError:
                    pass
            request.addfinalizer(end)
        """,
        "--heksher-strict",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the test read settings that it did not stub: shop.color*"])


def test_a_strict_test_that_fails_for_another_reason_lists_unstubbed_reads(run: Run) -> None:
    """A program that catches the error continues with another value, which may be why the test fails."""
    result = run(
        """
        def program():
            try:
                return color.get(user="jim")
            except Exception:
                return "fallback"

        def test_color(heksher):
            assert program() == "red"
        """,
        "--heksher-strict",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*the test read settings that it did not stub: shop.color"])


@pytest.mark.parametrize("arguments", ["strict=False", '"no"', "1", "True, False"])
def test_invalid_arguments_of_strict_settings_are_refused(run: Run, arguments: str) -> None:
    """They would have the opposite effect."""
    result = run(f"""
        @pytest.mark.strict_settings({arguments})
        def test_color(): pass
    """)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_color: @pytest.mark.strict_settings takes True, False or no argument*"])


def test_a_repeated_test_starts_without_the_reads_of_its_first_run(run: Run, pytester: pytest.Pytester) -> None:
    """Plugins for flaky tests repeat them."""
    pytester.makeconftest("""
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item):
            for _ in range(2):
                item._initrequest()
                reports = runtestprotocol(item, log=False)
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
    """)
    run(
        """
        runs = []

        def test_reads_once(heksher):
            runs.append(1)
            if len(runs) == 1:
                color.get(user="jim")
        """,
        "--heksher-strict",
    ).assert_outcomes(passed=1)


def test_marks_that_a_conftest_adds_apply(run: Run, pytester: pytest.Pytester) -> None:
    """A project can mark all tests in a directory."""
    pytester.makeconftest("""
        import pytest

        def pytest_collection_modifyitems(items):
            for item in items:
                item.add_marker(pytest.mark.settings(cache_size=77))
                item.add_marker(pytest.mark.strict_settings)
    """)
    run("""
        def test_value():
            assert cache_size.get(environment="prod", user="jim") == 77

        def test_strict():
            with pytest.raises(AssertionError):
                color.get(user="jim")
    """).assert_outcomes(passed=1, failed=1)


def test_invalid_marks_are_errors_with_a_hint(run: Run) -> None:
    """An unknown name is an error with similar names, or with all names."""
    result = run(
        """
        @pytest.mark.settings(cache_sizes=5)
        def test_misspelled(): pass

        @pytest.mark.settings(unrelated=5)
        def test_unknown(): pass

        @pytest.mark.settings(cache_size="many")
        def test_wrong_type(): pass

        @pytest.mark.settings("cache_size")
        def test_no_value(): pass
        """
    )
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*@pytest.mark.settings takes keywords, and at most one dict before them*"])
    result.stdout.fnmatch_lines(["*no setting 'cache_sizes' is declared*did you mean cache_size?*"])
    result.stdout.fnmatch_lines(["*declared settings: cache_size, shop.color*"])
    result.stdout.fnmatch_lines(["*TypeError: setting cache_size:*"])


@pytest.mark.slow
def test_it_works_with_pytest_xdist(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes share nothing."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # Other plugins take long to import.
    run(
        """
        @pytest.mark.parametrize("number", range(20))
        def test_a_stub(heksher, number):
            heksher[cache_size].rules = number
            assert cache_size.get(environment="prod", user="jim") == number

        def test_a_service(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features, timeout=60):
                assert heksher_service.add_rule(cache_size, 5, user="jim") == 1
        """,
        "-pheksher_client.pytest_plugin",
        "-pxdist",
        "-n2",
        in_process=False,
    ).assert_outcomes(passed=21)


def test_an_unused_plugin_imports_only_what_it_needs(run: Run) -> None:
    """The marks are registered. Clients, stubs and the service are not imported."""
    run(
        """
        def test_nothing(): pass
        """,
        "--strict-markers",
    ).assert_outcomes(passed=1)
    unused = "{'httpx', 'heksher_client.testing', 'heksher_client.service'}"
    code = f"import sys, heksher_client.pytest_plugin; sys.exit(len({unused} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_extra_service_its_fixture_fails_with_a_message(run: Run) -> None:
    """The message has one line."""
    result = run(
        """
        import sys

        sys.modules["heksher_client.service"] = None

        def test_a_service(heksher_service): pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the fixture heksher_service requires a local service: *"])


def test_l16_heksher_service_is_reached_in_an_environment_with_proxies(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the fixture itself, and by a client of the test."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    run(
        """
        def test_a_service(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features, timeout=60) as client:
                heksher_service.add_rule(cache_size, 5, user="jim")
                client.reload()
                assert cache_size.get(environment="dev", user="jim") == 5
        """
    ).assert_outcomes(passed=1)


def test_c19_heksher_service_in_a_test_with_frozen_time(run: Run) -> None:
    """The fixture, both clients, and the methods of the fixture work. The service has the time of the test."""
    pytest.importorskip("freezegun", reason="pip install --group test")
    run(
        """
        import asyncio, freezegun

        @freezegun.freeze_time("2024-05-01")
        def test_a_thread_client(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features, timeout=60) as client:
                heksher_service.add_rule(cache_size, 5, user="jim")
                client.reload()
                assert cache_size.get(environment="dev", user="jim") == 5
                assert client.status().last_success == 1714521600

        @freezegun.freeze_time("2024-05-01", tick=True)
        def test_an_async_client(heksher_service):
            async def use():
                features = heksher_service.context_features
                async with AsyncHeksherClient(heksher_service.url, 60, features, timeout=60) as client:
                    heksher_service.add_rule(cache_size, 5, user="jim")
                    await client.reload()
                    assert cache_size.get(environment="dev", user="jim") == 5

            asyncio.run(use())
        """
    ).assert_outcomes(passed=2)
