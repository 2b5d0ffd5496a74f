"""Each page of the console on each screen: rules of axe-core, its width, and its buttons."""

from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from heksher_client.cli import main
from heksher_client.service import LocalService
from tests.support.chromium import FEATURES, add_settings_and_rules, declare, needs_chromium, screenshot
from tests.support.http import http_request

pytestmark = [pytest.mark.browser, needs_chromium]

PAGES = {
    "settings": "/console",
    "setting": "/console/settings/cache_size",
    "explained": "/console/settings/cache_size?on.user=jim&on.theme=dark",
    "changed": "/console/settings/cache_size?done=16",
    "without-rules": "/console/settings/steps",
    "nothing-selected": "/console/settings/cache_size?unselected=1&page=9",
    "changes": "/console/changes",
    "first-changes": "/console/changes?sort=oldest&feature=environment%3Dprod&value=5",
    "search": "/console/search?q=jim",
    "nothing-found": "/console/search?q=zzz",
    "rule": "/console/rules/1",
    "new-rule": "/console/settings/cache_size/rules?copy=1",
    "pasted-rules": "/console/settings/cache_size/rules/list",
    "selected-rules": "/console/settings/cache_size/rules/selected?all=1",
    "setting-edit": "/console/settings/cache_size/edit",
    "new-setting": "/console/new",
    "features": "/console/features",
    "tokens": "/console/tokens",
    "compare": "/console/compare?a.environment=staging&b.environment=prod",
    "copy": "/console/compare/copy?a.environment=staging&b.environment=prod&every=1",
    "compare-all": "/console/compare?a.environment=prod&b.environment=staging&all=1",
    "login": "/console/login",
    "unknown": "/console/settings/unknown",
}
"""The address of each page, by the name of its screenshots."""
FORMS: dict[str, tuple[str, dict[str, str], str, str]] = {
    "preview": (
        "/console/settings/cache_size/rules/selected?all=1", {"New value int": "1"}, "Set value", "contexts change",
    ),
    "preview-of-deletions": (
        "/console/settings/cache_size/rules/selected?all=1", {}, "Delete rules", "will delete 4 rules",
    ),
    "setting-preview": (
        "/console/settings/prices/edit", {"[aria-labelledby=default-title] [name=value]": "2"}, "Save default value",
        "This will change prices",
    ),
    "setting-preview-of-a-deletion": (
        "/console/settings/prices/edit", {}, "Delete prices and its 0 rules", "This will delete prices",
    ),
    "setting-error": ("/console/settings/prices/edit", {}, "Rename", "the setting has this already"),
    "move": ("/console/features", {}, "Move user up", "One setting has"),
    "rule-error": ("/console/rules/1", {"Value int": "x"}, "Save", "not a whole number"),
    "new-rule-error": ("/console/settings/cache_size/rules?copy=1", {}, "Add rule", "already exists"),
    "existing-rules": (
        "/console/settings/cache_size/rules/list", {"[name=feature]": "user", "[name=list]": "jim"}, "Add rules",
        "rule exists already",
    ),
    "conflict": ("/console/rules/1", {"[id=edit] [name=etag]": '"0"', "Value int": "9"}, "Save", "Somebody else"),
    "expired": ("/console/rules/1", {"[id=edit] [name=csrf]": "", "Value int": "9"}, "Save", "You entered"),
}  # fmt: skip
"""For each page that only a form leads to: the page of the form, what is entered, the button, and an expected text."""
WIDTHS = (390, 1280, 1920)


@pytest.fixture(scope="module")
def shop() -> Iterator[LocalService]:
    """A service with long names and values as well, which no test changes."""
    with LocalService(FEATURES) as service:
        metadata = {"owner": "team-payments", "description": "Providers that a customer may choose from."}
        providers = {"de": ["a"] * 60}
        type_ = "Mapping<Sequence<str>>"
        declare(service.url, "shop.checkout.payment_providers_by_country", type_, providers, metadata=metadata)
        add_settings_and_rules(service.url)
        declare(service.url, "prices", "int", 1, metadata={"protected": True})
        change = {"value": 201}
        http_request("PUT", f"{service.url}/api/v1/rules/1/value", json=change).raise_for_status()
        yield service


@pytest.fixture(scope="module")
def shown(chromium: Any, shop: LocalService) -> Iterator[Any]:
    """A page of the browser."""
    context = chromium.new_context(base_url=shop.url)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_pages_can_be_used_on_each_screen(shown: Any, name: str) -> None:
    """axe-core finds no violations, in light and dark. Nothing exceeds the width of the screen, and no button."""
    assert shown.goto(PAGES[name]).status == (404 if name == "unknown" else 200)
    assert problems_of(shown, name) == []


@pytest.mark.parametrize("name", FORMS)
def test_pages_that_forms_lead_to_can_be_used_on_each_screen(shown: Any, name: str) -> None:
    """Previews, confirmations, conflicts and errors. None of them changes anything."""
    path, fields, button, expected = FORMS[name]
    shown.goto(path)
    submit(shown, fields, button)
    shown.get_by_text(expected).first.wait_for()
    assert problems_of(shown, name) == []


def test_the_pages_of_another_login_can_be_used_on_each_screen(chromium: Any, tmp_path: Path) -> None:
    """With what was entered into a form after the session had ended, which is submitted in the end."""
    database = tmp_path / "heksher.db"
    command = ["service", "token", "add", "ops", "--role", "admin", "--database", str(database)]
    token = CliRunner().invoke(main, command).output.strip()
    with LocalService(FEATURES, database=database, access_control=True) as service:
        context = chromium.new_context(base_url=service.url)
        page = context.new_page()
        page.goto("/console/features")
        submit(page, {"Token": token}, "Log in")
        page.get_by_label("Name").wait_for()
        # As if the browser had loaded the page in a session that has ended.
        (cookie,) = context.cookies()
        context.add_cookies([{**cookie, "value": "ended"}])
        ended = {"form[class=add] [name=csrf]": sha256(b"form ended").hexdigest(), "Name": "region"}
        submit(page, ended, "Add context feature")
        page.get_by_text("Your session has ended").wait_for()
        assert page.url.endswith("/console/features")
        assert problems_of(page, "login-again") == []
        submit(page, {"Token": token}, "Log in")
        page.get_by_role("heading", name="Nothing has been saved yet").wait_for()
        assert problems_of(page, "continue") == []
        page.get_by_role("button", name="Continue").click()
        page.get_by_text("Context feature added").first.wait_for()
        context.close()


def submit(page: Any, fields: dict[str, str], button: str) -> None:
    """Fill inputs, by their labels or by selectors with a bracket, and press a button."""
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    for name, value in fields.items():
        if "[" in name:
            page.locator(name).evaluate("(input, value) => { input.value = value }", value)
        else:
            page.get_by_label(name, exact=True).fill(value)
    page.get_by_role("button", name=button, exact=True).click()


def problems_of(page: Any, name: str) -> list[str]:
    """Return the violations of rules and the parts outside of the screen, and leave screenshots with this name."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    problems = []
    for scheme in ("light", "dark"):
        for width in WIDTHS:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            screenshot(page, f"{name}-{scheme}-{width}")
            violations = page.evaluate(_VIOLATIONS, scheme == "light")
            problems += [f"{scheme}, {width} px: {each}" for each in violations + page.evaluate(_OUTSIDE)]
    return problems


# The other rules do not depend on colors.
_VIOLATIONS = """async areAll => {
    const colors = {type: "rule", values: ["color-contrast", "link-in-text-block"]}
    const found = await axe.run({resultTypes: ["violations"], ...(areAll ? {} : {runOnly: colors})})
    return found.violations.flatMap(({id, nodes}) => nodes.map(node => `${id}: ${node.html}`))
}"""
# Wide tables can be scrolled, within a region of their own.
_OUTSIDE = """() => {
    const isOutside = e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth
    const controls = [...document.querySelectorAll("button, summary, input, select, textarea")]
    const isFixed = e => !e.closest(".scroll") || e.textContent.startsWith("Undo")
    const found = controls.filter(e => isFixed(e) && isOutside(e))
    if (document.documentElement.scrollWidth > innerWidth) found.push(document.documentElement)
    return found.map(e => `outside of the screen: ${e.outerHTML.slice(0, 200)}`)
}"""
