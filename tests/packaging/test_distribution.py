"""What is published: built, looked into, and installed where nothing else is. `tox run -e package` runs these."""

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
"""All that may be there after an installation without extras; some depend on the version of Python."""
NEEDS = {
    "cli": "heksher_client.cli.watch",
    "login": "heksher_client.profiles._oauth_login",
    "oauth": "heksher_client.credentials, heksher_client._auth.oauth",
    "openfeature": "heksher_client.openfeature",
    "postgresql": "psycopg",
    "profiles": "heksher_client.profiles._connect",
    "service": "heksher_client.service, heksher_client.service.migrations",
    "telemetry": "heksher_client.telemetry",
}
"""What each extra is for."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, which is made out of the sdist, and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(listed.stdout.split())


def test_the_wheel_has_the_whole_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    """The mark for type checkers, the pages of the console and the migrations included."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == tracked("heksher_client")
    assert "heksher_client/py.typed" in names


def test_the_sdist_has_all_that_it_takes_to_test_it(built: tuple[Path, Path]) -> None:
    """Sources, tests, documentation, benchmarks and what runs them."""
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames() if sdist.getmember(name).isfile()}
    assert names - {"PKG-INFO"} == tracked() - {".gitignore"} | ({".gitignore"} & names)


def test_the_metadata_say_what_the_project_says(built: tuple[Path, Path]) -> None:
    """Also to those who never see its configuration."""
    with zipfile.ZipFile(built[0]) as wheel:
        info = next(name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        entries = wheel.read(f"{info}/entry_points.txt").decode()
        names = wheel.namelist()
    assert metadata["License-Expression"] == PROJECT["license"]
    licences = metadata.get_all("License-File", [])
    assert len(licences) == 3  # its own, that of swagger-ui and that of htmx
    assert {f"{info}/licenses/{name}" for name in licences} <= set(names)
    assert metadata.get_all("Classifier", []) == PROJECT["classifiers"]
    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"]) == set(NEEDS)
    assert "heksher-client = heksher_client.cli:main" in entries
    assert "heksher_client = heksher_client.pytest_plugin" in entries


def test_distributions_pass_the_checks_of_the_index(built: tuple[Path, Path]) -> None:
    """The description renders, and the wheel has nothing that does not belong into one."""
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], check=True)
    # Duplicates there are: licences lie beside what they are for, and where the metadata say.
    check = [str(Path(sys.executable).with_name("check-wheel-contents")), "--ignore", "W002"]
    subprocess.run([*check, str(built[0])], check=True)


def environment(folder: Path, wheel: Path, extra: str = "") -> Path:
    """The interpreter of a new virtual environment with the wheel in it."""
    venv.create(folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "-q", "--no-compile", f"{wheel}{extra}"], check=True)
    return python


def run(python: Path, *arguments: str) -> str:
    """What something prints there, away from the sources."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [str(python), *arguments], cwd=python.parent, env=env, check=True, capture_output=True, text=True
    )
    return ran.stdout


def test_without_extras_there_are_the_few_that_the_core_needs(built: tuple[Path, Path], tmp_path: Path) -> None:
    """And the clients and stubs work; what needs an extra names it."""
    python = environment(tmp_path / "core", built[0])
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


def test_the_bill_of_materials_is_of_an_installation_with_all_extras(built: tuple[Path, Path], tmp_path: Path) -> None:
    """And of nothing that only builds or tests it. It is left in `.cache/sbom.json`."""
    python = environment(tmp_path / "all", built[0], f"[{','.join(sorted(NEEDS))}]")
    bill = ROOT / ".cache" / "sbom.json"
    bill.parent.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", "--output-file", str(bill)]
    subprocess.run([*command, str(python)], check=True, capture_output=True)
    listed = {component["name"].lower().replace("-", "_") for component in json.loads(bill.read_text())["components"]}
    extras = {re.split(r"[^\w-]", need)[0] for needs in PROJECT["optional-dependencies"].values() for need in needs}
    assert {"heksher_client", "httpx", *(name.replace("-", "_") for name in extras)} <= listed
    assert listed & {"build", "cyclonedx_bom", "pip", "pytest", "twine"} == set()


@pytest.mark.parametrize("extra", sorted(NEEDS))
def test_an_extra_brings_all_that_its_part_needs(extra: str, built: tuple[Path, Path], tmp_path: Path) -> None:
    """By itself."""
    python = environment(tmp_path / extra, built[0], f"[{extra}]")
    assert run(python, "-c", f"import {NEEDS[extra]}; print('here')") == "here\n"
