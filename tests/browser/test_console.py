"""The console in Chromium, with its scripts."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from heksher_client import Setting
from heksher_client.cli import main
from heksher_client.service import LocalService, create_app
from tests.support.chromium import FEATURES, declare, needs_chromium, screenshot
from tests.support.clients import ThreadClient, eventually
from tests.support.http import http_request

pytestmark = [pytest.mark.browser, needs_chromium]


def test_a_rule_is_added_explained_read_by_a_client_and_deleted(page: Any, service: LocalService) -> None:
    """Without loading a page again."""
    setting = Setting("cache_size", int, FEATURES, 10)
    with ThreadClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(environment="none", user="none", theme="none")
        page.goto("/console")
        page.evaluate("window.isTheSamePage = true")
        page.get_by_label("Search names").fill("cache")
        page.get_by_text("1 setting matching").wait_for()
        page.get_by_role("link", name="cache_size").click()
        page.get_by_role("heading", name="cache_size").wait_for()

        add = page.locator("#add")
        add.get_by_label("user").fill("jim")
        add.get_by_label("environment").fill("prod")
        add.get_by_label("Value").fill("300")
        add.get_by_role("button", name="Add rule").click()
        page.locator("#done", has_text="Rule added").wait_for()
        assert eventually(lambda: setting.get(user="jim", environment="prod") == 300)

        page.locator("#on-user").press_sequentially("jim")
        page.locator("#on-environment").press_sequentially("prod")
        page.get_by_text("rule 5 wins").wait_for()
        assert page.locator("#why tr.wins th").inner_text() == "5"
        assert "rule 5 has a condition on environment" in page.locator("#why").inner_text()
        screenshot(page, "setting")

        page.get_by_role("button", name="Delete rule 5").click()
        page.locator("#done", has_text="Rule deleted").wait_for()
        assert eventually(lambda: setting.get(user="jim", environment="prod") == 200)
        page.locator("#done").get_by_role("button", name="Undo").click()
        page.locator("#done", has_text="Rule added").wait_for()
        assert eventually(lambda: setting.get(user="jim", environment="prod") == 300)
        assert page.evaluate("window.isTheSamePage")


def test_the_api_page_shows_the_examples(page: Any) -> None:
    """The page loads nothing from other hosts."""
    page.goto("/docs")
    page.get_by_text("/api/v1/rules/search").wait_for()
    page.locator("#operations-default-search_rule_api_v1_rules_search_get").click()
    page.get_by_text("user:jim").first.wait_for()
    screenshot(page, "api")


def test_the_page_reports_that_the_service_is_not_responding(page: Any, service: LocalService) -> None:
    """Otherwise a change that was not made would go unnoticed."""
    page.goto("/console/settings/cache_size")
    service.stop()
    page.get_by_role("button", name="Delete rule 1").click()
    page.get_by_text("The service is not responding").wait_for()


def test_an_error_is_shown_next_to_its_input(page: Any) -> None:
    """The form keeps its content. The error of a new value is shown on the page of the rule."""
    page.goto("/console/settings/cache_size")
    add = page.locator("#add")
    add.get_by_label("user").fill("a\tb")
    add.get_by_label("Value").fill("many")
    add.get_by_role("button", name="Add rule").click()
    page.locator("#value-error").wait_for()
    assert page.locator("#value-error").inner_text() == "not a whole number"
    assert "without control characters" in page.locator("#if-user-error").inner_text()
    assert add.get_by_label("Value").input_value() == "many"
    assert add.get_by_label("Value").get_attribute("aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "if-user"
    screenshot(page, "bad-input")
    page.goto("/console/settings/cache_size")
    page.get_by_label("Change the value of rule 1").click()
    page.get_by_label("New value of rule 1").fill("x")
    page.locator("#rule-1").get_by_role("button", name="Save").click()
    page.get_by_role("heading", name="Rule 1").wait_for()
    assert page.locator("#value-error").inner_text() == "not a whole number"


@pytest.mark.parametrize(
    ("setting", "fill", "value"),
    [
        ("plan", lambda page: page.locator("#add").get_by_label("Value").select_option("pro"), "pro"),
        ("enabled", lambda page: page.locator("#add").get_by_label("Value").select_option("false"), False),
        ("steps", lambda page: page.locator("#add").get_by_label("b").check(), ["a", "b"]),
        ("hosts", lambda page: page.locator("#add").get_by_label("Value").fill('{"eu": "a"}'), {"eu": "a"}),
        ("greeting", lambda page: page.locator("#add").get_by_label("Value").fill(" Hi\nyou "), " Hi\nyou "),
    ],
)
def test_each_type_has_an_appropriate_input(
    page: Any, service: LocalService, setting: str, fill: Any, value: Any
) -> None:
    page.goto(f"/console/settings/{setting}")
    fill(page)
    page.locator("#add").get_by_label("user").fill("jim")
    page.get_by_role("button", name="Add rule").click()
    page.locator("#done", has_text="Rule added").wait_for()
    (rule,) = http_request("GET", f"{service.url}/api/v1/query?settings={setting}").json()["settings"][setting]["rules"]
    assert rule["value"] == value


def test_the_console_can_be_used_with_the_keyboard(page: Any, service: LocalService) -> None:
    """The focus is visible, and the first link skips the navigation."""
    page.goto("/console/settings/cache_size")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.locator("#if-environment").focus()
    page.keyboard.type("test")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("77")
    page.keyboard.press("Enter")
    page.locator("#done", has_text="Rule added").wait_for()
    page.locator("#done button").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.locator("#done", has_text="Rule deleted").wait_for()


def test_pages_are_accessible_to_screen_readers(page: Any) -> None:
    """Each input and button has a name, each table is in a named region, and updates are announced."""
    page.goto("/console/settings/cache_size?on.user=jim")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea, button, summary, a")]
            .filter(e => !(e.labels && e.labels.length) && !e.getAttribute("aria-label") && !e.textContent.trim())
            .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    for name in ("Rules", "Outcome of each rule", "Changes"):
        assert page.get_by_role("region", name=name, exact=True).count() == 1
    assert page.locator("[aria-live=polite]").count() == 2
    assert page.get_by_role("navigation", name="Main").count() == 1
    assert page.locator("h1").count() == 1
    assert page.locator("html").get_attribute("lang") == "en"


def test_login_and_logout(chromium: Any, tmp_path: Path) -> None:
    """With a token. Scripts cannot read the cookie."""
    database = tmp_path / "heksher.db"
    token = CliRunner().invoke(main, ["service", "token", "add", "ops", "--database", str(database)]).output.strip()
    with LocalService(FEATURES, database=database, access_control=True) as service:
        context = chromium.new_context(base_url=service.url)
        page = context.new_page()
        page.goto("/console/changes")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Changes").wait_for()
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("heading", name="Log in").wait_for()
        page.goto("/console")
        page.get_by_role("heading", name="Log in").wait_for()
        context.close()


_SEND_UNTYPED = """async url => {
    const body = new Blob([JSON.stringify({context_feature: "region"})])
    const response = await fetch(url, {method: "POST", mode: "no-cors", body}).catch(error => ({status: String(error)}))
    return response.status
}"""


@pytest.mark.parametrize(
    ("name", "sites"),
    [("127.0.0.1", ["same-site", "cross-site", "same-origin"]), ("settings.test", [None, None, None])],
)
def test_l2_only_pages_of_the_service_send_bodies_without_a_type(
    chromium: Any, name: str, sites: list[str | None]
) -> None:
    """A page of another site can send them as well. Over plain HTTP, browsers name its origin only."""
    with LocalService(FEATURES, access_control=False) as service, LocalService(FEATURES) as other:
        url = service.url.replace("127.0.0.1", name)
        context = chromium.new_context()
        page = context.new_page()
        headers: list[dict[str, str]] = []
        statuses: list[int] = []

        def send_from(page_url: str) -> list[str]:
            page.goto(page_url)
            with page.expect_response("**/context_features") as received:
                page.evaluate(_SEND_UNTYPED, f"{url}/api/v1/context_features")
            headers.append(received.value.request.all_headers())
            statuses.append(received.value.status)
            return list(http_request("GET", f"{service.url}/api/v1/context_features").json()["context_features"])

        for page_url in (f"{other.url}/api/health", "data:text/html,"):  # pages without a content security policy
            assert send_from(page_url) == FEATURES
        assert send_from(f"{url}/docs") == [*FEATURES, "region"]
        assert all("content-type" not in each for each in headers)
        assert [each.get("sec-fetch-site") for each in headers] == sites
        assert statuses == [403, 403, 204]
        context.close()


@pytest.mark.parametrize("root_path", ["", "/heksher"])
def test_l6_the_console_and_the_api_page_are_used_below_a_path_prefix(chromium: Any, root_path: str) -> None:
    """Also after an error, whose page has another address, and by links and searches without loading pages again."""
    with PrefixedService(root_path) as service:
        declare(service.url + root_path, "cache_size", "int", 10)
        context = chromium.new_context()
        page = context.new_page()
        failed: list[str] = []
        page.on("response", lambda response: failed.append(response.url) if response.status == 404 else None)
        page.goto(f"{service.url}{root_path}/console")
        page.get_by_label("Search names").fill("cache")
        page.get_by_text("1 setting matching").wait_for()
        page.get_by_role("link", name="cache_size").click()
        for value, seen in (("many", "#value-error"), ("300", "#done"), ("", "#value-error")):
            page.locator("#add").get_by_label("user").fill("jim")
            page.locator("#add").get_by_label("Value").fill(value)
            page.get_by_role("button", name="Add rule").click()
            page.locator(seen).wait_for()
        page.get_by_role("link", name="Settings", exact=True).first.click()
        page.get_by_text("1 setting", exact=True).wait_for()
        page.get_by_role("link", name="API").click()
        page.locator("#operations-default-health_api_health_get").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        page.get_by_text(f"{service.url}{root_path}/api/health", exact=True).first.wait_for()
        page.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
        assert failed == []
        context.close()


class PrefixedService(LocalService):
    """A service below a path prefix."""

    def __init__(self, root_path: str) -> None:
        super().__init__(FEATURES)
        self._root_path = root_path

    def _make_app(self, database_url: Any) -> Any:
        return create_app(database_url, FEATURES, root_path=self._root_path)


def test_l15_the_second_operator_sees_the_conflict(page: Any, service: LocalService) -> None:
    """With both values. The rule is changed if the operator says so, and the page is the same as before."""
    page.goto("/console/settings/cache_size?find=jim")
    http_request("PUT", f"{service.url}/api/v1/rules/1/value", json={"value": 201}).raise_for_status()
    page.get_by_label("Change the value of rule 1").click()
    page.get_by_label("New value of rule 1").fill("300")
    page.locator("#rule-1").get_by_role("button", name="Save").click()
    page.get_by_role("heading", name="Somebody else has made changes").wait_for()
    assert page.locator("tbody td").all_inner_texts()[0].startswith("201 for user jim")
    assert page.locator("tbody td").all_inner_texts()[1].startswith("300 for user jim")
    page.get_by_role("button", name="Replace with yours").click()
    page.locator("#done", has_text="Rule changed").wait_for()
    assert "find=jim" in page.url
    assert http_request("GET", f"{service.url}/api/v1/rules/1").json()["value"] == 300


def test_many_rules_are_selected_previewed_and_deleted(page: Any, service: LocalService) -> None:
    """Without loading a page again."""
    for number in range(9):
        rule = {"setting": "cache_size", "feature_values": {"user": f"u{number}"}, "value": number}
        http_request("POST", f"{service.url}/api/v1/rules", json=rule).raise_for_status()
    page.goto("/console/settings/cache_size")
    page.evaluate("window.isTheSamePage = true")
    for rule_id in range(1, 12):
        page.get_by_label(f"Select rule {rule_id}", exact=True).check()
    page.get_by_role("button", name="Change selected rules").click()
    page.get_by_role("heading", name="11 selected rules").wait_for()
    page.get_by_role("button", name="Delete rules").click()
    page.get_by_role("heading", name="Preview").wait_for()
    screenshot(page, "preview")
    page.get_by_role("button", name="Confirm").click()
    page.locator("#done", has_text="11 rules").wait_for()
    assert page.get_by_text("2 of 2 rules").count() == 1
    assert page.evaluate("window.isTheSamePage")
