"""The published distributions: built, inspected, and installed into empty environments by `tox run -e package`."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
pytestmark = pytest.mark.package
CORE = {"anyio", "certifi", "h11", "heksher_client", "httpcore", "httpx", "idna", "msgspec", "orjson", "pip",
        "setuptools", "sniffio", "typing_extensions"}  # fmt: skip
"""All packages that an installation without extras may contain; some depend on the version of Python."""
EXTRA_MODULES = {
    "cli": "heksher_client.cli.watch",
    "login": "heksher_client.profiles._oauth_login",
    "oauth": "heksher_client.credentials, heksher_client._auth.oauth",
    "openfeature": "heksher_client.openfeature",
    "postgresql": "psycopg",
    "profiles": "heksher_client.profiles._connect",
    "service": "heksher_client.service, heksher_client.service.migrations",
    "telemetry": "heksher_client.telemetry",
}
"""The modules that each extra is for."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, built from the sdist, and the sdist."""
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(directory), str(ROOT)], check=True, capture_output=True
    )
    (wheel,), (sdist,) = directory.glob("*.whl"), directory.glob("*.tar.gz")
    return wheel, sdist


def tracked_files(*directories: str) -> set[str]:
    result = subprocess.run(["git", "ls-files", *directories], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(result.stdout.split())


def test_the_wheel_contains_exactly_the_package(built: tuple[Path, Path]) -> None:
    """It includes `py.typed`, the templates of the console and the migrations."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == tracked_files("heksher_client")
    assert "heksher_client/py.typed" in names


def test_the_sdist_contains_all_tracked_files(built: tuple[Path, Path]) -> None:
    """It includes sources, tests, documentation, benchmarks and their configuration."""
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames() if sdist.getmember(name).isfile()}
    assert names - {"PKG-INFO"} == tracked_files() - {".gitignore"} | ({".gitignore"} & names)


def test_the_metadata_match_the_project_configuration(built: tuple[Path, Path]) -> None:
    """License, classifiers, extras and entry points are complete."""
    with zipfile.ZipFile(built[0]) as wheel:
        info = next(name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        entries = wheel.read(f"{info}/entry_points.txt").decode()
        names = wheel.namelist()
    assert metadata["License-Expression"] == PROJECT["license"]
    licenses = metadata.get_all("License-File", [])
    assert len(licenses) == 3  # of the package, swagger-ui and htmx
    assert {f"{info}/licenses/{name}" for name in licenses} <= set(names)
    assert metadata.get_all("Classifier", []) == PROJECT["classifiers"]
    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"]) == set(EXTRA_MODULES)
    assert "heksher-client = heksher_client.cli:main" in entries
    assert "heksher_client = heksher_client.pytest_plugin" in entries


def test_distributions_pass_the_checks_of_pypi(built: tuple[Path, Path]) -> None:
    """The description renders, and the wheel contains no unexpected files."""
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], check=True)
    # W002, duplicate files: licenses are in the package and in the metadata.
    check = [str(Path(sys.executable).with_name("check-wheel-contents")), "--ignore", "W002"]
    subprocess.run([*check, str(built[0])], check=True)


def create_environment(directory: Path, wheel: Path, extra: str = "") -> Path:
    """Create a virtual environment with the wheel, and return its interpreter."""
    venv.create(directory)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "-q", "--no-compile", f"{wheel}{extra}"], check=True)
    return python


def run(python: Path, *arguments: str) -> str:
    """Run an interpreter outside the source directory, and return its output."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(python), *arguments], cwd=python.parent, env=env, check=True, capture_output=True, text=True
    )
    return result.stdout


def test_an_installation_without_extras_has_few_dependencies(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Clients and stubs work. A command without its extra names the extra."""
    python = create_environment(tmp_path / "core", built[0])
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    listed = subprocess.run([*pip, "list", "--format", "json"], check=True, capture_output=True, text=True)
    installed = {package["name"].lower().replace("-", "_") for package in json.loads(listed.stdout)}
    assert {"heksher_client", "httpx"} < installed <= CORE
    code = (
        "from heksher_client import AsyncHeksherClient, Setting, ThreadHeksherClient\n"
        "from heksher_client.testing import SyncStubHeksherClient\n"
        "setting = Setting('s', int, ['user'], 7)\n"
        "with SyncStubHeksherClient() as stub:\n"
        "    stub[setting].rules = 8\n"
        "    print(setting.get(user='jim'))\n"
    )
    assert run(python, "-c", code) == "8\n"
    command = subprocess.run([str(python.with_name("heksher-client"))], capture_output=True, text=True, check=False)
    assert (command.returncode, "heksher_client[cli,service]" in command.stderr) == (1, True)


def test_the_bill_of_materials_covers_all_extras(built: tuple[Path, Path], tmp_path: Path) -> None:
    """It has no build or test dependencies. The file is `.cache/sbom.json`."""
    python = create_environment(tmp_path / "all", built[0], f"[{','.join(sorted(EXTRA_MODULES))}]")
    bill = ROOT / ".cache" / "sbom.json"
    bill.parent.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", "--output-file", str(bill)]
    subprocess.run([*command, str(python)], check=True, capture_output=True)
    listed = {component["name"].lower().replace("-", "_") for component in json.loads(bill.read_text())["components"]}
    extras = {re.split(r"[^\w-]", need)[0] for needs in PROJECT["optional-dependencies"].values() for need in needs}
    assert {"heksher_client", "httpx", *(name.replace("-", "_") for name in extras)} <= listed
    assert listed & {"build", "cyclonedx_bom", "pip", "pytest", "twine"} == set()


@pytest.mark.parametrize("extra", sorted(EXTRA_MODULES))
def test_an_extra_installs_the_dependencies_of_its_modules(
    extra: str, built: tuple[Path, Path], tmp_path: Path
) -> None:
    """Each extra is sufficient alone."""
    python = create_environment(tmp_path / extra, built[0], f"[{extra}]")
    assert run(python, "-c", f"import {EXTRA_MODULES[extra]}; print('imported')") == "imported\n"
