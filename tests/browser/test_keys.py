"""The console without a pointer: keys, and the tasks of an operator with the keyboard alone."""

from typing import Any

import pytest

from heksher_client.service import LocalService
from tests.support.chromium import needs_chromium, screenshot
from tests.support.http import http_request

pytestmark = [pytest.mark.browser, needs_chromium]


def focused(page: Any, attribute: str = "id") -> str:
    """Return an attribute of the element that has the focus."""
    return str(page.evaluate(f"document.activeElement.getAttribute('{attribute}')"))


def wait_for_focus(page: Any, element_id: str) -> None:
    """Wait until an element has the focus, which a new page gives it after it is shown."""
    page.wait_for_function("id => document.activeElement.id === id", arg=element_id)


def tab_to(page: Any, selector: str, *, backwards: bool = False) -> None:
    """Press Tab until an element has the focus, which must then be visible."""
    for _ in range(40):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            return
    raise AssertionError(f"{selector} cannot be reached with Tab")


def test_an_operator_finds_a_setting_adds_a_rule_explains_a_value_and_undoes_the_change(
    page: Any, service: LocalService
) -> None:
    """With the keyboard alone."""
    page.goto("/console")
    page.keyboard.press("/")
    page.keyboard.type("cache_s")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Search").wait_for()
    tab_to(page, "main h2 a")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="cache_size").wait_for()
    tab_to(page, "[id='if-user']")
    page.keyboard.type("zoe")
    tab_to(page, "#value")
    page.keyboard.press("Control+A")
    page.keyboard.type("77")
    page.keyboard.press("Enter")
    page.locator("#done", has_text="Rule added").wait_for()
    wait_for_focus(page, "done")
    tab_to(page, "[id='on-user']")
    page.keyboard.type("zoe")
    page.get_by_text("rule 5 wins").wait_for()
    tab_to(page, "#done button", backwards=True)
    page.keyboard.press("Enter")
    page.locator("#done", has_text="Rule deleted").wait_for()
    assert http_request("GET", f"{service.url}/api/v1/rules/5").status_code == 404


def test_keys_go_to_pages_and_rows(page: Any) -> None:
    """Also after htmx has replaced the page."""
    page.goto("/console")
    page.evaluate("window.isTheSamePage = true")
    page.keyboard.press("g")
    page.keyboard.press("c")
    page.get_by_role("heading", name="Changes").wait_for()
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.get_by_role("heading", name="Settings").wait_for()
    names = []
    for key in ("j", "j", "ArrowDown", "k", "ArrowUp"):
        page.keyboard.press(key)
        names.append(page.evaluate("document.activeElement.textContent"))
    assert names == ["cache_size", "enabled", "greeting", "enabled", "cache_size"]
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="cache_size").wait_for()
    assert page.evaluate("window.isTheSamePage")


def test_arrows_scroll_unless_a_row_has_the_focus(page: Any) -> None:
    page.goto("/console")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement === document.body")


def test_the_search_field_is_left_with_escape(page: Any) -> None:
    """Keys are text in a field, and with modifiers they belong to the browser."""
    page.goto("/console")
    page.keyboard.press("/")
    wait_for_focus(page, "search")
    page.keyboard.type("g/j?")
    assert page.locator("#search").input_value() == "g/j?"
    page.keyboard.press("Escape")
    assert focused(page) != "search"
    page.keyboard.press("Control+/")
    assert focused(page) != "search"
    page.keyboard.press("g")
    page.keyboard.press("x")  # no page has this key
    assert page.get_by_role("heading", name="Settings").is_visible()


def test_a_dialog_shows_the_keys_and_turns_them_off(page: Any) -> None:
    """Speech input can type them by accident."""
    page.goto("/console")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    dialog.wait_for()
    assert "Go to changes" in dialog.inner_text()
    screenshot(page, "keys")
    page.keyboard.press("j")
    assert dialog.is_visible()
    dialog.get_by_label("Use these keys").uncheck()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.keyboard.press("/")
    assert focused(page) != "search"
    page.get_by_role("button", name="Keys").click()
    dialog.get_by_label("Use these keys").check()
    dialog.get_by_role("button", name="Close").click()
    page.keyboard.press("/")
    wait_for_focus(page, "search")


def test_times_are_those_of_the_reader(chromium: Any, service: LocalService) -> None:
    """With the time in UTC as a tooltip, and also on pages that htmx loads."""
    http_request("PUT", f"{service.url}/api/v1/rules/1/value", json={"value": 201}).raise_for_status()
    context = chromium.new_context(base_url=service.url, timezone_id="Asia/Kolkata")
    page = context.new_page()
    page.goto("/console")
    page.get_by_role("link", name="Changes").click()
    page.get_by_role("heading", name="Changes").wait_for()
    time = page.locator("time").first
    page.wait_for_function("document.querySelector('time').title")
    in_utc, local = time.get_attribute("title"), time.inner_text()
    assert in_utc.endswith(" UTC")
    assert local.endswith(" GMT+5:30")
    elapsed = page.evaluate(
        "([local, utc]) => Date.parse(local + 'Z') - Date.parse(utc + 'Z')",
        [local.removesuffix(" GMT+5:30").replace(" ", "T"), in_utc.removesuffix(" UTC").replace(" ", "T")],
    )
    assert elapsed == 5.5 * 3_600_000
    context.close()


def test_periods_are_shown_in_the_time_of_the_reader_and_entered_in_utc(chromium: Any, service: LocalService) -> None:
    """The form shows the reader's time below what is entered."""
    period = {"starts_at": None, "ends_at": "2999-12-01T09:30:00Z"}
    http_request("PUT", f"{service.url}/api/v1/rules/1/period", json=period).raise_for_status()
    context = chromium.new_context(base_url=service.url, timezone_id="Asia/Kolkata")
    page = context.new_page()
    page.goto("/console/settings/cache_size")
    until = page.get_by_text("until 2999-12-01 15:00:00 GMT+5:30")
    until.wait_for()
    assert until.locator("time").get_attribute("title") == "2999-12-01 09:30:00 UTC"
    page.get_by_role("link", name="Edit rule 1", exact=True).click()
    page.get_by_label("Until UTC").wait_for()
    shown = page.locator("output[for=ends_at]")
    assert (page.get_by_label("Until UTC").input_value(), shown.inner_text()) == (
        "2999-12-01T09:30", "2999-12-01 15:00 GMT+5:30",
    )  # fmt: skip
    page.get_by_label("Until UTC").fill("2999-12-01T20:00")
    assert shown.inner_text() == "2999-12-02 01:30 GMT+5:30"
    page.get_by_label("Until UTC").fill("")
    assert shown.inner_text() == ""
    context.close()
