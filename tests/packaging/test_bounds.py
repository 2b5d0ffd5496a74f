"""The lowest supported versions of dependencies: the tested versions are the declared ones."""

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRAMEWORKS = "celery|django|flask|python-json-logger|structlog"
"""Packages that programs use together with this one, which does not depend on them."""


def test_the_lowest_tested_versions_are_the_declared_ones() -> None:
    """`tox run -e lowest` installs `.ci/lowest.txt`."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = content["project"], content["dependency-groups"]
    declared: dict[str, str] = {}
    others = [
        line
        for line in (*groups["test"], *groups["frameworks"])
        if isinstance(line, str) and re.match(FRAMEWORKS, line)
    ]
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values(), others):
        found = re.fullmatch(r"([a-z0-9-]+)(?:\[[a-z]+\])?>=([0-9.]+)", requirement)
        assert found, requirement
        name, version = found.groups()
        assert declared.setdefault(name, version) == version, requirement
    lines = (ROOT / ".ci" / "lowest.txt").read_text().split()
    assert lines == [f"{name}=={version}" for name, version in sorted(declared.items())]
