"""Commands as a user runs them, with a real service."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.commands import FEATURES, Outcome, Run, environment, run_in_process, run_process
from tests.support.service import WatchedService


@pytest.fixture
def command_environment(tmp_path: Path) -> dict[str, str]:
    """Environment variables of a user with an empty home directory."""
    return environment(HOME=str(tmp_path), HEKSHER_CONFIG=str(tmp_path / "heksher.toml"), COLUMNS="120")


@pytest.fixture(scope="session")
def _session_shop() -> Iterator[WatchedService]:
    with WatchedService(FEATURES) as service:
        yield service


@pytest.fixture
def shop(_session_shop: WatchedService) -> WatchedService:
    """A service with two settings and three rules, which offers a change stream. Tests must not stop it."""
    service = _session_shop
    service.reset(offers_changes=True)
    service.declare("cache_size", "int", 10, list(FEATURES))
    service.declare("shop.color", "str", "red", ["user"], metadata={"owner": "jane"})
    service.add_rule("cache_size", 200, user="jim", environment="prod")
    service.add_rule("cache_size", 100, user="jim")
    service.add_rule("cache_size", 50, environment="prod")
    return service


@pytest.fixture
def profile(shop: WatchedService, tmp_path: Path) -> None:
    """A configuration file with one profile, for the service `shop`."""
    (tmp_path / "heksher.toml").write_text(
        f'[profiles.shop]\nurl = "{shop.url}"\ncontext_features = ["environment", "user"]\n'
        'defaults = { environment = "prod" }\n'
    )


@pytest.fixture
def run(profile: None, command_environment: dict[str, str], tmp_path: Path) -> Run:
    """Run a command in this process, with `profile`."""
    return partial(_run, run_in_process, command_environment, tmp_path)


@pytest.fixture
def run_separately(profile: None, command_environment: dict[str, str], tmp_path: Path) -> Run:
    """Run a command in a separate process, with `profile`."""
    return partial(_run, run_process, command_environment, tmp_path)


def _run(run: Run, env: dict[str, str], directory: Path, /, *arguments: str, **variables: str) -> Outcome:
    return run(arguments, env | variables, directory)
