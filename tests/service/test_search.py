"""Search in all settings and rules: the API, the console, and the text that is marked."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from heksher_client.service.matcher import Matcher
from tests.support.console import Browser
from tests.support.http import http_client
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService


def search(service: WatchedService, text: str, **parameters: Any) -> Any:
    with http_client(service.url) as http:
        response = http.get("/api/v1/search", params={"q": text, **parameters})
        assert response.status_code == 200, response.text
        return response.json()


def found(service: WatchedService, text: str) -> dict[str, Any]:
    """Return the matching parts by the name of the setting, and by rule."""
    return {
        setting["name"]: (setting["matches"], {rule["rule_id"]: rule["matches"] for rule in setting["rules"]})
        for setting in search(service, text)["settings"]
    }


@pytest.fixture
def shop(service: WatchedService) -> WatchedService:
    """A service with two settings, and three rules for the first one."""
    service.declare(
        "shop.cache_size", "int", 10, ["environment", "user"], metadata={"owner": "Team Shop", "limits": {"max": 9}}
    )
    service.declare("greeting", "str", "Hello, World", ["user"])
    service.add_rule("shop.cache_size", 200, user="jim")
    service.add_rule("shop.cache_size", 500, environment="prod", user="Jimmy")
    rule = service.add_rule("shop.cache_size", 700, environment="prod")
    service.call(
        "POST", f"/api/v1/rules/{rule}/metadata", {"metadata": {"ticket": "OPS-17", "link": "https://e.x/?user=jim"}}
    )
    return service


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("CACHE", {"shop.cache_size": (["name"], {})}),
        ("team shop", {"shop.cache_size": (["metadata"], {})}),
        ("owner", {"shop.cache_size": (["metadata"], {})}),
        ('"max":9', {"shop.cache_size": (["metadata"], {})}),
        ("hello,world", {"greeting": (["default_value"], {})}),
        ("jim", {"shop.cache_size": ([], {1: ["conditions"], 2: ["conditions"], 3: ["metadata"]})}),
        ("user=JIM", {"shop.cache_size": ([], {1: ["conditions"], 2: ["conditions"]})}),
        ("User = jimm", {"shop.cache_size": ([], {2: ["conditions"]})}),
        ("User  jimm", {"shop.cache_size": ([], {2: ["conditions"]})}),
        ("environment jim", {}),
        ("user=", {"shop.cache_size": ([], {1: ["conditions"], 2: ["conditions"]})}),
        ("environment=jim", {}),
        ("x/?user=", {"shop.cache_size": ([], {3: ["metadata"]})}),
        ("environment", {"shop.cache_size": ([], {2: ["conditions"], 3: ["conditions"]})}),
        ("500", {"shop.cache_size": ([], {2: ["value"]})}),
        ("ops-17", {"shop.cache_size": ([], {3: ["metadata"]})}),
        ("nothing of that", {}),
        ('", "', {}),
        (" ", {}), ("\0", {}),
    ],
)  # fmt: skip
def test_a_text_is_found_wherever_settings_and_rules_contain_it(
    shop: WatchedService, text: str, parts: dict[str, Any]
) -> None:
    """In any case. If it is a condition, it is found in conditions only."""
    assert found(shop, text) == parts


def test_a_condition_without_an_equals_sign_is_found_like_any_text_as_well(shop: WatchedService) -> None:
    """As the console shows conditions."""
    shop.declare("limit", "int", 1, ["user"], metadata={"note": "asked by user Jim"})
    assert found(shop, "user jim") == {
        "limit": (["metadata"], {}),
        "shop.cache_size": ([], {1: ["conditions"], 2: ["conditions"]}),
    }


def test_aliases_are_searched(shop: WatchedService) -> None:
    shop.call("PUT", "/api/v1/settings/greeting/name", {"name": "welcome", "version": "1.1"})
    assert found(shop, "greet") == {"welcome": (["alias"], {})}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", "A\nB"), ('say "hi"', 'say "h'), ('say "hi"', r"say \"h"), ("C:\\temp", "c:\\T"),
        ("Österreich", "öster"), ("Österreich", "ÖSTERREICH"), ("ärger", "Ärger"),
        ("😀 day", "😀 D"), ("a, b", "a,b"), ("a:b", "a: B"), ("Éléphant", "éléphant"), ("tab\there", '"tab'),
    ],
)  # fmt: skip
def test_a_text_is_found_in_spite_of_the_escapes_of_json(service: WatchedService, value: str, text: str) -> None:
    """In values and metadata."""
    service.declare("s", "str", "", ["user"], metadata={"note": [value]})
    service.add_rule("s", value, user="jim")
    assert found(service, text) == {"s": (["metadata"], {1: ["value"]})}


def test_a_letter_of_an_escape_is_not_found(service: WatchedService) -> None:
    """The database contains one for é."""
    service.declare("s", "str", "é", ["user"])
    service.add_rule("s", "é", user="jim")
    assert found(service, "u00e9") == {}


def test_conditions_are_found_in_another_normal_form(service: WatchedService) -> None:
    """The é of a search may be an e and an accent."""
    service.declare("s", "int", 1, ["user"])
    service.add_rule("s", 2, user="Ren\u00e9")
    assert found(service, "rene\u0301") == {"s": ([], {1: ["conditions"]})}
    assert found(service, "user=rene\u0301") == {"s": ([], {1: ["conditions"]})}


def test_settings_with_the_name_come_first_and_are_paged(service: WatchedService) -> None:
    """The setting with exactly this name is the first one."""
    for name in ("b_plan", "plan", "a", "a_plan"):
        service.declare(name, "str", "plan" if name == "a" else "x", ["user"])
    result = search(service, "PLAN")
    assert [setting["name"] for setting in result["settings"]] == ["plan", "a_plan", "b_plan", "a"]
    assert result["total"] == 4
    rest = search(service, "PLAN", limit=2, offset=2)
    assert [setting["name"] for setting in rest["settings"]] == ["b_plan", "a"]
    assert rest["total"] == 4


def test_of_many_rules_the_first_are_returned_with_the_number_of_all(service: WatchedService) -> None:
    service.declare("s", "int", 1, ["user", "environment"])
    for number in range(7):
        service.add_rule("s", number, user=f"jim{number}", environment="prod")
    (setting,) = search(service, "jim")["settings"]
    assert [rule["rule_id"] for rule in setting["rules"]] == [1, 2, 3, 4, 5]
    assert setting["rule_count"] == 7
    assert setting["rules"][0] == {
        "rule_id": 1,
        "feature_values": [["environment", "prod"], ["user", "jim0"]],
        "value": 0,
        "metadata": {},
        "matches": ["conditions"],
    }


@pytest.mark.parametrize("text", ["", "x" * 1_001])
@sqlite_only
def test_a_search_needs_a_text_of_limited_length(service: WatchedService, text: str) -> None:
    with http_client(service.url) as http:
        assert http.get("/api/v1/search", params={"q": text}).status_code == 422


# -- the console -------------------------------------------------------------------------------------------------------


@pytest.fixture
def browser(service: WatchedService) -> Iterator[Browser]:
    browser = Browser(service.url)
    yield browser
    browser.http.close()


def marked(page: str) -> list[str]:
    return re.findall("<mark>(.*?)</mark>", page)


@sqlite_only
def test_results_are_grouped_by_setting_and_the_text_is_marked(browser: Browser, shop: WatchedService) -> None:
    browser.go("/console/search?q=jim")
    assert "1 setting, 3 rules" in browser.text
    assert marked(browser.page) == ["jim", "Jim", "jim"]
    assert "link: https://e.x/?user= jim" in browser.text
    assert 'href="/console/settings/shop.cache_size?find=jim"' in browser.page
    assert re.findall('href="/console/rules/([0-9]+)[?]back=[^"]*search[^"]*jim"', browser.page) == ["1", "2", "3"]
    assert "?value=" not in browser.page
    browser.go("/console/search?q=user%3Djimm")
    assert "1 setting, 1 rule with a condition on user" in browser.text
    assert marked(browser.page) == ["Jimm"]


@sqlite_only
def test_results_link_to_the_rules_with_the_value(browser: Browser, shop: WatchedService) -> None:
    browser.go("/console/search?q=00")
    assert "3 of" not in browser.text
    assert marked(browser.page) == ["00", "00", "00"]
    assert 'href="/console/settings/shop.cache_size?value=00"' in browser.page
    assert "?find=" not in browser.page


@sqlite_only
def test_metadata_default_values_and_aliases_are_marked(browser: Browser, shop: WatchedService) -> None:
    shop.call("PUT", "/api/v1/settings/greeting/name", {"name": "welcome", "version": "1.1"})
    browser.go("/console/search?q=greeting")
    assert "also <mark>greeting</mark>" in browser.page
    browser.go("/console/search?q=world")
    assert marked(browser.page) == ["World"]
    browser.go("/console/search?q=max")
    assert 'limits: {"<mark>max</mark>":9}' in browser.page


@sqlite_only
def test_many_results_have_pages(browser: Browser, service: WatchedService) -> None:
    for number in range(21):
        service.declare(f"s{number:02}", "int", 1, ["user"])
    for number in range(6):
        service.add_rule("s00", 1, user=f"s{number}")
    browser.go("/console/search?q=s")
    assert "21 settings, 6 rules" in browser.text
    assert "Page 1 of 2" in browser.text
    assert "5 of 6 rules" in browser.text
    assert ">Previous<" not in browser.page
    browser.go("/console/search?q=s&page=2")
    assert marked(browser.page) == ["s"]
    assert 'href="/console/search?q=s"' in browser.page
    assert ">Next<" not in browser.page


@sqlite_only
def test_an_empty_search_shows_the_form_and_an_unknown_text_nothing(browser: Browser, shop: WatchedService) -> None:
    assert browser.go("/console/search").status_code == 200
    assert "Nothing found" not in browser.text
    browser.go("/console/search?q=zzz")
    assert "0 settings, 0 rules" in browser.text
    assert "Nothing found." in browser.text


@sqlite_only
def test_markup_in_texts_is_shown_as_text(browser: Browser, shop: WatchedService) -> None:
    shop.add_rule("greeting", "<b>jim</b>", user="<i>")
    response = browser.http.get("/console/search", params={"q": "<b>jim"})
    assert "&lt;b&gt;jim" in response.text
    assert "<b>jim" not in response.text


@sqlite_only
def test_the_page_of_a_search_says_that_its_text_is_too_long(browser: Browser) -> None:
    assert browser.go(f"/console/search?q={'x' * 1_001}").status_code == 422
    assert "at most 1,000 characters" in browser.text


# -- marks -------------------------------------------------------------------------------------------------------------


def test_of_a_long_value_the_part_around_the_first_match_is_shown() -> None:
    value = "x" * 500 + "jim" + "y" * 500
    before, match, after = Matcher("JIM", []).split_value(value, max_length=40)
    assert (before, match, after) == ("…" + "x" * 10, "jim", "y" * 27 + "…")
    before, match, after = Matcher("jim", []).split_value(value, is_metadata=True, max_length=1_000)
    assert (before[0], len(before + match + after)) == ("…", 1_001)
    (beginning,) = Matcher("z", []).split_value(value, max_length=40)
    assert beginning == '"' + "x" * 39 + "…"


def test_all_occurrences_are_marked() -> None:
    assert Matcher("a", []).split("Banana") == ["B", "a", "n", "a", "n", "a", ""]
    assert Matcher("user=a", ["user"]).split("banana") == ["banana"]
    assert Matcher("user=a", ["user"]).split_condition("user", "anna") == ["", "a", "nna"]
    assert Matcher("user=a", ["user"]).split_condition("theme", "anna") == ["anna"]
    assert Matcher("User a", ["user"]).split_condition("user", "anna") == ["", "a", "nna"]
    assert Matcher("user a", ["user"]).split_condition("user", "my user a") == ["my ", "user a", ""]
    assert Matcher("user a", ["theme"]).split_condition("user", "anna") == ["anna"]
    assert Matcher("user=a", ["user"]).split_condition("user", "banana") == ["banana"]


def test_the_rules_of_a_setting_are_found_by_the_same_text(browser: Browser, service: WatchedService) -> None:
    """The results of a search link to them."""
    service.declare("s", "str", "x", ["user"])
    service.add_rule("s", "Über\n", user="Ägir=1")
    service.add_rule("s", "other", user="jim")
    for query in (
        "find=user+ägir",
        "find=ägir",
        "find=ÄGIR%3D1",
        "find=user%3Dägir%3D",
        "value=über",
        'value="über\\n"',
    ):
        browser.go(f"/console/settings/s?{query}")
        assert "1 of 2 rules" in browser.text, query
