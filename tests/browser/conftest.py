"""Chromium, and the service whose console it shows."""

from collections.abc import Iterator
from typing import Any

import pytest

from heksher_client.service import LocalService
from tests.support.chromium import CHROMIUM, FEATURES, SCREENSHOTS, add_settings_and_rules


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Other names than localhost are not trustworthy to browsers over http, so they send no Sec-Fetch-Site. This
            # browser would ask the user whether a page may send requests to this machine; others do not.
            args=[
                *quiet,
                "--disable-sync",
                "--no-first-run",
                "--host-resolver-rules=MAP *.test 127.0.0.1",
                "--disable-features=LocalNetworkAccessChecks",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def service() -> Iterator[LocalService]:
    with LocalService(FEATURES) as held:
        add_settings_and_rules(held.url)
        yield held


@pytest.fixture
def page(chromium: Any, service: LocalService) -> Iterator[Any]:
    """A page whose scripts raise no errors, and which does not violate its content security policy."""
    context = chromium.new_context(base_url=service.url)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on(
        "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
    )
    yield opened
    context.close()
    # The browser also logs refused and failed requests. Playwright adds inline styles for screenshots.
    expected = [
        "status of 409",
        "status of 422",
        "ERR_CONNECTION_REFUSED",
        "htmx:",
        *(["inline style"] if SCREENSHOTS else []),
    ]
    assert [problem for problem in problems if not any(text in problem for text in expected)] == []
