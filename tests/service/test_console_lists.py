"""The lists of the console: filters, sorting and pages of settings, rules and changes."""

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import update

from heksher_client.service import store
from heksher_client.service.changes import record_change
from heksher_client.service.rule_period import Period
from heksher_client.service.rule_search import matching_rules
from heksher_client.service.schema import CHANGES
from heksher_client.service.tokens import Role, add_token
from tests.support.console import Browser
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService

PAST, FUTURE = datetime(2001, 2, 3, 4, 5, tzinfo=UTC), datetime(2999, 12, 1, 9, tzinfo=UTC)


def add_rules(service: WatchedService, *rules: tuple[dict[str, str], Any, dict[str, Any]], **more: Any) -> None:
    """Add rules to the setting `s`, each with its conditions, its value and its metadata."""
    actor = more.pop("actor", None)
    assert service.database is not None
    with service.database.begin(actor=actor) as connection:
        setting = store.setting(connection, "s")
        assert setting is not None
        for conditions, value, metadata in rules:
            store.add_rule(connection, setting, conditions, value, metadata, **more)


def listed(browser: Browser, path: str) -> list[str]:
    """Return the names of the settings, or the ids of the rules, in the list of a page."""
    assert browser.go(path).status_code == 200
    rows = re.findall(r'<tr id="rule-(\d+)"|<th scope="row"><a href="/console/settings/(\w+)', browser.page)
    return [rule or setting for rule, setting in rows]


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(browser: Browser, service: WatchedService) -> Browser:
    """The setting `s` with three rules, and three others."""
    service.declare("plan", 'Enum["free","pro"]', "free", ["user"], metadata={"owner": "Billing", "team": "é"})
    service.declare("hosts", "Mapping<str>", {"eu": "Ä"}, ["environment"], metadata={"owner": ["a", "b"]})
    service.declare("limit", "int", 30, ["environment", "theme"], metadata={"owner": "billing", "description": "Most"})
    service.add_rule("plan", "pro", user="jim")
    service.add_rule("limit", 1234, environment="prod")
    return browser


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["hosts", "limit", "plan", "s"]),
        ("q=PL", ["plan"]),
        ("q=most", ["limit"]),
        ("type=int", ["limit", "s"]),
        ("type=Enum", ["plan"]),
        ("type=nosuch", []),
        ("owner=billing", ["limit", "plan"]),
        ("owner=bill", []),
        ("feature=theme", ["limit"]),
        ("feature=nosuch", []),
        ("feature=environment%3Dprod", ["limit", "s"]),
        ("feature=+user+%3D+jim+", ["plan", "s"]),
        ("feature=theme%3Dprod", []),
        ("value=free", ["plan"]),
        ("value=PRO", ["plan"]),
        ("value=ä", ["hosts"]),
        ("value=23", ["limit"]),
        ("value=%00", []),
        ("q=+pl+&owner=+billing+&value=pro+", ["plan"]),
        ("owner=billing&type=int&value=3&q=limit&feature=theme", ["limit"]),
        ("sort=name&page=1&unknown=1", ["hosts", "limit", "plan", "s"]),
        ("sort=-name", ["s", "plan", "limit", "hosts"]),
        ("sort=rules", ["hosts", "limit", "plan", "s"]),
        ("sort=-rules", ["s", "limit", "plan", "hosts"]),
        ("sort=type", ["plan", "hosts", "limit", "s"]),
        ("sort=owner", ["plan", "hosts", "limit", "s"]),
        ("sort=value", ["s", "limit", "plan", "hosts"]),
        ("sort=-value", ["hosts", "plan", "limit", "s"]),
        ("sort=nosuch", ["hosts", "limit", "plan", "s"]),
    ],
)
def test_settings_are_filtered_and_sorted(settings: Browser, query: str, names: list[str]) -> None:
    """By their declaration, and by the conditions and the values of their rules."""
    assert listed(settings, f"/console?{query}") == names


@sqlite_only
def test_the_headers_of_a_list_sort_it(settings: Browser) -> None:
    """In the other direction if it is sorted by the column already. The filters stay."""
    settings.go("/console?type=int&page=1")
    assert re.findall('aria-sort="([a-z]+)"', settings.page) == ["ascending", "none", "none", "none", "none"]
    assert 'href="/console?type=int&sort=-name"' in settings.page
    settings.go("/console?type=int&sort=-rules")
    assert re.findall('aria-sort="([a-z]+)"', settings.page) == ["none", "none", "descending", "none", "none"]
    assert 'href="/console?type=int&sort=rules"' in settings.page
    assert 'type="hidden" name="sort" value="-rules"' in settings.page


@sqlite_only
@pytest.mark.parametrize("query", ["find=jim+", "find=+user%3Djim+", "if.user=+jim+", "if.user=jim&value=+2"])
def test_rules_are_found_in_spite_of_spaces_around_a_text(browser: Browser, query: str) -> None:
    assert "2" in listed(browser, f"/console/settings/s?{query}")
    assert "3 of 3 rules" not in browser.text


@sqlite_only
def test_spaces_around_a_text_change_neither_an_explanation_nor_a_search(browser: Browser) -> None:
    browser.go("/console/settings/s?on.user=+jim+&on.environment=prod+")
    assert "rule 3 wins" in browser.text
    browser.go("/console/search?q=jim")
    found = browser.text
    browser.go("/console/search?q=+jim+")
    assert browser.text == found


@sqlite_only
def test_a_setting_with_a_condition_leads_to_the_rules_with_it(settings: Browser) -> None:
    settings.go("/console?feature=environment%3Dprod")
    (address,) = re.findall(r'href="(/console/settings/s[^"]*)"', settings.page)
    assert listed(settings, address) == ["3", "1"]


@sqlite_only
def test_the_list_of_settings_has_pages(browser: Browser, service: WatchedService) -> None:
    """With 100 settings each. A page after the last one is the last one."""
    for number in range(101):
        service.declare(f"setting{number:03}", "int", number, ["user"])
    names = ["s", *(f"setting{number:03}" for number in range(101))]
    assert listed(browser, "/console") == names[:100]
    assert "Page 1 of 2 Next Last" in browser.text
    assert 'href="/console?page=2" rel="next"' in browser.page
    for text, notice in (("2", ""), ("3", "There is no page 3: this is the last one."), ("999999999", "999,999,999")):
        assert listed(browser, f"/console?page={text}") == names[100:]
        assert notice in browser.text
        assert ("There is no page" in browser.text) is (notice != "")
    assert "First Previous Page 2 of 2" in browser.text
    for text in ("0", "-1", "x", "²", "9" * 5000):
        assert listed(browser, f"/console?page={text}") == names[:100]


# -- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["3", "5", "2", "4", "1"]),
        ("sort=priority", ["3", "5", "2", "4", "1"]),
        ("sort=-priority", ["1", "4", "2", "5", "3"]),
        ("sort=rule", ["1", "2", "3", "4", "5"]),
        ("sort=-rule", ["5", "4", "3", "2", "1"]),
        ("sort=value", ["1", "2", "3", "5", "4"]),
        ("sort=-value", ["4", "5", "3", "2", "1"]),
        ("find=user%3Dji", ["3", "2"]),
        ("find=A%C3%A9", ["5"]),
        ("find=jim&if.environment=prod", ["3"]),
        ("if.user=a%C3%A9", ["5"]),
        ("if.user=ae%CC%81", ["5"]),
        ("if.user=ji", []),
        ("value=2", ["2", "4"]),
        ("value=%00", []),
        ("by=ann", ["5", "4"]),
        ("by=%00", []),
    ],
)
def test_rules_are_filtered_and_sorted(browser: Browser, service: WatchedService, query: str, ids: list[str]) -> None:
    """Values that are numbers are sorted as such."""
    add_rules(service, ({"environment": "dev"}, 200, {}), ({"user": "aé"}, 50, {}), actor="ann")
    assert listed(browser, f"/console/settings/s?{query}") == ids


def test_rules_are_sorted_by_their_last_change(browser: Browser, service: WatchedService) -> None:
    """The latest first, unless the order is reversed."""
    service.call("PUT", "/api/v1/rules/1/value", {"value": 9})
    assert listed(browser, "/console/settings/s?sort=changed") == ["1", "3", "2"]
    assert listed(browser, "/console/settings/s?sort=-changed") == ["2", "3", "1"]
    assert "3 of 3 rules, sorted by last change. Sort by priority" in browser.text


def test_values_of_any_type_are_sorted(browser: Browser, service: WatchedService) -> None:
    service.declare("words", "str", "x", ["user"])
    for value in ("b", "10", "9"):
        service.add_rule("words", value, user=f"for{value}")
    assert listed(browser, "/console/settings/words?sort=value") == ["5", "6", "4"]


def test_the_rules_of_a_setting_have_pages(browser: Browser, service: WatchedService) -> None:
    """The number of rules that the filters select is shown."""
    add_rules(service, *(({"user": f"u{number}"}, number, {}) for number in range(205)))
    browser.go("/console/settings/s")
    assert "208 of 208 rules, in order of priority" in browser.text
    assert "Page 1 of 3" in browser.text
    assert len(listed(browser, "/console/settings/s?page=3")) == 8
    assert len(listed(browser, "/console/settings/s?page=4")) == 8
    assert "There is no page 4: this is the last one." in browser.text
    browser.go("/console/settings/s?find=user=u20")
    assert "6 of 208 rules" in browser.text
    assert "Pages of rules" not in browser.page
    browser.go("/console/settings/s?on.user=u7&others=1")
    assert "107 rules do not match." in browser.text
    assert '<option value="u204">' in browser.page


def test_filters_survive_a_change(browser: Browser, service: WatchedService) -> None:
    """Also one that is refused, and an undo."""
    page = "/console/settings/s?find=jim&value=2&on.user=ann&sort=-value"
    assert listed(browser, page) == ["2"]
    back = re.findall(r'name="back"[^>]* value="([^"]*)"', browser.page)
    assert set(back) == {page}
    fields = {"if.user": "ann", "value": "x", "back": page}
    assert browser.submit("/console/settings/s/rules", **fields).status_code == 422
    assert set(re.findall(r'name="back"[^>]* value="([^"]*)"', browser.page)) == {page}
    browser.go(page)
    response = browser.submit("/console/rules/2/value", value="22", back=page)
    assert response.url.raw_path.decode() == f"{page}&done=8"
    assert "Rule changed: 2 → changed to 22 for user jim" in browser.text
    response = browser.submit("/console/changes/8/undo", back=page)
    assert response.url.raw_path.decode() == f"{page}&done=9"


@sqlite_only
@pytest.mark.parametrize(
    "back", ["", "https://evil.example/console", "//evil.example", "/consoles", "/api/v1/settings", "console"]
)
def test_forms_lead_back_to_pages_of_the_console_only(browser: Browser, back: str) -> None:
    browser.go("/console/settings/s")
    response = browser.submit("/console/rules/1/delete", back=back)
    assert response.url.raw_path == b"/console/settings/s?done=8"
    assert response.url.host == browser.http.base_url.host


@sqlite_only
def test_a_form_may_lead_back_to_any_page_of_the_console(browser: Browser) -> None:
    """Which shows the change, if it lists changes."""
    browser.go("/console/settings/s")
    response = browser.submit("/console/rules/1/delete", back="/console")
    assert response.url.raw_path == b"/console?done=8"
    browser.go("/console/changes?action=rule+added")
    response = browser.submit("/console/changes/6/undo", back="/console/changes?action=rule+deleted")
    assert response.url.raw_path == b"/console/changes?action=rule+deleted&done=9"
    assert "Rule deleted: 2 for user jim Undo" in browser.text
    browser.go("/console/changes?done=99")
    assert 'id="done"' not in browser.page


def test_a_rule_shows_who_has_changed_it_when_and_why(browser: Browser, service: WatchedService) -> None:
    """Only addresses of web pages become links."""
    notes: dict[str, Any] = {"comment": "For\nthe trial", "link": "https://tickets.example/1", "ticket": "T-1"}
    script = {"comment": 5, "link": "javascript:alert(1)"}
    add_rules(service, ({"user": "a"}, 1, notes), ({"user": "b"}, 1, script), actor="ann")
    browser.go("/console/settings/s?by=ann")
    assert re.search(r"For the trial https://tickets.example/1 ticket: T-1 [0-9: -]{19} UTC by ann", browser.text)
    assert 'href="https://tickets.example/1" rel="noreferrer" hx-boost="false"' in browser.page
    assert "5 javascript:alert(1)" in browser.text
    assert 'href="javascript' not in browser.page


def test_a_temporary_rule_shows_its_period(browser: Browser, service: WatchedService) -> None:
    """A rule that is not in effect does not match."""
    for number, period in enumerate(
        [Period(PAST, FUTURE), Period(None, PAST), Period(FUTURE), Period(FUTURE, FUTURE.replace(day=2)), Period(PAST)]
    ):
        add_rules(service, ({"user": f"p{number}"}, number, {}), period=period)
    browser.go("/console/settings/s?find=user=p")
    start, end = "2001-02-03 04:05:00 UTC", "2999-12-01 09:00:00 UTC"
    texts = [
        " ".join(re.sub("<[^>]*>", " ", text).split())
        for text in re.findall(r'<span class="period[^>]*>(.*?)</span>', browser.page, re.DOTALL)
    ]
    assert texts == [f"until {end}", f"ended {start}", f"from {end}", f"from {end} until 2999-12-02 09:00:00 UTC"]
    assert f'<time datetime="2999-12-01T09:00:00+00:00">{end}</time>' in browser.page
    browser.go("/console/settings/s?on.user=p2&others=1")
    assert "The value is 7 : no rule matches" in browser.text
    assert "does not match : it is not in effect now" in browser.text


@sqlite_only
def test_the_date_of_a_change_may_not_be_known(browser: Browser, service: WatchedService) -> None:
    assert service.database is not None
    with service.database.begin() as connection:
        connection.exec_driver_sql("UPDATE rules SET changed_at = NULL")
    browser.go("/console/settings/s")
    assert "2 any jim user jim 2 not known" in browser.text


# -- changes -----------------------------------------------------------------------------------------------------------


def entries(browser: Browser, path: str) -> list[str]:
    """Return the texts of the changes that a page lists, without their times and buttons."""
    assert browser.go(path).status_code == 200
    rows = re.findall(r"<tr>\s*<td><time.*?</td>\s*<td>(.*?)</td>", browser.page, re.DOTALL)
    return [" ".join(re.sub("<[^>]*>", " ", row).split()) for row in rows]


def test_the_change_log_has_pages(browser: Browser, service: WatchedService) -> None:
    """With 100 changes each. The filters stay."""
    for value in range(110):
        service.call("PUT", "/api/v1/rules/1/value", {"value": value})
    assert len(entries(browser, "/console/changes?setting=s")) == 100
    (earlier,) = re.findall(r'href="(/console/changes\?[^"]*before=\d+)"', browser.page)
    assert "setting=s" in earlier
    assert "Setting declared: s" in entries(browser, earlier)[-1]
    assert 'href="/console/changes?setting=s">Latest changes' in browser.page
    assert "Earlier changes" not in browser.text


def test_the_change_log_shows_the_oldest_changes_first(browser: Browser, service: WatchedService) -> None:
    """In pages as well. The order and the filters stay in the address."""
    add_rules(service, *(({"user": f"u{number}"}, number, {}) for number in range(110)))
    newest = entries(browser, "/console/changes?feature=user&sort=newest")
    assert re.findall('aria-sort="([a-z]+)"', browser.page) == ["descending"]
    (oldest,) = re.findall(r'href="([^"]*)" hx-swap[^>]*>Time', browser.page)
    assert oldest == "/console/changes?feature=user&sort=oldest"
    first = entries(browser, oldest)
    assert re.findall('aria-sort="([a-z]+)"', browser.page) == ["ascending"]
    assert 'href="/console/changes?feature=user" hx-swap' in browser.page
    assert 'type="hidden" name="sort" value="oldest"' in browser.page
    (later,) = re.findall(r'href="([^"]*)" rel="next">Later changes', browser.page)
    assert f"{oldest}&after=" in later
    last = entries(browser, later)
    assert (len(first), len(last), last[:-101:-1]) == (100, 12, newest[:12])
    assert f'href="{oldest}">Oldest changes' in browser.page
    assert "Later changes" not in browser.text
    assert len(entries(browser, f"{oldest}&before=8")) == 2


def test_the_change_log_links_to_what_exists(browser: Browser, service: WatchedService) -> None:
    """To the rule and to the setting, also by its former name."""
    service.declare("gone", "int", 1, ["user"])
    rule = service.add_rule("gone", 2, user="jim")
    service.call("DELETE", "/api/v1/settings/gone")
    service.call("DELETE", "/api/v1/rules/1")
    service.call("PUT", "/api/v1/settings/s/name", {"name": "t", "version": "1.1"})
    entries(browser, "/console/changes?sort=oldest")
    rules = re.findall(r'href="/console/rules/(\d+)\?back=([^"]*)" aria-label="([^"]*)"', browser.page)
    assert [(each, label) for each, _, label in rules] == [(each, f"Rule added: rule {each}") for each in ("2", "3")]
    assert {back for _, back, _ in rules} == {"%2Fconsole%2Fchanges%3Fsort%3Doldest"}
    assert set(re.findall('href="/console/settings/([^"?]*)"', browser.page)) == {"s", "t"}
    assert f"/console/rules/{rule}" not in browser.page
    browser.go(f"/console/rules/2?back={rules[0][1]}")
    assert 'href="/console/changes?sort=oldest">Cancel' in browser.page
    assert set(re.findall('href="/console/settings/(.)"', browser.page)) == {"s"}
    assert "Rule added: rule 2" not in browser.page
    browser.go("/console/settings/t")
    assert "Rule added: rule 2" in browser.page


@pytest.fixture
def log(browser: Browser, service: WatchedService) -> Browser:
    """A log with changes of two tokens."""
    assert service.database is not None
    with service.database.begin() as connection:
        add_token(connection, "ann", Role.ADMIN)
    add_rules(service, ({"user": "a"}, 4, {}), actor="ann")
    add_rules(service, ({"user": "b"}, 5, {}), actor="bob")
    service.declare("other", "int", 1, ["user"])
    return browser


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 11),
        ("setting=s", 6),
        ("actor=ann", 1),
        ("actor=AN", 1),
        ("actor=z", 0),
        ("actor=schedule", 0),
        ("actor=%00", 0),
        ("q=S", 6),
        ("q=THE", 1),
        ("q=%00", 0),
        ("q=%5B", 0),
        ("feature=user", 4),
        ("feature=environment%3Dprod", 2),
        ("feature=+user+%3D+jim+", 2),
        ("feature=user%3Dji", 0),
        ("feature=user%22", 0),
        ("value=3", 1),
        ("value=7", 1),
        ("value=%00", 0),
        ("q=s&actor=bob&feature=user%3Db&value=5", 1),
        ("action=rule+added", 5),
        ("action=rule+added&actor=bob", 1),
        ("action=nosuch", 0),
        ("from=2001-01-01", 11),
        ("from=9999-12-31", 0),
        ("to=2001-01-01", 0),
        ("to=9999-12-31", 11),
        ("from=&to=&setting=&actor=&action=", 11),
    ],
)
def test_changes_are_filtered(log: Browser, query: str, count: int) -> None:
    assert len(entries(log, f"/console/changes?{query}")) == count
    assert '<option value="bob">' in log.page


def test_changes_of_a_day_include_its_last_second(browser: Browser, service: WatchedService) -> None:
    """Days are those of UTC."""
    assert service.database is not None
    with service.database.begin() as connection:
        for revision, at in ((4, datetime(2020, 2, 29, 23, 59, 59, 999999)), (5, datetime(2020, 3, 1))):
            changed = update(CHANGES).where(CHANGES.c.revision == revision).values(at=at.replace(tzinfo=UTC))
            connection.execute(changed)
    assert len(entries(browser, "/console/changes?from=2020-02-29&to=2020-02-29")) == 1
    assert len(entries(browser, "/console/changes?from=2020-03-01&to=2020-03-01")) == 1


@sqlite_only
@pytest.mark.parametrize("query", ["from=yesterday", "to=2020-02-30", "from=%00"])
def test_an_invalid_day_results_in_an_error_page(browser: Browser, query: str) -> None:
    response = browser.go(f"/console/changes?{query}")
    assert (response.status_code, "the address contains an invalid value" in response.text.lower()) == (422, True)


def test_a_change_shows_what_is_different(browser: Browser, service: WatchedService) -> None:
    """Attribute by attribute. A comment is shown with the change that brings it."""
    assert service.database is not None
    notes = {"comment": "Why", "link": "https://tickets.example/1", "ticket": 5}
    add_rules(service, ({"user": "a"}, 4, notes), period=Period(None, FUTURE), actor="ann")
    with service.database.begin() as connection:
        setting, rule = store.setting(connection, "s"), store.rule(connection, 4)
        assert setting is not None
        assert rule is not None
        store.change_rule(connection, setting, rule, value=5)
        changed = {"conditions": [("user", "b")], "metadata": {"ticket": 6, "comment": "New"}, "period": Period(PAST)}
        store.change_rule(connection, setting, rule, **changed)
        add_token(connection, "ann", Role.ADMIN)
    service.call("POST", "/api/v1/context_features", {"context_feature": "region"})
    service.call("PUT", "/api/v1/settings/s/name", {"name": "t", "version": "1.1"})
    service.call("PUT", "/api/v1/settings/t/type", {"type": "float", "version": "2.0"})
    service.call("DELETE", "/api/v1/settings/t")
    end = "2999-12-01 09:00:00 UTC"
    shown = entries(browser, "/console/changes")
    assert shown.pop(4).startswith("Token added name ann role admin created 20")
    assert shown[:-6] == [
        "Setting deleted: t type float default value 7 version 2.0 depends on environment, user rules 4 "
        "metadata owner shop",
        "Setting changed: t type int → changed to float version 1.1 → changed to 2.0",
        "Setting changed: s, t name s → changed to t version 1.0 → changed to 1.1",
        "Context feature added environment, user, theme → changed to environment, user, theme, region",
        f"Rule changed: s user b conditions user a → changed to user b end {end} start 2001-02-03 04:05:00 UTC "
        "metadata ticket 5 → changed to 6 New",
        "Rule changed: s user a 4 → changed to 5",
        f"Rule added: s user a 4 end {end} metadata ticket 5 Why https://tickets.example/1",
        "Rule added: s environment prod , user jim 3",
    ]
    assert re.search(r"revision 8 by ann", browser.text)


def test_changes_by_the_schedule_say_so(browser: Browser, service: WatchedService) -> None:
    """They have no actor, and the rule is the same as before."""
    assert service.database is not None
    with service.database.begin() as connection:
        setting, rule = store.setting(connection, "s"), store.rule(connection, 1)
        assert setting is not None
        assert rule is not None
        state = store.rule_as_json(rule)
        record_change(connection, "rule started", former=state, new=state, setting_id=setting.id, settings=["s"])
    assert entries(browser, "/console/changes?actor=schedule") == ["Rule started: s environment prod 1"]
    assert "by schedule" in browser.text
    assert "Undo" not in browser.page.partition("<tbody>")[2]


def test_names_with_special_characters_are_kept_in_links(browser: Browser) -> None:
    """And in inputs."""
    text = '"><b>&é '
    for path in ("/console?q=", "/console/settings/s?find=", "/console/changes?actor="):
        page = browser.go(f"{path}{quote(text)}").text
        assert "<b>&" not in page


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_the_rules_of_a_context_are_those_whose_conditions_it_meets(service: WatchedService, count: int) -> None:
    """With many or few values, and without those that are not in effect."""
    assert service.database is not None
    features = [f"f{number}" for number in range(10)]
    for feature in features:
        service.call("POST", "/api/v1/context_features", {"context_feature": feature})
    service.declare("many", "int", 0, features)
    context = {feature: f'"{feature}' for feature in features[:count]}
    subsets = [features[:1], features[:3], features[:9], features[1:2], features[2:3], features[9:]]
    with service.database.begin() as connection:
        setting = store.setting(connection, "many")
        assert setting is not None
        for subset in subsets:
            store.add_rule(connection, setting, {feature: f'"{feature}' for feature in subset}, len(subset), {})
        store.add_rule(connection, setting, {"f0": "x"}, 0, {})
        store.add_rule(connection, setting, {"f0": '"f0', "f1": '"f1'}, 0, {}, period=Period(None, PAST))
        found = matching_rules(connection, setting.id, context, features)
    expected = [{feature: f'"{feature}' for feature in subset} for subset in subsets if set(subset) <= set(context)]
    assert sorted(str(dict(rule.conditions)) for rule in found) == sorted(map(str, expected))
