"""Declarations: which of them the service need not be sent."""

from typing import Any

import pytest

from heksher_client import Setting, SettingData
from heksher_client._core.refresh.declarations import is_settled
from heksher_client._core.settings.setting import entry_of

KNOWN: dict[str, Any] = {
    "name": "s",
    "configurable_features": ["environment", "user"],
    "type": "float",
    "default_value": 1.0,
    "metadata": {"a": 1, "b": [2]},
    "aliases": ["former", "older"],
    "version": "1.0",
}


def setting() -> Setting[float]:
    return Setting("s", float, ["user", "environment"], 1.0, {"b": [2], "a": 1}, alias="former")


def test_a_setting_that_the_service_has_like_this_is_settled() -> None:
    """Whatever the order of features and metadata; the service may know more aliases."""
    assert is_settled(entry_of(setting()), SettingData(**KNOWN))
    assert is_settled(
        entry_of(Setting("s", float, ["user", "environment"], 1.0, {"a": 1, "b": [2]})), SettingData(**KNOWN)
    )


@pytest.mark.parametrize(
    "difference",
    [
        {"name": "canonical"},
        {"configurable_features": ["environment"]},
        {"type": "int"},
        {"default_value": 2.0},
        {"default_value": 1},
        {"default_value": True},
        {"default_value": 10**30},
        {"metadata": {"a": 1}},
        {"aliases": []},
        {"version": "1.1"},
        {"configurable_features": [["user"], 5]},
    ],
)
def test_a_setting_that_differs_in_anything_is_declared(difference: dict[str, Any]) -> None:
    """The service then says what the difference means; what to JSON is another value counts as one."""
    assert not is_settled(entry_of(setting()), SettingData(**KNOWN | difference))


def test_a_setting_that_the_service_does_not_list_is_declared() -> None:
    """It is new, or known by another name."""
    assert not is_settled(entry_of(setting()), None)
