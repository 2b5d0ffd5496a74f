"""The console in Chromium: the service that its tests use, and screenshots."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import http_request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FEATURES = ["environment", "user", "theme"]
SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder for screenshots of the tested pages."""


def declare(url: str, name: str, type_: str, default: Any, **attributes: Any) -> None:
    body = {"name": name, "type": type_, "default_value": default, "configurable_features": FEATURES, **attributes}
    http_request("POST", f"{url}/api/v1/settings/declare", json=body).raise_for_status()


def add_settings_and_rules(url: str) -> None:
    """Add a setting of each kind of type, and four rules for the first one."""
    for name, type_, default in (
        ("cache_size", "int", 10), ("plan", 'Enum["free","pro"]', "free"), ("steps", 'Flags["a","b"]', ["a"]),
        ("hosts", "Mapping<str>", {}), ("enabled", "bool", True), ("greeting", "str", "Hello"),
    ):  # fmt: skip
        declare(url, name, type_, default)
    for conditions, value in (
        ({"user": "jim"}, 200),
        ({"environment": "prod"}, 500),
        ({"environment": "prod", "user": "ann"}, 700),
        ({"theme": "dark"}, 5),
    ):
        rule = {"setting": "cache_size", "feature_values": conditions, "value": value}
        http_request("POST", f"{url}/api/v1/rules", json=rule).raise_for_status()


def screenshot(page: Any, name: str) -> None:
    """Take a screenshot of a page, if the environment variable names a folder for them."""
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)
