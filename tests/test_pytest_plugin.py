"""The pytest plugin, as a program's own tests use it: in runs of pytest of their own."""

import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

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
    """Runs tests in a process of its own; gives their outcomes and what was printed."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(tests: str, *arguments: str, ini: str = "") -> pytest.RunResult:
        pytester.makeini(f"[pytest]\n{ini}")
        pytester.makepyfile(textwrap.dedent(MODULE) + textwrap.dedent(tests))
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)

    return run


def test_marks_and_the_fixture_stub_settings_for_one_test(run: Run) -> None:
    """Values and rules; those of a function win over those of its class; afterwards all is as before."""
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
        """
    ).assert_outcomes(passed=5)


def test_the_mark_that_is_nearest_wins(run: Run) -> None:
    """That of a parameter, of a subclass, of a function; and a stub is made after what is there for longer."""
    run(
        """
        from heksher_client.testing import SyncStubHeksherClient

        @pytest.fixture(scope="session", autouse=True)
        def of_the_session():
            with SyncStubHeksherClient() as stub:
                stub[cache_size].rules = 99
                yield

        @pytest.mark.settings(cache_size=1)
        @pytest.mark.parametrize("wanted", [1, pytest.param(5, marks=pytest.mark.settings(cache_size=5))])
        def test_parameters(wanted):
            assert cache_size.get(environment="prod", user="jim") == wanted

        @pytest.mark.parametrize("wanted", [99, pytest.param(5, marks=pytest.mark.settings(cache_size=5)), 99])
        def test_parameters_beside_one_that_is_marked(wanted):
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


def test_strictness_is_for_the_stub_that_is_in_place(run: Run) -> None:
    """A client on a service, and a stub inside the test, are judged by nobody; looking at rules stubs nothing."""
    result = run(
        """
        from heksher_client.testing import SyncStubHeksherClient

        def test_a_service(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features):
                assert cache_size.get(environment="prod", user="jim") == 10

        @pytest.mark.settings(cache_size=5)
        def test_a_service_and_a_mark(heksher_service):
            assert cache_size.get(environment="prod", user="jim") == 5
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features):
                assert color.get(user="jim") == "red"

        def test_a_stub_inside():
            with SyncStubHeksherClient() as stub:
                stub[cache_size].rules = 5
                assert cache_size.get(environment="prod", user="jim") == 5

        def test_looking(heksher):
            assert heksher[color].rules == ()
            color.get(user="jim")
        """,
        "--heksher-strict",
    )
    result.assert_outcomes(passed=3, failed=1)


def test_a_stub_of_an_asyncio_client_has_its_methods(run: Run) -> None:
    """With the same marks; in tests that anyio runs."""
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
        async def test_by_the_marks_alone():
            assert cache_size.get(environment="prod", user="jim") == 6
        """
    ).assert_outcomes(passed=2)


def test_a_real_service_is_there_for_one_test(run: Run) -> None:
    """With the context features of the settings, or those of the configuration; and an operator."""
    tests = """
        import enum

        class Theme(enum.Enum):
            DARK = "dark"
            LIGHT = "light"

        theme = Setting("theme", Theme, ["user"], Theme.LIGHT)

        def test_rules_come_and_go(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features) as client:
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

        def test_another_test_has_another_one(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features) as client:
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
    def test_another_is_read():
        cache_size.get(environment="prod", user="jim")
        color.get(user="jim")

    def test_nobody_hears_of_it():
        try:
            color.get(user="jim")
        except Exception:
            pass
        except AssertionError:
            pass

    @pytest.mark.strict_settings(False)
    def test_may_read():
        assert color.get(user="jim") == "red"

    def test_reads_nothing():
        pass
"""


@pytest.mark.parametrize("how", ["ini", "option", "mark"])
def test_strict_tests_fail_where_they_read_what_they_did_not_stub(run: Run, how: str) -> None:
    """Also where the program under test catches all errors. By the configuration, by an option, or by a mark."""
    mark = "\n    pytestmark = pytest.mark.strict_settings\n" if how == "mark" else ""
    result = run(
        mark + STRICT,
        *(["--heksher-strict"] if how == "option" else []),
        ini="heksher_strict = true" if how == "ini" else "",
    )
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(["*setting shop.color was read in the context {'user': 'jim'}, and the test did not*"])
    result.stdout.fnmatch_lines(["*settings were read that the test did not stub: shop.color*"])


def test_what_a_strict_test_reads_as_it_is_torn_down_counts_too(run: Run) -> None:
    """Though nobody hears of it there either."""
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
    result.stdout.fnmatch_lines(["*settings were read that the test did not stub: shop.color*"])


def test_a_strict_test_that_fails_for_something_else_tells_what_it_read(run: Run) -> None:
    """A program that catches the error goes on with something that the test did not expect, and that is why."""
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
    result.stdout.fnmatch_lines(["E*settings were read that the test did not stub: shop.color"])


@pytest.mark.parametrize("given", ["strict=False", '"no"', "1", "True, False"])
def test_a_mark_for_strictness_that_is_misspelt_is_refused(run: Run, given: str) -> None:
    """It would mean the opposite."""
    result = run(f"""
        @pytest.mark.strict_settings({given})
        def test_color(): pass
    """)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_color: @pytest.mark.strict_settings takes True or False, or nothing*"])


def test_a_test_that_is_run_again_is_judged_anew(run: Run, pytester: pytest.Pytester) -> None:
    """As plugins do with tests that fail now and then."""
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


def test_marks_that_a_conftest_adds_are_as_good_as_others(run: Run, pytester: pytest.Pytester) -> None:
    """That is how whole folders are marked."""
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


def test_what_no_setting_is_called_is_an_error_with_those_there_are(run: Run) -> None:
    """With the one that is nearest."""
    result = run(
        """
        @pytest.mark.settings(cache_sizes=5)
        def test_misspelt(): pass

        @pytest.mark.settings(nothing_of_the_kind=5)
        def test_unknown(): pass

        @pytest.mark.settings(cache_size="many")
        def test_of_another_type(): pass

        @pytest.mark.settings("cache_size")
        def test_that_gives_no_value(): pass
        """
    )
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*@pytest.mark.settings takes keywords, and at most one dict before them*"])
    result.stdout.fnmatch_lines(["*no setting 'cache_sizes' is declared*is it cache_size?*"])
    result.stdout.fnmatch_lines(["*there are: cache_size, shop.color*"])
    result.stdout.fnmatch_lines(["*TypeError: setting cache_size:*"])


def test_it_works_in_many_processes_at_once(run: Run) -> None:
    """As pytest-xdist starts them."""
    run(
        """
        @pytest.mark.parametrize("number", range(20))
        def test_of_its_own(heksher, number):
            heksher[cache_size].rules = number
            assert cache_size.get(environment="prod", user="jim") == number

        def test_a_service(heksher_service):
            with ThreadHeksherClient(heksher_service.url, 60, heksher_service.context_features):
                assert heksher_service.add_rule(cache_size, 5, user="jim") == 1
        """,
        "-n",
        "2",
    ).assert_outcomes(passed=21)


def test_until_it_is_used_it_does_nothing(run: Run) -> None:
    """The marks are known; of the package, clients, stubs and the service are not even imported."""
    run(
        """
        def test_nothing(): pass
        """,
        "--strict-markers",
    ).assert_outcomes(passed=1)
    later = "{'httpx', 'heksher_client.testing', 'heksher_client.service'}"
    code = f"import sys, heksher_client.pytest_plugin; sys.exit(len({later} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_service_its_fixture_says_what_it_needs(run: Run) -> None:
    """In one line."""
    result = run(
        """
        import sys

        sys.modules["heksher_client.service"] = None

        def test_a_service(heksher_service): pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the fixture heksher_service needs a local service: *"])
