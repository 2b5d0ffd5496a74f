"""The pictures of the console in the documentation."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heksher_client.service import LocalService
from tests.support.chromium import SCREENSHOTS, needs_chromium
from tests.support.http import http_request

pytestmark = [pytest.mark.browser, needs_chromium]

IMAGES = Path(__file__).parents[2] / "docs" / "images"


@pytest.fixture
def service() -> Iterator[LocalService]:
    """A service with the setting and the rules of the tutorial."""
    features = ["environment", "user"]
    with LocalService(features) as service:
        body = {"name": "cache_size", "type": "int", "default_value": 10, "configurable_features": features}
        http_request("POST", f"{service.url}/api/v1/settings/declare", json=body).raise_for_status()
        for conditions, value in (({"environment": "prod", "user": "jim"}, 200), ({"environment": "prod"}, 50)):
            rule = {"setting": "cache_size", "feature_values": conditions, "value": value}
            http_request("POST", f"{service.url}/api/v1/rules", json=rule).raise_for_status()
        yield service


@pytest.mark.parametrize(
    ("name", "width", "height", "context"),
    [("console", 1280, 1020, "?on.environment=prod&on.user=jim"), ("console-phone", 390, 1020, "")],
)
def test_a_picture_shows_the_present_console(name: str, width: int, height: int, context: str, page: Any) -> None:
    """The file beside the picture has the text of the page, without times and versions.

    If the page has changed, take the pictures again: `SCREENSHOTS=docs/images tox run -e console -- -k picture`.
    """
    page.set_viewport_size({"width": width, "height": height})
    page.goto(f"/console/settings/cache_size{context}")
    page.get_by_text("Last changes").wait_for()
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?( UTC)?", "TIME", page.locator("main").inner_text())
    text = re.sub(r"\s*\n\s*", "\n", text).strip() + "\n"
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")
        (Path(SCREENSHOTS) / f"{name}.txt").write_text(text)
    assert text == (IMAGES / f"{name}.txt").read_text()
