"""Tests of a program that reads settings: run them with `pytest`."""

import pytest

from heksher_client import Setting, ThreadHeksherClient
from heksher_client.pytest_plugin import HeksherService
from heksher_client.testing import Rule, SyncStubHeksherClient

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


def room_for(items: int) -> bool:
    """The program under test."""
    return items <= cache_size.get()


# [marks]
@pytest.mark.settings(cache_size=5)
@pytest.mark.settings_context(environment="prod", user="jim")
def test_a_small_cache_is_full_soon() -> None:
    assert room_for(5)
    assert not room_for(6)


# [fixture]
def test_jim_has_more_room(heksher: SyncStubHeksherClient) -> None:
    heksher.set_defaults(environment="prod", user="jim")
    heksher[cache_size].rules = [Rule({"user": "jim"}, 200), Rule({}, 50)]
    assert room_for(200)
    assert cache_size.get(user="ann") == 50


# [service]
def test_with_a_real_service(heksher_service: HeksherService) -> None:
    with ThreadHeksherClient(
        heksher_service.url, 60, heksher_service.context_features
    ) as client:
        client.set_defaults(environment="prod", user="jim")
        assert not room_for(200)
        heksher_service.add_rule(cache_size, 200, user="jim")
        client.reload()
        assert room_for(200)


# [stub]
def test_without_the_plugin() -> None:
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(environment="prod", user="jim")
        stub[cache_size].rules = 3
        assert not room_for(4)
