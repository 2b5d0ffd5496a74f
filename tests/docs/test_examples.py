"""The examples of the documentation: each is a file that a test runs, and each file is included in a page."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from contextvars import ContextVar
from pathlib import Path

import pytest

import heksher_client
from heksher_client import Setting
from heksher_client._core.settings.getter import Form, source
from heksher_client.profiles import _config
from tests.support.commands import environment, run_in_process, run_script_in_process
from tests.support.service import WatchedService

pytestmark = pytest.mark.unmeasured

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
        "hosts: Sequence<str> = ('a', 'b')\nlimits: Mapping<int> = {'cpu': 2}\n"
    ),
    "values_as_json.py": '{"cpu": 2} True\n{\'cpu\': 2, \'memory\': 4}\n{"shop": "dark"}\n',
    "diagnose.py": (
        "state: fresh\nlast error: None\nmain client: True\ncache_size uptodate None\n"
        "  rules: 2 not used: ()\nvalue: 200 because of a rule\n"
    ),
    "explain.py": (
        "200\nrule\n"
        "Rule(match_conditions={'environment': 'prod', 'user': 'jim'}, value=200, rule_id=1)\n"
        "[2, 3]\n{'environment': 'prod', 'user': 'jim'}\n"
    ),
    "first_async.py": "200\n",
    "first_thread.py": "200\n",
    "fork.py": "200\n",
    "in_process.py": "Hi Hello\n",
    "local_service.py": "True\n",
    "manage_rules.py": ("cache_size: changed 200 to 400\ncache_size: added rule 3 with 100\n"),
    "manage_rules_async.py": "cache_size: removed rule 1 with 200\n",
    "openfeature_flags.py": "200 TARGETING_MATCH 1\n",
    "outage.py": "200 200\n",
    "own_http_client.py": "200\n",
    "pinned.py": "10\n20\n",
    "profile_async.py": "200\nfresh\n",
    "profile_thread.py": "200\nfresh\n",
    "telemetry_prometheus.py": "heksher_reads_total rule 1\nheksher_rules  2\n",
}
"""The output of each example that runs alone, with a service that gives jim a cache of 200."""
PROCESSES = {"first_async.py", "first_thread.py", "fork.py", "openfeature_flags.py", "telemetry_prometheus.py"}
"""The examples that run in a separate process: those of the quick start, and those that fork or set global objects."""
SEPARATE_TESTS = {
    "celery_app.py", "django_project.py", "fastapi_app.py", "flask_app.py", "gunicorn.conf.py", "logs_as_json.py",
    "logs_with_structlog.py", "nginx.conf", "notebook.ipynb", "rename_after.py", "rename_before.py", "test_shop.py",
    "tutorial_async.py", "tutorial_thread.py", "validators.py",
}  # fmt: skip
"""The examples that other tests run, in this module or with the feature that they show."""
PUBLIC_MODULES = (
    "admin", "credentials", "exceptions", "integrations.asgi", "integrations.django", "integrations.wsgi",
    "openfeature", "profiles", "pytest_plugin", "service", "telemetry", "testing",
    pytest.param("integrations.celery", marks=pytest.mark.frameworks("celery")),
)  # fmt: skip
"""The public modules of the package."""


@pytest.fixture
def service_environment(shop: WatchedService, tmp_path: Path) -> dict[str, str]:
    """Environment variables with the URL of the service."""
    # Python 3.12 warns about each fork of a process with threads. The guide mentions it.
    filters = "ignore:This process:DeprecationWarning"
    return environment(HEKSHER_URL=shop.url, HOME=str(tmp_path), PYTHONUNBUFFERED="1", PYTHONWARNINGS=filters)


def test_every_example_is_run_by_a_test() -> None:
    """A new file in the directory needs an entry in one of the two lists."""
    assert {*PRINTED, *SEPARATE_TESTS} == FILES


def test_every_example_is_shown_and_all_shown_code_is_an_example() -> None:
    """Pages include Python code only from files that a test runs."""
    shown: set[str] = set()
    for page in PAGES:
        text = page.read_text()
        assert "```python" not in text, page.name
        shown |= set(re.findall(r"^```\{literalinclude\} (?:\.\./)?examples/([\w.]+)$", text, re.MULTILINE))
        shown |= set(re.findall(r"\]\((?:\.\./)?examples/([\w.]+\.ipynb)\)", text))  # a notebook is linked
    assert shown >= FILES


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_the_expected_output(
    name: str, shop: WatchedService, service_environment: dict[str, str], tmp_path: Path
) -> None:
    """It writes nothing to standard error."""

    def run() -> tuple[str, str, int]:
        if name not in PROCESSES:
            outcome = run_script_in_process(EXAMPLES / name, service_environment, tmp_path)
            return outcome.out, outcome.err, outcome.status
        command = [sys.executable, str(EXAMPLES / name)]
        result = subprocess.run(
            command, env=service_environment, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        return result.stdout, result.stderr, result.returncode

    assert run() == (PRINTED[name], "", 0)
    if name == "outage.py":
        shop.stop()
        assert run()[0] == "200 200\n"


def test_examples_have_no_code_for_the_tests() -> None:
    """They have no arguments: readers and tests set the URL of the service in the environment."""
    uses = {path.name for path in EXAMPLES.glob("*.py") if "argv" in path.read_text()}
    assert uses == {"django_project.py"}  # as in each `manage.py`


@pytest.mark.parametrize(("value", "printed", "logged"), [(7, "7", ""), (0, "1", ""), (500, "3", "too many")])
def test_the_validators_of_the_example_reject_and_change_values(
    value: int,
    printed: str,
    logged: str,
    shop: WatchedService,
    service_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """A rejected rule is not used, and is logged. A value that is too small becomes 1."""
    for name, kind, default, of_jim in (("retries", "int", 3, value), ("patience", "float", 60.0, 90)):
        shop.declare(name, kind, default, ["user"])
        shop.add_rule(name, of_jim, user="jim")
    outcome = run_script_in_process(EXAMPLES / "validators.py", service_environment, tmp_path)
    assert outcome.out == f"{printed} 0:01:30\n"
    assert logged in outcome.err
    assert bool(outcome.err) == bool(logged)


def test_a_setting_is_renamed_as_the_guide_says(
    service_environment: dict[str, str], shop: WatchedService, tmp_path: Path
) -> None:
    """Both versions of the program read the same values, before and after a rule is changed."""

    def read(name: str) -> str:
        outcome = run_script_in_process(EXAMPLES / name, service_environment, tmp_path)
        assert (outcome.status, outcome.err) == (0, "")
        return outcome.out

    assert read("rename_before.py") == "10\n"
    rule = shop.add_rule("size", 200, user="jim")
    assert [read(name) for name in ("rename_before.py", "rename_after.py", "rename_before.py")] == ["200\n"] * 3
    shop.call("PUT", f"/api/v1/rules/{rule}/value", {"value": 300})
    assert [read(name) for name in ("rename_before.py", "rename_after.py")] == ["300\n"] * 2


def test_the_page_on_performance_shows_the_generated_code() -> None:
    """It shows the code for the context features in its text."""
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


@pytest.mark.slow
def test_the_example_tests_pass(service_environment: dict[str, str], tmp_path: Path) -> None:
    """They run as the tests of a separate program."""
    example = (EXAMPLES / "test_shop.py").read_text()
    (tmp_path / "test_shop.py").write_text(example)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    env = {name: value for name, value in service_environment.items() if name != "PYTEST_ADDOPTS"}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # Other plugins take long to import.
    plugins = ["-pno:cacheprovider", "-panyio.pytest_plugin", "-pheksher_client.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, str(tmp_path / "test_shop.py")]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "4 passed" in result.stdout, result.stdout


def test_the_example_in_the_readme_works(tmp_path: Path) -> None:
    """The program prints the default, and after the command for operators, the value of the rule and the rule."""
    readme = (ROOT / "README.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^\.venv/bin/heksher-client (rules add .+)$", readme, re.MULTILINE)
    with WatchedService(("environment", "user")) as service:

        def on_service(text: str) -> str:
            assert "http://127.0.0.1:9999" in text
            return text.replace("http://127.0.0.1:9999", service.url)

        (tmp_path / "shop.py").write_text(on_service(program))
        env = environment(HOME=str(tmp_path))
        before = run_script_in_process(tmp_path / "shop.py", env, tmp_path)
        added = run_in_process(on_service(command).split(), env, tmp_path)
        after = run_script_in_process(tmp_path / "shop.py", env, tmp_path)
    assert (before.out, before.err) == ("10\nNone\n", "")
    assert (added.status, added.err) == (0, "")
    rule = "Rule(match_conditions={'environment': 'prod', 'user': 'jim'}, value=200, rule_id=1)"
    assert (after.out, after.err) == (f"200\n{rule}\n", "")


def test_every_public_name_is_in_the_reference() -> None:
    """The reference covers the package."""
    text = reference()
    errors = {name for name in heksher_client.__all__ if name.endswith("Error")}
    for name in set(heksher_client.__all__) - errors - {"__version__"}:
        assert f":: heksher_client.{name}\n" in text, name


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_every_name_of_a_public_module_is_in_the_reference(name: str) -> None:
    """Without names, autodoc shows the members of `__all__` that have a docstring."""
    found = re.search(rf"automodule:: heksher_client\.{re.escape(name)}\n((?:   :.*\n)*)", reference())
    assert found
    members = re.search(r":members:(.*)", found[1])
    module = importlib.import_module(f"heksher_client.{name}")
    if members and members[1].strip():
        listed = set(members[1].replace(" ", "").split(","))
        listed |= set(re.findall(rf"autoclass:: heksher_client\.{re.escape(name)}\.(\w+)\n", reference()))
        assert set(getattr(module, "__all__", ())) <= listed
    elif members and hasattr(module, "__all__"):
        assert all(getattr(module, member).__doc__ for member in module.__all__)


def reference() -> str:
    return "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))


def test_every_attribute_of_a_setting_is_in_the_reference() -> None:
    """The page lists its public members, and each of them has a docstring."""
    text = (DOCS / "reference" / "settings.md").read_text()
    members = re.search(r"autoclass:: heksher_client\.Setting\n   :members: (.+)", text)
    assert members
    public = {name for name, member in vars(Setting).items() if not name.startswith("_") and member.__doc__}
    assert set(members[1].split(", ")) == public == {name for name in vars(Setting) if not name.startswith("_")}


def test_every_environment_variable_is_in_the_reference() -> None:
    """The page lists the variables of profiles and of commands."""
    text = (DOCS / "reference" / "environment.md").read_text()
    profile = {f"HEKSHER_{name.upper()}" for name in _config.ENVIRONMENT_FIELDS}
    named = set(re.findall(r"\bHEKSHER_[A-Z_]+[A-Z]\b", "".join(
        path.read_text() for path in (ROOT / "heksher_client").rglob("*.py") if "django" not in path.parts
    )))  # fmt: skip
    assert set(re.findall(r"`(HEKSHER_[A-Z_]+)`", text)) == profile | named


def test_the_configuration_file_in_the_guide_is_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package loads each of its profiles."""
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


def test_the_glossary_has_all_concepts_in_alphabetical_order() -> None:
    """It has each term that the page on concepts introduces."""
    text = (DOCS / "reference" / "glossary.md").read_text()
    terms = re.findall(r"^(?!#|`)(\S.*)$", text, re.MULTILINE)
    assert terms == sorted(terms)
    concepts = (DOCS / "explanation" / "concepts.md").read_text()
    introduced = set(re.findall(r"\*\*(.+?)\*\*", concepts)) - {"matches"}
    assert {term if term in terms else term.removesuffix("s") for term in introduced} <= set(terms)


def test_diagrams_have_a_text_alternative() -> None:
    """Pages include them as HTML, so their IDs must differ, and need no other host."""
    labels: list[str] = []
    for page in PAGES:
        for name in re.findall(r"^:file: (?:\.\./)?(images/\w+\.svg)$", page.read_text(), re.MULTILINE):
            diagram = (DOCS / name).read_text()
            (title, text) = re.findall(r'<(?:title|desc) id="([\w-]+)">.+</', diagram)
            assert f'role="img" aria-labelledby="{title} {text}"' in diagram
            assert "href" not in diagram
            labels += [f"{page} {title}", f"{page} {text}"]
    assert len(labels) == len(set(labels)) > 0


def test_links_within_the_repository_are_valid() -> None:
    """The documents in the root directory are checked as well as the pages."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *PAGES]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_guides_require_extras_that_exist() -> None:
    """Each guide begins with its requirements. A command that installs the package names its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page in (DOCS / "how-to").glob("*.md"):
        text = page.read_text()
        assert page.name == "index.md" or "{admonition} Requirements" in text, page.name
        for name, extras in re.findall(r"\bpip install\s+\"?(heksher_client)(?:\[([\w,]+)\])?", text):
            assert name == project["name"]
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), (page.name, extras)
