"""Configuration files that repeat each other agree."""

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

yaml: Any = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_pre_commit_hooks_install_requirements_of_the_lint_group() -> None:
    """So that a commit and `tox run -e lint` are checked by the same versions."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["lint"]
    hooks = [hook for repository in load(".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    for hook in hooks:
        (requirement,) = hook["additional_dependencies"]
        assert requirement in group, hook["id"]
        assert re.split("[^a-z-]", requirement)[0] == hook["entry"].split()[0], hook["id"]


def test_read_the_docs_installs_what_tox_installs_for_the_documentation() -> None:
    """The same extras and the same dependency group."""
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini")
    docs = config["testenv:docs"]
    install = load(".readthedocs.yaml")["build"]["jobs"]["install"][-1]
    extras = docs["extras"].replace(" ", "")
    assert install.endswith(f'--editable ".[{extras}]" --group {docs["dependency_groups"]}')


def test_the_ci_workflow_runs_each_environment_of_ci_run() -> None:
    """Except builds without the global interpreter lock, for which orjson has no wheels."""
    lists = re.findall(r"^ *environments=(\S+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    local = set(",".join(lists).split(",")) - {"$environments", "py313t", "py314t"}
    assert len(local) > 10
    matrix = load(".github/workflows/ci.yml")["jobs"]["tox"]["strategy"]["matrix"]["include"]
    environments = [job["environment"] for job in matrix]
    assert len(set(environments)) == len(environments)
    # The workflow has time for all tests on each version of Python.
    assert {re.sub("^(py[0-9]+)-short$", r"\1", environment) for environment in local} <= set(environments)
