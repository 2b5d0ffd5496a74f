"""Commands as a user runs them: each in a process, with a real service."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import COMMAND, FEATURES, Outcome, Run, environment
from tests.support.service import WatchedService


@pytest.fixture
def command_environment(tmp_path: Path) -> dict[str, str]:
    """Environment variables of a user with an empty home directory."""
    return environment(HOME=str(tmp_path), HEKSHER_CONFIG=str(tmp_path / "heksher.toml"), COLUMNS="120")


@pytest.fixture
def shop() -> Iterator[WatchedService]:
    """A service with two settings and three rules, which offers a change stream."""
    with WatchedService(FEATURES) as service:
        service.offers_changes = True
        service.declare("cache_size", "int", 10, list(FEATURES))
        service.declare("shop.color", "str", "red", ["user"], metadata={"owner": "jane"})
        service.add_rule("cache_size", 200, user="jim", environment="prod")
        service.add_rule("cache_size", 100, user="jim")
        service.add_rule("cache_size", 50, environment="prod")
        yield service


@pytest.fixture
def run(command_environment: dict[str, str], shop: WatchedService, tmp_path: Path) -> Run:
    """Run a command. The configuration file has one profile, for the service `shop`."""
    (tmp_path / "heksher.toml").write_text(
        f'[profiles.shop]\nurl = "{shop.url}"\ncontext_features = ["environment", "user"]\n'
        'defaults = { environment = "prod" }\n'
    )

    def run(*arguments: str, **variables: str) -> Outcome:
        completed = subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**command_environment, **variables},
            cwd=tmp_path,
        )
        return Outcome(completed.returncode, completed.stdout, completed.stderr)

    return run
