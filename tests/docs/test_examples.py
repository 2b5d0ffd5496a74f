"""The documentation's examples: each is a file that runs, and each file is shown."""

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import pytest

import heksher_client
from heksher_client import Setting
from heksher_client._core.settings.getter import Form, source
from heksher_client.profiles import _config
from tests.support.clients import eventually
from tests.support.commands import environment
from tests.support.service import WatchedService

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
FILES = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"ruff.toml"}
PAGES = sorted(page for page in DOCS.rglob("*.md"))

PRINTED = {
    "changes_async.py": "2 rules were added\nthe task has seen changes of ['cache_size']\n",
    "changes_thread.py": "2 rules were added\nthe thread has seen changes of ['cache_size']\n",
    "client_class.py": "200\n",
    "credentials.py": "200\n",
    "declare_settings.py": (
        "retries: int = 3\ntimeout: float = 2.5\ngreeting: str = 'Hello'\nis_beta: bool = False\n"
        'theme: Enum["dark","light"] = <Theme.LIGHT: \'light\'>\n'
        'options: Flags["FAST","SAFE"] = <Option.SAFE: 2>\n'
        "hosts: Sequence<str> = ('a', 'b')\nlimits: Mapping<int> = mappingproxy({'cpu': 2})\n"
    ),
    "explain.py": (
        "200\nReason.RULE\n"
        "Rule(match_conditions=mappingproxy({'environment': 'prod', 'user': 'jim'}), value=200, rule_id=1)\n"
        "[2, 3]\n{'environment': 'prod', 'user': 'jim'}\n"
    ),
    "first_async.py": "50\n200\n",
    "first_thread.py": "50\n200\n",
    "fork.py": "200\n",
    "in_process.py": "Hi Hello\n",
    "local_service.py": "True\n",
    "openfeature_flags.py": "200 TARGETING_MATCH 1\n",
    "outage.py": "200 200\n",
    "own_http_client.py": "200\n",
    "pinned.py": "10\n20\n",
    "profile_async.py": "200\nfresh\n",
    "profile_thread.py": "200\nfresh\n",
    "telemetry_prometheus.py": "heksher_reads_total rule 1\nheksher_rules  2\n",
}
"""What examples print that run by themselves, on a service where jim has a cache of 200."""
ELSEWHERE = {
    "celery_app.py", "django_project.py", "fastapi_app.py", "flask_app.py", "gunicorn.conf.py", "logs_as_json.py",
    "logs_with_structlog.py", "nginx.conf", "notebook.ipynb", "rename_after.py", "rename_before.py", "test_shop.py",
    "tutorial_async.py", "tutorial_thread.py", "validators.py",
}  # fmt: skip
"""Those that other tests run, here or beside what they are examples of."""
PUBLIC_MODULES = (
    "credentials", "exceptions", "integrations.asgi", "integrations.celery", "integrations.django",
    "integrations.wsgi", "openfeature", "profiles", "pytest_plugin", "service", "telemetry", "testing",
)  # fmt: skip
"""The modules that programs import besides the package itself."""


@pytest.fixture
def shop() -> Iterator[WatchedService]:
    """A service in which jim has a cache of 200, and all others in production one of 50."""
    with WatchedService(("environment", "user")) as service:
        service.offers_changes = True
        service.declare("cache_size", "int", 10, ["environment", "user"])
        service.add_rule("cache_size", 200, user="jim", environment="prod")
        service.add_rule("cache_size", 50, environment="prod")
        yield service


@pytest.fixture
def surroundings(shop: WatchedService, tmp_path: Path) -> dict[str, str]:
    """Environment variables that say where the service is."""
    of_service = {"HEKSHER_URL": shop.url, "HEKSHER_CONTEXT_FEATURES": "environment,user"}
    # Python 3.12 warns of every fork of a process with threads; the guide says so.
    warned = "ignore:This process:DeprecationWarning"
    return environment(**of_service, HOME=str(tmp_path), PYTHONUNBUFFERED="1", PYTHONWARNINGS=warned)


def test_every_example_is_run_by_a_test() -> None:
    """Or is of another kind than those that can be run."""
    assert {*PRINTED, *ELSEWHERE} == FILES


def test_every_example_is_shown_and_all_code_that_is_shown_is_an_example() -> None:
    """So that nothing is shown that no test has run."""
    shown: set[str] = set()
    for page in PAGES:
        text = page.read_text()
        assert "```python" not in text, page.name
        shown |= set(re.findall(r"^```\{literalinclude\} (?:\.\./)?examples/([\w.]+)$", text, re.MULTILINE))
        shown |= set(re.findall(r"\]\((?:\.\./)?examples/([\w.]+\.ipynb)\)", text))  # which is shown as a notebook
    assert shown >= FILES


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_is_shown_for(
    name: str, shop: WatchedService, surroundings: dict[str, str], tmp_path: Path
) -> None:
    """In a process of its own, without a word to the standard error."""
    command = [sys.executable, str(EXAMPLES / name), shop.url, str(tmp_path / "settings.json")]
    ran = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ran.stdout, ran.stderr, ran.returncode) == (PRINTED[name], "", 0)
    if name == "outage.py":
        shop.stop()
        ran = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert ran.stdout == "200 200\n"


@pytest.mark.parametrize("name", ["tutorial_async.py", "tutorial_thread.py"])
def test_the_tutorial_as_it_is_written(name: str, surroundings: dict[str, str], tmp_path: Path) -> None:
    """Its commands, one after the other, while its program runs; which Ctrl-C ends without a word."""
    text = (DOCS / "tutorial.md").read_text()
    commands = re.findall(r"^heksher-client (.+)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [
        "serve", "ping", "settings", "rules", "rules", "get", "get", "rules", "rules",
    ]  # fmt: skip
    with WatchedService(("environment", "user")) as service:
        service.offers_changes = True
        env = {**surroundings, "HEKSHER_URL": service.url}
        printed, complained = tmp_path / "printed", tmp_path / "complained"
        with printed.open("w") as out, complained.open("w") as err:
            words = [sys.executable, str(EXAMPLES / name), service.url]
            program = subprocess.Popen(words, stdout=out, stderr=err, env=env)
        try:
            assert eventually(lambda: printed.read_text() == "10\n")
            expected = iter([["10", "200"], ["10", "200"], ["10", "200", "50"]])
            for command in commands[1:]:
                words = [str(Path(sys.executable).with_name("heksher-client")), *command.split()]
                subprocess.run(words, env=env, check=True, capture_output=True)
                if command.startswith(("rules add", "rules remove")):
                    lines = next(expected)
                    assert eventually(lambda lines=lines: printed.read_text().split() == lines)  # type: ignore[misc]
            program.send_signal(signal.SIGINT)
            assert (program.wait(timeout=30), complained.read_text()) == (0, "")
        finally:
            program.kill()
            program.wait()


def test_an_example_that_is_run_as_it_is_shown_asks_the_service_on_this_machine() -> None:
    """What the tests name is an argument, which nobody else has to give."""
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()
        for number in re.findall(r"sys\.argv\[(\d)\]", text):
            assert f"sys.argv[{number}] if len(sys.argv) > {number} else" in text, path.name


@pytest.mark.parametrize(("value", "printed", "logged"), [(7, "7", ""), (0, "1", ""), (500, "3", "too many")])
def test_the_validator_of_the_example_checks_and_changes_values(
    value: int, printed: str, logged: str, shop: WatchedService, surroundings: dict[str, str]
) -> None:
    """A rule whose value it refuses is left out, and logged; what is too small is one."""
    for name, kind, default, of_jim in (("retries", "int", 3, value), ("patience", "float", 60.0, 90)):
        shop.declare(name, kind, default, ["user"])
        shop.add_rule(name, of_jim, user="jim")
    command = [sys.executable, str(EXAMPLES / "validators.py"), shop.url]
    ran = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{printed} 0:01:30\n"
    assert logged in ran.stderr
    assert bool(ran.stderr) == bool(logged)


def test_a_setting_is_renamed_as_the_guide_says(surroundings: dict[str, str], shop: WatchedService) -> None:
    """Programs of both ages read the same, before and after a rule is changed."""

    def read(name: str) -> str:
        ran = subprocess.run(
            [sys.executable, str(EXAMPLES / name)], env=surroundings, capture_output=True, text=True, check=True
        )
        return ran.stdout

    assert read("rename_before.py") == "10\n"
    rule = shop.add_rule("size", 200, user="jim")
    assert [read(name) for name in ("rename_before.py", "rename_after.py", "rename_before.py")] == ["200\n"] * 3
    shop.call("PUT", f"/api/v1/rules/{rule}/value", {"value": 300})
    assert [read(name) for name in ("rename_before.py", "rename_after.py")] == ["300\n"] * 2


def test_the_code_on_the_page_on_performance_is_what_reads_run() -> None:
    """Written by the package itself, for the features that the page tells of."""
    page = (DOCS / "explanation" / "performance.md").read_text()
    (shown,) = re.findall(r"^```\{code-block\} python\n(def make_getter\(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    form = Form(
        ("environment", "user", "theme"),
        given=frozenset({"user"}),
        sources=(str, type(None), ContextVar),
        levels=("theme", "user"),
        constants=0,
        overflow_levels=frozenset(),
        shares_last_feature=False,
        is_retained=False,
        is_observed=False,
    )
    assert shown == source(form)


def test_the_tests_of_the_example_pass(surroundings: dict[str, str], tmp_path: Path) -> None:
    """As a program's own."""
    example = (EXAMPLES / "test_shop.py").read_text()
    (tmp_path / "test_shop.py").write_text(example)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    env = {name: value for name, value in surroundings.items() if name != "PYTEST_ADDOPTS"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_shop.py")]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "4 passed" in ran.stdout, ran.stdout


def test_the_python_in_the_readme_runs(shop: WatchedService, tmp_path: Path) -> None:
    """The program against a real service, instead of the one that it names, and the test in pytest."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    program, test = blocks
    code = program.replace("http://heksher:8080", shop.url)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stderr, ran.returncode) == ("", 0)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_readme.py").write_text(test)
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in ran.stdout, ran.stdout


def test_every_public_name_is_in_the_reference() -> None:
    """Those of the package, and the modules that programs import besides."""
    text = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    errors = {name for name in heksher_client.__all__ if name.endswith("Error")}
    for name in set(heksher_client.__all__) - errors - {"__version__"}:
        assert f":: heksher_client.{name}\n" in text, name
    for name in PUBLIC_MODULES:
        found = re.search(rf"automodule:: heksher_client\.{re.escape(name)}\n((?:   :.*\n)*)", text)
        assert found, name
        members = re.search(r":members:(.*)", found[1])
        module = importlib.import_module(f"heksher_client.{name}")
        if members and members[1].strip():  # Without names, all of `__all__` is shown that has a docstring.
            listed = set(members[1].replace(" ", "").split(","))
            assert set(getattr(module, "__all__", ())) <= listed, name
        elif members and hasattr(module, "__all__"):
            assert all(getattr(module, one).__doc__ for one in module.__all__), name


def test_every_attribute_of_a_setting_is_in_the_reference() -> None:
    """The page lists its public members, and each of them has a docstring."""
    text = (DOCS / "reference" / "api.md").read_text()
    members = re.search(r"autoclass:: heksher_client\.Setting\n   :members: (.+)", text)
    assert members
    public = {name for name, member in vars(Setting).items() if not name.startswith("_") and member.__doc__}
    assert set(members[1].split(", ")) == public == {name for name in vars(Setting) if not name.startswith("_")}


def test_every_environment_variable_is_in_the_reference() -> None:
    """Of profiles, and of commands."""
    text = (DOCS / "reference" / "environment.md").read_text()
    profile = {f"HEKSHER_{name.upper()}" for name in _config.ENVIRONMENT_FIELDS}
    named = set(re.findall(r"\bHEKSHER_[A-Z_]+[A-Z]\b", "".join(
        path.read_text() for path in (ROOT / "heksher_client").rglob("*.py") if "django" not in path.parts
    )))  # fmt: skip
    assert set(re.findall(r"`(HEKSHER_[A-Z_]+)`", text)) == profile | named


def test_the_configuration_file_that_is_shown_can_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the code that reads it, with each of its profiles."""
    text = (DOCS / "how-to" / "connect.md").read_text()
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for variable in [name for name in os.environ if name.startswith("HEKSHER_")]:
        monkeypatch.delenv(variable)
    path = tmp_path / "config.toml"
    path.write_text(shown)
    path.chmod(0o600)
    monkeypatch.setenv("HEKSHER_CONFIG", str(path))
    assert _config.load(None, {}).name == "dev"
    for name in _config.profile_names(path):
        assert _config.load(name, {}).profile.context_features == ["environment", "user"]


def test_links_within_the_repository_lead_somewhere() -> None:
    """Those of the documents that are read outside the site as well."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *PAGES]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
