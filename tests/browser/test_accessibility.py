"""Each page of the console on each screen: rules of axe-core, its width, and its buttons."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from heksher_client.service import LocalService
from tests.support.chromium import FEATURES, add_settings_and_rules, declare, needs_chromium, screenshot
from tests.support.http import http_request

pytestmark = [pytest.mark.browser, needs_chromium]

PAGES = {
    "settings": "/console",
    "setting": "/console/settings/cache_size",
    "explained": "/console/settings/cache_size?on.user=jim&on.theme=dark",
    "changed": "/console/settings/cache_size?done=12",
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
    shown.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    problems = []
    for scheme in ("light", "dark"):
        for width in WIDTHS:
            shown.emulate_media(color_scheme=scheme)
            shown.set_viewport_size({"width": width, "height": 900})
            screenshot(shown, f"{name}-{scheme}-{width}")
            violations = shown.evaluate(_VIOLATIONS, scheme == "light")
            problems += [f"{scheme}, {width} px: {each}" for each in violations + shown.evaluate(_OUTSIDE)]
    assert problems == []


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
