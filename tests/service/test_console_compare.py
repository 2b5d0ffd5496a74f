"""The comparison of two contexts in the console, and the copy of rules."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from heksher_client.service import rule_search, store
from heksher_client.service.declarations import Declaration
from heksher_client.service.history import State
from heksher_client.service.operations import require_rule, require_setting
from heksher_client.service.rule_period import Period
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredRule
from heksher_client.service.tokens import Role, add_token
from tests.support.console import Browser
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService
from tests.support.statements import statements_of

STAGING_TO_PROD = "a.environment=staging&b.environment=prod"
COPY = "/console/compare/copy"
VALUES = "Values before and after"


@pytest.fixture
def browser(service: WatchedService) -> Iterator[Browser]:
    """A browser, and two settings: rules for staging and prod of `s`, and `other` without rules."""
    service.declare("s", "int", 7, ["environment", "user"])
    service.declare("other", "str", "x", ["user"])
    service.call("POST", "/api/v1/rules", {"setting": "s", "feature_values": {"environment": "staging"}, "value": 1,
                 "metadata": {"comment": "load test", "team": "shop"}})  # fmt: skip
    service.add_rule("s", 2, environment="staging", user="jim")
    service.add_rule("s", 3, environment="staging", user="ann")
    service.add_rule("s", 4, environment="prod")
    service.add_rule("s", 3, environment="prod", user="ann")
    client = Browser(service.url)
    yield client
    client.http.close()


def rules(service: WatchedService) -> dict[tuple[tuple[str, str], ...], StoredRule]:
    """Return all rules by their conditions."""
    assert service.database is not None
    with service.database.begin(writes=False) as connection:
        return {tuple(rule.conditions): rule for rule in store.rules(connection)}


def table(browser: Browser, label: str) -> list[str]:
    """Return the text of each row of a table."""
    found = re.search(rf'aria-label="{label}".*?<tbody>(.*?)</tbody>', browser.page, re.DOTALL)
    assert found is not None, browser.page
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in found[1].split("</tr>")[:-1]]


def submit_copy(browser: Browser, **fields: Any) -> Any:
    """Confirm the copy on the current page."""
    hidden: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', browser.page):
        hidden.setdefault(name, []).append(value)
    return browser.submit(COPY, **hidden | fields)


# -- comparison --------------------------------------------------------------------------------------------------------


def test_the_values_in_two_contexts_are_shown_side_by_side(browser: Browser) -> None:
    """Only those that differ, with the deciding rules and further conditions; all of them when asked."""
    assert browser.go("/console/compare").status_code == 200
    assert "Compare contexts" in browser.text
    assert 'id="values-title"' not in browser.page
    assert browser.go(f"/console/compare?{STAGING_TO_PROD}").status_code == 200
    assert "1 of 2 settings have different values." in browser.text
    assert table(browser, "Values of A and B") == [
        "s 1 rule 1 · Explain s in A 4 rule 4 · Explain s in B",
        "s with user jim 2 rule 2 · Explain s in A 4 rule 4 · Explain s in B",
    ]
    browser.go(f"/console/compare?{STAGING_TO_PROD}&all=1")
    assert table(browser, "Values of A and B")[0] == (
        'other "x" default value · Explain other in A "x" default value · Explain other in B'
    )
    assert len(table(browser, "Values of A and B")) == 4


def test_the_form_of_a_comparison_keeps_its_state(browser: Browser) -> None:
    """It is in the address, which can be shared."""
    browser.go(f"/console/compare?{STAGING_TO_PROD}&q=S&all=1")
    assert 'name="a.environment" value="staging"' in browser.page
    assert 'name="b.environment" value="prod"' in browser.page
    assert 'name="q" type="search" value="S"' in browser.page
    assert 'name="all" value="1" checked' in browser.page
    assert "1 of 1 setting has different values, of those whose names contain “S”." in browser.text
    assert "a.environment=prod&b.environment=staging&q=S&all=1" in browser.page
    browser.go("/console/compare?a.environment=nothing&b.environment=nowhere&q=other")
    assert "0 of 1 setting has different values" in browser.text
    assert 'aria-label="Values of A and B"' not in browser.page


def test_a_comparison_links_to_the_explanations_of_its_values(browser: Browser) -> None:
    """Each in its context, with the further conditions."""
    browser.go(f"/console/compare?{STAGING_TO_PROD}")
    assert 'console/settings/s?on.environment=staging&on.user=jim#why-title"' in browser.page
    browser.go("/console/settings/s?on.environment=staging&on.user=jim")
    assert "The value is 2 : rule 2 wins." in browser.text


def test_a_context_may_be_empty(browser: Browser) -> None:
    """The other one is compared with the values without context features. Nothing can be copied."""
    browser.go("/console/compare?a.environment=prod")
    assert "B: no values of context features." in browser.text
    assert table(browser, "Values of A and B")[0].startswith("s 4 rule 4")
    assert "Copy rules to B" not in browser.text


@sqlite_only
@pytest.mark.slow
def test_rows_are_divided_into_pages(browser: Browser, service: WatchedService) -> None:
    """With links to the next and the previous one."""
    for number in range(200):
        service.declare(f"t{number:03}", "int", number, ["environment"])
    browser.go(f"/console/compare?{STAGING_TO_PROD}&all=1")
    assert len(table(browser, "Values of A and B")) == 100
    assert "Page 1 of 3" in browser.text
    (following,) = re.findall(r'href="([^"]*)" rel="next"', browser.page)
    assert 'rel="prev"' not in browser.page
    browser.go(following)
    assert "Page 2 of 3" in browser.text
    assert (following, "all=1&page=2" in following) == (f"/console/compare?{STAGING_TO_PROD}&all=1&page=2", True)
    browser.go(following.replace("page=2", "page=9"))
    assert "Page 3 of 3" in browser.text
    assert len(table(browser, "Values of A and B")) == 4
    assert 'rel="next"' not in browser.page
    assert 'page=2" rel="prev"' in browser.page


def test_only_rules_that_may_concern_the_contexts_are_read(browser: Browser, service: WatchedService) -> None:
    """There may be thousands for other environments, or for other users."""
    service.add_rule("s", 5, environment="prod2")
    service.add_rule("s", 6, user='staging"], ["environment", "prod')
    assert service.database is not None
    with service.database.begin(writes=False) as connection:
        values, features = {"environment": {"staging", "prod"}, "user": ["ann"]}, ["environment", "user"]
        found = rule_search.rules_with_values(connection, values, features)
        assert [rule.id for rule in found] == [1, 3, 4, 5]
        setting = require_setting(connection, "other")
        assert rule_search.rules_with_values(connection, values, features, [setting.id]) == []
        assert [len(rule_search.rules_with_values(connection, {}, some)) for some in (["user"], features, [])] == [
            4,
            7,
            0,
        ]


def test_a_context_value_may_be_any_text(browser: Browser) -> None:
    """Also one that no rule can require."""
    assert browser.go("/console/compare?a.environment=%00%FF&b.environment=%22%5D").status_code == 200
    assert "0 of 2 settings have different values." in browser.text


# -- copy --------------------------------------------------------------------------------------------------------------


def test_rules_are_copied_after_a_preview(browser: Browser, service: WatchedService) -> None:
    """With their metadata, a comment and a link. Each copy can be undone."""
    browser.go(f"/console/compare?{STAGING_TO_PROD}")
    assert "2 rules of A are missing in B, or different there." in browser.text
    assert table(browser, "Rules to copy") == [
        "s environment staging 1 4",
        "s environment staging , user jim 2 no rule",
    ]
    assert len(re.findall('name="rule" value="[12]"', browser.page)) == 2
    assert browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1").status_code == 200
    assert "From environment staging to environment prod ." in browser.text
    assert "This change of s will add 1 rule, change 1 rule. 2 of 2 affected contexts" in browser.text
    assert "protected" not in browser.text
    assert table(browser, VALUES) == ["environment prod 4 1", "environment prod , user jim 4 2"]
    response = submit_copy(browser, comment="roll out", link="https://example.com/1")
    assert response.url.path == "/console/compare"
    assert response.url.query.decode().startswith(f"{STAGING_TO_PROD}&done=")
    assert "The rules were copied." in browser.text
    assert "B has all rules of A, with the same values." in browser.text
    notes = {"comment": "roll out", "link": "https://example.com/1"}
    found = rules(service)
    changed, added = found[("environment", "prod"),], found[("environment", "prod"), ("user", "jim")]
    assert (changed.id, changed.value, changed.metadata) == (4, 1, {"team": "shop", **notes})
    assert (added.value, added.metadata) == (2, notes)
    (changes,) = re.findall(r'href="(/console/changes\?before=\d+)"', browser.page)
    browser.go(changes)
    for action in re.findall(r'action="(/console/changes/\d+/undo)"', browser.page)[:2]:
        browser.go(changes)
        browser.submit(action)
    assert {conditions: rule.value for conditions, rule in rules(service).items() if rule.id > 3} == {
        (("environment", "prod"),): 4,
        (("environment", "prod"), ("user", "ann")): 3,
    }


def test_a_copy_is_shown_again_if_a_rule_changes_just_before_it(
    browser: Browser, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copies are checked again in the transaction that writes, which records them together."""
    database = service.database
    assert database is not None
    browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
    observe = database.observe

    def observe_and_change(state: State) -> None:
        observe(state)
        monkeypatch.undo()
        service.call("PUT", "/api/v1/rules/1/value", {"value": 8})

    monkeypatch.setattr(database, "observe", observe_and_change)
    assert submit_copy(browser).status_code == 409
    with statements_of(database) as statements:
        assert submit_copy(browser).url.path == "/console/compare"
    assert sum(statement.startswith("INSERT INTO changes") for statement in statements) == 1
    assert rules(service)[("environment", "prod"),].value == 8


def test_only_the_selected_rules_are_copied(browser: Browser, service: WatchedService) -> None:
    """The comment of the copied rule remains if no other is given."""
    browser.go(f"{COPY}?{STAGING_TO_PROD}&rule=1&rule=3&rule=nonsense")
    assert "will change 1 rule." in browser.text
    assert "Copy 1 rule " in browser.text
    submit_copy(browser)
    changed = rules(service)[("environment", "prod"),]
    assert (changed.value, changed.metadata) == (1, {"comment": "load test", "team": "shop"})
    assert (("environment", "prod"), ("user", "jim")) not in rules(service)


@pytest.mark.parametrize("query", ["", "&rule=3", "&q=other&every=1"])
def test_a_preview_without_rules_cannot_be_confirmed(browser: Browser, query: str) -> None:
    """It links back to the comparison."""
    browser.go(f"{COPY}?{STAGING_TO_PROD}{query}")
    assert "No rules to copy." in browser.text
    assert f'action="{COPY}"' not in browser.page
    browser.go(f"{COPY}?a.environment=prod&b.environment=prod&every=1")
    assert "No rules to copy." in browser.text


@pytest.mark.parametrize("rule_id", [1, 4])
def test_a_copy_is_shown_again_if_a_rule_has_been_changed(
    browser: Browser, service: WatchedService, rule_id: int
) -> None:
    """A copied one, or one that would be replaced. The comment is kept."""
    browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
    service.call("PUT", f"/api/v1/rules/{rule_id}/value", {"value": 9})
    assert submit_copy(browser, comment="roll out").status_code == 409
    assert "The rules have been changed since this preview was shown." in browser.text
    assert 'name="comment" value="roll out"' in browser.page
    expected = {1: "4 9", 4: "9 1"}[rule_id]
    assert table(browser, VALUES)[0] == f"environment prod {expected}"
    assert submit_copy(browser).url.path == "/console/compare"
    assert rules(service)[("environment", "prod"),].value == (9 if rule_id == 1 else 1)


@sqlite_only
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("a.environment=dev&b.environment=prod", "A has no rules."),
        ("a.environment=staging&b.environment=prod&q=other", "A has no rules of these settings."),
        ("a.environment=prod&b.environment=prod", "A and B are the same context."),
        ("a.user=ann&b.user=jim&q=other", "A has no rules of these settings."),
        (
            "a.environment=staging&a.user=ann&b.environment=prod&b.user=ann",
            "B has all rules of A, with the same values.",
        ),
        ("a.environment=staging&b.user=ann", "B has all rules of A that can be copied, with the same values."),
    ],
)
def test_the_comparison_says_why_there_is_nothing_to_copy(
    browser: Browser, service: WatchedService, query: str, message: str
) -> None:
    service.add_rule("s", 1, user="ann")
    browser.go(f"/console/compare?{query}")
    assert f"Copy rules to B {message}" in browser.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("comment", "x" * 2001, "a comment may have at most 2,000 characters"),
        ("link", "javascript:alert(1)", "a link must begin with http:// or https://"),
    ],
)
def test_an_invalid_comment_or_link_of_a_copy_is_shown_at_its_field(
    browser: Browser, service: WatchedService, name: str, content: str, message: str
) -> None:
    """Nothing is copied."""
    browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
    assert submit_copy(browser, **{name: content}).status_code == 422
    assert f'id="{name}-error">{message}' in browser.page
    assert f'name="{name}" value="{content}"' in browser.page
    assert "rules have been changed" not in browser.text
    assert rules(service)[("environment", "prod"),].value == 4
    submit_copy(browser)
    assert rules(service)[("environment", "prod"),].value == 1


def test_a_copy_is_shown_again_if_there_are_other_rules_to_copy(browser: Browser, service: WatchedService) -> None:
    """Also if only some were selected: any rule of their settings may decide a value. It is not copied then."""
    browser.go(f"{COPY}?{STAGING_TO_PROD}&rule=1")
    service.add_rule("s", 5, environment="staging", user="eve")
    assert submit_copy(browser).status_code == 409
    assert "will change 1 rule." in browser.text
    assert submit_copy(browser).url.path == "/console/compare"
    assert (("environment", "prod"), ("user", "eve")) not in rules(service)
    browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
    service.add_rule("s", 5, environment="staging", user="joe")
    assert submit_copy(browser).status_code == 409
    assert "will add 3 rules." in browser.text


def test_a_copy_is_refused_if_somebody_else_has_made_it(browser: Browser, service: WatchedService) -> None:
    """Nothing is left to copy."""
    browser.go(f"{COPY}?{STAGING_TO_PROD}&rule=1")
    service.call("PUT", "/api/v1/rules/4/value", {"value": 1})
    assert submit_copy(browser).status_code == 409
    assert "No rules to copy." in browser.text


def test_the_preview_of_a_copy_shows_what_is_protected(browser: Browser, service: WatchedService) -> None:
    """In all settings of the copied rules."""
    service.call("PUT", "/api/v1/settings/s/metadata", {
        "metadata": {"protected_contexts": {"user": ["jim"]}}, "version": "1.1"})  # fmt: skip
    service.declare("t", "int", 7, ["environment"])
    service.add_rule("t", 8, environment="staging")
    browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
    assert "This change of 2 settings will add 2 rules, change 1 rule. It affects protected values." in browser.text
    assert table(browser, VALUES) == [
        "s environment prod protected 4 1",
        "s environment prod , user jim protected 4 2",
        "t environment prod 7 8",
    ]
    assert submit_copy(browser).url.path == "/console/compare"
    assert rules(service)[("environment", "prod"),].value == 8


def test_a_copy_is_one_transaction(browser: Browser, service: WatchedService) -> None:
    """If a rule cannot have its new conditions, none is copied. There is no preview then."""
    target = f"a.environment=staging&b.environment={'x' * 256}"
    assert browser.go(f"{COPY}?{target}&every=1").status_code == 422
    assert "rule 1 of the setting s cannot be copied: " in browser.text
    assert "must have 1 to 255 characters" in browser.text
    assert len(rules(service)) == 5


@pytest.mark.slow
def test_rules_that_cannot_be_copied_are_listed(browser: Browser, service: WatchedService) -> None:
    """With the reason; the first hundred of many."""
    browser.go("/console/compare?a.environment=staging&b.environment=prod&b.user=jim")
    assert "2 rules of A cannot be copied" in browser.text
    assert "s, environment staging , user ann : the rule has another condition on user" in browser.text
    service.add_rule("other", "y", user="bob")
    for number in range(100):
        service.add_rule("s", number, environment="staging", user=f"u{number}")
    browser.go("/console/compare?a.environment=staging&b.environment=prod&b.user=jim")
    assert "102 rules of A cannot be copied" in browser.text
    assert "and 2 more" in browser.text
    assert "here are the first" not in browser.text
    browser.go(f"/console/compare?{STAGING_TO_PROD}")
    assert "102 rules of A are missing in B, or different there; here are the first 100." in browser.text
    browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
    assert "; the first 100 are listed." in browser.text
    assert submit_copy(browser).url.path == "/console/compare"
    browser.go("/console/compare?a.user=bob&b.environment=prod")
    assert "1 rule of A cannot be copied other, user bob : the setting is not configurable by environment" in (
        browser.text
    )


def test_temporary_rules_are_copied_with_their_period(browser: Browser, service: WatchedService) -> None:
    """Only while they are in effect. A rule with the same value and no period is changed."""
    current, past = (Period(None, datetime(year, 1, 1, tzinfo=UTC)) for year in (2100, 2020))
    assert service.database is not None
    with service.database.begin() as connection:
        setting = require_setting(connection, "s")
        store.change_rule(connection, setting, require_rule(connection, 1)[0], period=current, value=4)
        store.change_rule(connection, setting, require_rule(connection, 2)[0], period=past)
    browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
    assert table(browser, VALUES) == ["environment prod until 2100-01-01 00:00:00 UTC 4 no change"]
    submit_copy(browser)
    assert rules(service)[("environment", "prod"),].period == current
    with service.database.begin() as connection:
        begun = Period(datetime(2020, 1, 1, tzinfo=UTC))
        store.change_rule(connection, setting, require_rule(connection, 4)[0], period=begun)
    browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
    assert table(browser, VALUES) == [
        "environment prod until 2100-01-01 00:00:00 UTC 4 from 2020-01-01 00:00:00 UTC no change"
    ]
    submit_copy(browser)
    with service.database.begin() as connection:
        store.change_rule(connection, setting, require_rule(connection, 2)[0], period=current)
    browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
    submit_copy(browser)
    assert rules(service)[("environment", "prod"), ("user", "jim")].period == current


def test_only_admins_can_copy_rules(service: WatchedService, new_database: Callable[[], str]) -> None:
    """Others see the comparison, and a preview without its form."""
    service.reset(new_database(), access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        tokens = {role: add_token(connection, role.value, role) for role in (Role.READ, Role.ADMIN)}
        features = ("environment",)
        store.add_setting(connection, Declaration("s", features, parse_setting_type("int"), 7, {}, "1.0"))
        store.add_rule(connection, require_setting(connection, "s"), {"environment": "staging"}, 1, {})
    for role, token in tokens.items():
        browser = Browser(service.url)
        browser.go("/console/login")
        browser.submit("/console/login", token=token, next="/console")
        browser.go(f"/console/compare?{STAGING_TO_PROD}")
        assert table(browser, "Values of A and B") == ["s 1 rule 1 · Explain s in A 7 default value · Explain s in B"]
        assert ("Copy rules to B" in browser.text) is (role is Role.ADMIN)
        browser.go(f"{COPY}?{STAGING_TO_PROD}&every=1")
        assert table(browser, VALUES) == ["environment prod 7 1"]
        assert (f'action="{COPY}"' in browser.page) is (role is Role.ADMIN)
        browser.http.close()


def test_the_navigation_links_to_the_comparison(browser: Browser) -> None:
    """And marks it as the current page."""
    browser.go("/console/compare")
    assert 'href="/console/compare" aria-current="page"' in browser.page
