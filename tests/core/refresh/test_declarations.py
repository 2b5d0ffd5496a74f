"""Comparison of declarations with the settings that the service lists, to skip declarations that are up to date."""

from typing import Any

import pytest

from heksher_client import Setting, SettingData
from heksher_client._core.refresh.declarations import is_up_to_date
from heksher_client._core.settings.setting import entry_of

LISTED: dict[str, Any] = {
    "name": "s",
    "configurable_features": ["environment", "user"],
    "type": "float",
    "default_value": 1.0,
    "metadata": {"a": 1, "b": [2]},
    "aliases": ["former", "older"],
    "version": "1.0",
}


def make_setting() -> Setting[float]:
    return Setting("s", float, ["user", "environment"], 1.0, {"b": [2], "a": 1}, alias="former")


def test_a_setting_that_is_listed_without_a_difference_is_up_to_date() -> None:
    """The order of features and metadata does not matter. The service may have more aliases."""
    assert is_up_to_date(entry_of(make_setting()), SettingData(**LISTED))
    assert is_up_to_date(
        entry_of(Setting("s", float, ["user", "environment"], 1.0, {"a": 1, "b": [2]})), SettingData(**LISTED)
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
    """The service decides what the difference means. Defaults are compared as JSON, so 1 and 1.0 differ."""
    assert not is_up_to_date(entry_of(make_setting()), SettingData(**LISTED | difference))


def test_an_unlisted_setting_is_declared() -> None:
    """It is new, or listed under another name."""
    assert not is_up_to_date(entry_of(make_setting()), None)
