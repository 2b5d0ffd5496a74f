"""Declarations that need not be sent, as the service has the setting already."""

from typing import Any

import pytest

from heksher_client import Setting, SettingData
from heksher_client._core.refresh.declarations import is_up_to_date
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


def test_a_setting_that_the_service_has_like_this_is_up_to_date() -> None:
    """In any order of features and metadata. The service may have more aliases."""
    assert is_up_to_date(entry_of(setting()), SettingData(**KNOWN))
    assert is_up_to_date(
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
def test_a_setting_with_any_difference_is_declared(difference: dict[str, Any]) -> None:
    """The service then decides what the difference means. Values that differ in JSON only count as different."""
    assert not is_up_to_date(entry_of(setting()), SettingData(**KNOWN | difference))


def test_an_unlisted_setting_is_declared() -> None:
    """It is new, or has another name there."""
    assert not is_up_to_date(entry_of(setting()), None)
