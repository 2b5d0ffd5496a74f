"""The public names of the package, and the common methods of both clients."""

import ast
import asyncio
import importlib.util
import inspect
import json
import pkgutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pytest_httpx import HTTPXMock

import heksher_client
import heksher_client.profiles
from heksher_client import AsyncHeksherClient, HeksherError, Setting, ThreadHeksherClient, setting_type
from heksher_client._core.settings.setting import entry_of

ROOT = Path(__file__).parents[1]


def test_all_public_names_are_listed_and_there() -> None:
    """`__all__` is sorted as the linter sorts it, complete, and nothing public is missing from it."""
    values = {name: getattr(heksher_client, name) for name in dir(heksher_client) if not name.startswith("_")}
    names = [name for name, value in values.items() if not inspect.ismodule(value)]
    assert sorted(heksher_client.__all__) == sorted([*names, "__version__"])
    assert all(hasattr(heksher_client, name) for name in heksher_client.__all__)


def test_profiles_exports_names_of_the_package() -> None:
    """`heksher_client.profiles` imports its modules on first use, and has the same objects as the package root."""
    code = "import sys, heksher_client.profiles; print('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.strip() == b"False"
    values = {name: getattr(heksher_client.profiles, name) for name in dir(heksher_client.profiles)}
    names = [name for name, value in values.items() if not name.startswith("_") and not inspect.ismodule(value)]
    assert names == heksher_client.profiles.__all__
    for name in set(names) - {"config_path"}:  # the root has what most programs need
        assert getattr(heksher_client.profiles, name) is getattr(heksher_client, name)
    assert not hasattr(heksher_client.profiles, "Connection")


def test_every_error_of_ours_is_public() -> None:
    """A program that catches an error can import it from the package."""
    errors = {name for name, value in vars(heksher_client.exceptions).items()
              if inspect.isclass(value) and issubclass(value, HeksherError)}  # fmt: skip
    assert errors <= set(heksher_client.__all__)


def public_methods(client: type) -> dict[str, Any]:
    return {
        name: method
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


def test_both_clients_have_the_same_signatures() -> None:
    """Except for `async`, and for `aclose` instead of `close`."""
    asynchronous, threaded = public_methods(AsyncHeksherClient), public_methods(ThreadHeksherClient)
    assert inspect.signature(asynchronous.pop("aclose")) == inspect.signature(threaded["close"])
    assert asynchronous.keys() == threaded.keys()
    for name, method in threaded.items():
        assert inspect.signature(asynchronous[name]) == inspect.signature(method), name
        waits = name in ("set_as_main", "close", "reload", "ping", "get_settings")
        assert inspect.iscoroutinefunction(asynchronous[name]) == waits, name
        assert not inspect.iscoroutinefunction(method), name
    for client, lock in ((AsyncHeksherClient, asyncio.Lock()), (ThreadHeksherClient, threading.Lock())):
        made: Any = client("http://host", 60, ["user"])
        assert type(made.modification_lock) is type(lock)


def test_every_public_function_says_what_it_does() -> None:
    """Every public class and function of every module has a docstring, but hooks of protocols and dunder methods."""
    silent = []
    for module in pkgutil.walk_packages(heksher_client.__path__, "heksher_client."):
        if "._core" in module.name or module.name.startswith("heksher_client._"):
            continue
        spec = importlib.util.find_spec(module.name)  # Not imported: some are for a tool that runs them.
        assert spec is not None
        tree = ast.parse(Path(str(spec.origin)).read_text())
        assert ast.get_docstring(tree), module.name
    for name in heksher_client.__all__:
        value = getattr(heksher_client, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            silent += [name] * (not inspect.getdoc(value))
        if inspect.isclass(value):
            own = [m for m, f in vars(value).items() if inspect.isfunction(f) and not m.startswith("_")]
            silent += [f"{name}.{m}" for m in own if not inspect.getdoc(getattr(value, m))]
    assert silent == []


def test_the_version_is_said_in_one_voice() -> None:
    """The package, its metadata and the changelog agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == heksher_client.__version__
    assert f"## [{heksher_client.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_imports_no_more_than_it_needs() -> None:
    """Neither the service's, nor the command line's, nor any test's libraries: those are extras."""
    code = (
        "import sys, heksher_client, heksher_client.testing; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    # Without click and rich, which httpx imports where they are installed.
    others = {"fastapi", "sqlalchemy", "uvicorn", "pytest", "hypothesis", "unittest", "pydantic"}
    assert not others & set(loaded)


def test_the_readme_has_two_commands_each_enough_by_itself() -> None:
    """Under Quick start: exactly two fenced `sh` blocks, each of one line."""
    section = (ROOT / "README.md").read_text().partition("## Quick start")[2].partition("\n## ")[0]
    blocks = section.split("```sh\n")[1:]
    assert [block.partition("\n```")[0].count("\n") for block in blocks] == [0, 0]
    assert section.count("```") == 4
    assert (ROOT / ".ci" / "run").read_text().count(blocks[1].partition("\n")[0]) == 1


@pytest.mark.parametrize("client_class", [AsyncHeksherClient, ThreadHeksherClient])
@pytest.mark.parametrize(
    ("url", "features", "error"),
    [
        ("no url", ["user"], "service_url"),
        ("ftp://host", ["user"], "service_url"),
        ("http://", ["user"], "service_url"),
        ("http://host:port", ["user"], "service_url"),
        (None, ["user"], "service_url"),
        ("http://host/?a=b", ["user"], "service_url"),
        ("http://host", "user", "not one string"),
        ("http://host", ["has-dash"], "has-dash"),
    ],
)
def test_impossible_arguments_are_refused(client_class: Any, url: str, features: Any, error: str) -> None:
    """At the construction of a client, with what is wrong; a URL is never repeated, as it may hold a password."""
    with pytest.raises((ValueError, TypeError), match=error):
        client_class(url, 60, features)


@pytest.mark.anyio
async def test_programs_may_mock_the_service_with_pytest_httpx(httpx_mock: HTTPXMock) -> None:
    """The clients talk through httpx like any other, so what programs test httpx with works for them too."""
    setting = Setting("s", int, ["user"], 1)
    httpx_mock.add_response(url="http://heksher/api/v1/context_features", json={"context_features": ["user"]})
    httpx_mock.add_response(
        method="POST", json={"outcome": "uptodate"}, match_json=json.loads(entry_of(setting).declaration.body)
    )
    rule = {"value": 2, "context_features": [["user", "jim"]], "rule_id": 1}
    httpx_mock.add_response(
        url="http://heksher/api/v1/query?settings=s&context_filters=*&include_metadata=false",
        json={"settings": {"s": {"default_value": 1, "rules": [rule]}}},
    )
    async with AsyncHeksherClient("http://heksher", 3600, ["user"]):
        assert setting.get(user="jim") == 2


def test_declaring_settings_imports_no_client() -> None:
    """Asyncio and httpx take longer to import than all the rest; the clients bring them when they are asked for."""
    code = (
        "import sys, heksher_client\n"
        "heksher_client.Setting('s', int, ['user'], 1)\n"
        "assert {'AsyncHeksherClient', 'ThreadHeksherClient'} <= set(dir(heksher_client))\n"
        "print(*({'asyncio', 'anyio', 'httpx'} & set(sys.modules)))\n"
        "from heksher_client import ThreadHeksherClient\n"
        "print('httpx' in sys.modules, 'asyncio' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["", "True False"]


def test_what_is_imported_late_is_listed() -> None:
    """For those who look around."""
    assert set(heksher_client.__all__) <= set(dir(heksher_client))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'heksher_client' has no attribute 'nosuch'"):
        _ = heksher_client.nosuch


def test_what_needs_an_extra_names_it_where_it_is_used() -> None:
    """The package itself can be looked at as a whole without any."""
    code = (
        "import sys\n"
        "for name in ('authlib', 'openfeature', 'opentelemetry'):\n"
        "    sys.modules[name] = None\n"
        "from heksher_client import *\n"
        "import importlib, pydoc, heksher_client\n"
        "assert pydoc.render_doc(heksher_client)\n"
        "for name in ('openfeature', 'telemetry', '_auth.oauth'):\n"
        "    try:\n"
        "        importlib.import_module(f'heksher_client.{name}')\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    named = ["heksher_client[openfeature]", "heksher_client[telemetry]", "heksher_client[oauth]"]
    assert [words in line for words, line in zip(named, result.stdout.splitlines(), strict=True)] == [True] * 3


def test_a_setting_shows_its_declaration() -> None:
    """All arguments can be read. Only `on_coerce` can be replaced later."""
    setting = Setting("s", int, ["user"], 1, {"team": "a"}, alias="old", version="1.2")
    assert (setting.name, setting.alias, setting.version, setting.default_value) == ("s", "old", "1.2", 1)
    assert (setting.configurable_features, dict(setting.metadata)) == (("user",), {"team": "a"})
    assert setting.type is setting_type(int)
    assert setting.on_coerce is not None
    setting.on_coerce = None
    assert setting.on_coerce is None
    with pytest.raises(AttributeError):
        setting.name = "t"  # type: ignore[misc]
