"""The lists of the console in Chromium: the address of their state, and their size."""

from typing import Any

import pytest

from heksher_client.service import LocalService
from tests.support.chromium import needs_chromium
from tests.support.http import http_request

pytestmark = [pytest.mark.browser, needs_chromium]


def test_filters_of_settings_are_in_the_address(page: Any) -> None:
    """Only those in use. The browser goes back to the former ones, and the list can be sorted."""
    page.goto("/console")
    page.get_by_label("Feature or condition").press_sequentially("user=jim")
    page.get_by_text("1 setting matching").wait_for()
    page.wait_for_url("**/console?feature=user%3Djim")
    page.get_by_label("Type").select_option("int")
    page.wait_for_url("**/console?feature=user%3Djim&type=int")
    page.go_back()
    page.wait_for_function("document.querySelector('[name=type]').value === ''")  # The former page is back.
    assert page.url.endswith("/console?feature=user%3Djim")
    assert page.get_by_label("Feature or condition").input_value() == "user=jim"
    page.get_by_role("link", name="Rules", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/console?feature=user%3Djim&sort=rules")
    page.locator("th[aria-sort=ascending]", has_text="Rules").wait_for()
    assert page.evaluate("document.activeElement.id") == "sort-rules"
    assert page.get_by_label("Feature or condition").input_value() == "user=jim"


@pytest.mark.parametrize(
    ("path", "name", "text"),
    [
        ("/console", "q", "cache"),
        ("/console/settings/cache_size", "on.environment", "prod"),
        ("/console/changes", "q", "cache_size"),
        ("/console/search", "q", "jim"),
    ],
)
def test_typing_adds_no_entries_to_the_history(page: Any, path: str, name: str, text: str) -> None:
    """The browser goes back to the page before, and the address has what was typed."""
    page.goto("/console/features")
    page.goto(path)
    before = page.evaluate("history.length")
    for part in (text[:2], text[2:]):
        with page.expect_response(lambda response: path in response.url):
            page.locator(f'main input[name="{name}"]').press_sequentially(part)
    page.wait_for_url(f"**{path}?{name}={text}")
    assert page.evaluate("history.length") == before
    page.go_back()
    page.wait_for_url("**/console/features")


def test_the_explanation_and_the_filters_of_rules_share_the_address(page: Any, service: LocalService) -> None:
    """A rule that is added keeps both."""
    for number in range(10):
        body = {"setting": "cache_size", "feature_values": {"user": f"u{number}"}, "value": number}
        http_request("POST", f"{service.url}/api/v1/rules", json=body).raise_for_status()
    page.goto("/console/settings/cache_size")
    page.locator("#on-user").press_sequentially("jim")
    page.get_by_text("rule 1 wins").wait_for()
    page.get_by_label("Search conditions").press_sequentially("user=u")
    page.get_by_text("10 of 14 rules").wait_for()
    page.get_by_label("Show rules that do not match").check()
    page.wait_for_url("**/cache_size?on.user=jim&others=1&find=user%3Du")
    page.locator("#why tr.does-not-match").first.wait_for()
    add = page.locator("#add")
    add.get_by_label("user").fill("u99")
    add.get_by_role("button", name="Add rule").click()
    page.locator("#done", has_text="Rule added").wait_for()
    page.get_by_text("11 of 15 rules").wait_for()
    assert page.locator("#on-user").input_value() == "jim"
    assert page.get_by_label("Search conditions").input_value() == "user=u"


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("path", ["/console/changes", "/console/settings/cache_size"])
def test_the_undo_buttons_are_visible(chromium: Any, service: LocalService, width: int, path: str) -> None:
    """Without scrolling sideways, even if a name or a value is long."""
    body = {"setting": "greeting", "feature_values": {"user": "x" * 200}, "value": "y" * 500}
    http_request("POST", f"{service.url}/api/v1/rules", json=body).raise_for_status()
    context = chromium.new_context(base_url=service.url, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(path)
    boxes = [button.bounding_box() for button in page.get_by_role("button", name="Undo revision").all()]
    assert boxes
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()


def test_a_phone_shows_the_value_and_the_number_of_rules(chromium: Any, service: LocalService) -> None:
    """Of each setting in the list."""
    context = chromium.new_context(base_url=service.url, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto("/console")
    cells = page.locator("tr", has_text="cache_size").locator("td:visible")
    assert cells.all_inner_texts() == ["10", "4"]
    for cell in cells.all():
        box = cell.bounding_box()
        assert box["x"] + box["width"] <= 390
    context.close()


@pytest.mark.parametrize("setting", ["cache_size", "greeting"])
def test_a_phone_shows_the_whole_form_that_changes_a_value(chromium: Any, service: LocalService, setting: str) -> None:
    """Without scrolling sideways, also beside a rule with several conditions."""
    conditions = {"environment": "production", "user": "jim", "theme": "dark"}
    body = {"setting": "greeting", "feature_values": conditions, "value": "a long greeting for jim and others"}
    http_request("POST", f"{service.url}/api/v1/rules", json=body).raise_for_status()
    context = chromium.new_context(base_url=service.url, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"/console/settings/{setting}")
    row = page.locator("table.rules tbody tr").first
    row.locator(".actions summary").click()
    for box in [each.bounding_box() for each in row.locator("form :is(input, textarea, button):visible").all()]:
        assert (box["x"] >= 0, box["x"] + box["width"] <= 390) == (True, True)
    assert page.evaluate(
        "(table => table.scrollWidth <= table.clientWidth)(document.querySelector('.scroll:has(.rules)'))"
    )
    context.close()
