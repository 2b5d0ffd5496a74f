"""The console, as a browser without scripts uses it."""

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from heksher_client.service.console.inputs import InputError, input_for, parse, put_in
from heksher_client.service.console.why import explain
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredRule
from heksher_client.service.tokens import Role, add_token, revoke_token
from tests.support.clients import eventually
from tests.support.http import http_client
from tests.support.service import WatchedService


class Browser:
    """Reads pages, and sends their forms."""

    def __init__(self, url: str) -> None:
        self.http = http_client(url, follow_redirects=True)
        self.page = ""

    def go(self, path: str) -> httpx.Response:
        answer = self.http.get(path)
        self.page = unescape(answer.text)
        return answer

    def send(self, action: str, **fields: Any) -> httpx.Response:
        """Send a form of the page that is open, with its hidden inputs."""
        assert f'action="{action}"' in self.page, action
        fields.setdefault("csrf", self.csrf)
        answer = self.http.post(action, data=fields)
        self.page = unescape(answer.text)
        return answer

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]*)"', self.page)
        return found[1] if found else ""

    @property
    def text(self) -> str:
        """What the page says, without its markup."""
        return " ".join(re.sub(r"<[^>]*>", " ", self.page.partition("<main")[2]).split())


@pytest.fixture
def browser(service: WatchedService) -> Iterator[Browser]:
    """On a setting `s` with three rules."""
    service.declare("s", "int", 7, ["environment", "user"], metadata={"owner": "shop"})
    service.add_rule("s", 1, environment="prod")
    service.add_rule("s", 2, user="jim")
    service.add_rule("s", 3, environment="prod", user="jim")
    held = Browser(service.url)
    yield held
    held.http.close()


def test_settings_are_listed_and_found(browser: Browser, service: WatchedService) -> None:
    """By their names, aliases and metadata."""
    service.declare("other", "str", "x", ["user"], metadata={"team": "search"})
    service.call("PUT", "/api/v1/settings/other/name", {"name": "renamed", "version": "1.1"})
    assert browser.go("/console").status_code == 200
    assert "2 settings" in browser.text
    for q, shown in [("renamed", "renamed"), ("OTHER", "renamed"), ("search", "renamed"), ("shop", "s")]:
        browser.go(f"/console?q={q}")
        assert "1 setting with" in browser.text
        assert f'/console/settings/{shown}"' in browser.page
    browser.go("/console?q=nothing")
    assert "0 settings" in browser.text


def test_a_setting_shows_its_rules_in_their_priority(browser: Browser) -> None:
    """And its declaration, and its last changes."""
    browser.go("/console/settings/s")
    assert re.findall(r'<tr id="rule-(\d+)">', browser.page) == ["3", "2", "1"]
    assert "Default value 7" in browser.text
    assert 'owner "shop"' in browser.text
    assert browser.text.count("rule added") == 3


def test_a_rule_is_added_changed_deleted_and_each_is_undone(browser: Browser, service: WatchedService) -> None:
    """The change that was just made is shown, with a button to undo it; undoing is a change like others."""
    browser.go("/console/settings/s")
    browser.send("/console/settings/s/rules", **{"if.user": "ann", "if.environment": "", "value": "40"})
    assert "Rule added: 40 for user ann" in browser.text
    browser.send("/console/rules/4/value", value="50")
    assert "Rule changed: 50 for user ann , before 40 for user ann" in browser.text
    assert values(service) == {1, 2, 3, 50}
    browser.send(undo(browser))
    assert values(service) == {1, 2, 3, 40}
    browser.send("/console/rules/4/delete")
    assert "Rule deleted: 40 for user ann" in browser.text
    assert values(service) == {1, 2, 3}
    browser.send(undo(browser))
    assert values(service) == {1, 2, 3, 40}
    browser.send(undo(browser))
    assert values(service) == {1, 2, 3}
    browser.go("/console/changes?setting=s")
    assert browser.text.count("rule deleted") == 2


def values(service: WatchedService) -> set[Any]:
    return {rule["value"] for rule in service.call("GET", "/api/v1/query").json()["settings"]["s"]["rules"]}


def undo(browser: Browser) -> str:
    """The undo button of the notice."""
    found = re.search(r'id="done".*?action="(/console/undo/\d+)"', browser.page, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("meanwhile", "words"),
    [
        (("PUT", "/api/v1/rules/1/value", {"value": 9}), "has been changed since"),
        (("DELETE", "/api/v1/rules/1", None), "has been changed since"),
        (("DELETE", "/api/v1/settings/s", None), "not there any more"),
    ],
)
def test_what_has_changed_since_is_not_undone(
    browser: Browser, service: WatchedService, meanwhile: tuple[str, str, Any], words: str
) -> None:
    """Nobody's change is lost."""
    browser.go("/console/settings/s")
    browser.send("/console/rules/1/value", value="5")
    service.call(*meanwhile)
    assert browser.send(undo(browser)).status_code == 409
    assert words in browser.text


@pytest.mark.parametrize(
    ("meanwhile", "words"),
    [
        (("POST", "/api/v1/rules", {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}), "same conditions"),
        (("PUT", "/api/v1/settings/s/type", {"type": 'Enum[1,3,7]', "version": "2.0"}), "another type"),
        (
            ("PUT", "/api/v1/settings/s/configurable_features",
             {"configurable_features": ["environment"], "version": "2.0"}), "other context features",
        ),
    ],
)  # fmt: skip
def test_a_deleted_rule_that_fits_no_more_stays_deleted(
    browser: Browser, service: WatchedService, meanwhile: tuple[str, str, Any], words: str
) -> None:
    """And the page says why."""
    service.call("DELETE", "/api/v1/rules/3")
    browser.go("/console/settings/s")
    browser.send("/console/rules/2/delete")
    service.call(*meanwhile)
    assert browser.send(undo(browser)).status_code == 409
    assert words in browser.text


def test_only_changes_of_rules_can_be_undone(browser: Browser, service: WatchedService) -> None:
    browser.go("/console/settings/s")
    for revision, status in [(1, 409), (999, 404)]:
        answer = browser.http.post(f"/console/undo/{revision}", data={"csrf": browser.csrf})
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("fields", "words", "where"),
    [
        ({"if.user": "ann", "value": "x"}, "this is no whole number", 'id="value-error"'),
        ({"if.user": "ann", "value": ""}, "a value is needed", 'id="value-error"'),
        ({"if.user": "a b", "value": "5"}, "letters, digits and underscores only", 'id="if-user-error"'),
        ({"if.user": "x" * 256, "value": "5"}, "at most 255 characters", 'id="if-user-error"'),
        ({"if.user": "", "value": "5"}, "at least one condition is needed", 'role="alert"'),
        ({"if.user": "jim", "value": "5"}, "rule already exists", 'role="alert"'),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(browser: Browser, fields: Any, words: str, where: str) -> None:
    """And what was put in stays there."""
    browser.go("/console/settings/s")
    assert browser.send("/console/settings/s/rules", **fields).status_code == 422
    assert words in browser.text
    assert where in browser.page
    assert f'name="if.user" list="known-user" value="{fields["if.user"]}"' in browser.page
    assert f'name="value" inputmode="decimal" autocomplete="off" value="{fields["value"]}"' in browser.page


def test_a_wrong_new_value_is_said_at_its_rule(browser: Browser) -> None:
    """Whose form stays open."""
    browser.go("/console/settings/s")
    assert browser.send("/console/rules/2/value", value="x").status_code == 422
    assert re.search(
        r'<tr id="rule-2">.*?<details open>.*?id="value-2-error">this is no whole number', browser.page, re.DOTALL
    )
    assert browser.page.count("<details open>") == 1


@pytest.mark.parametrize("path", ["/console/settings/nosuch", "/console/rules/99/delete"])
def test_what_is_not_there_is_said_on_a_page(browser: Browser, path: str) -> None:
    browser.go("/console/settings/s")
    answer = browser.go(path) if "rules" not in path else browser.http.post(path, data={"csrf": browser.csrf})
    assert (answer.status_code, "That cannot be done" in answer.text) == (404, True)


def test_the_panel_explains_each_rule(browser: Browser) -> None:
    """Which one wins, by which feature the others lose, and what does not match."""
    browser.go("/console/settings/s?on.environment=prod&on.user=jim")
    assert "The value is 3 : rule 3 wins." in browser.text
    assert "loses : rule 3 has a condition on environment, and this rule has none" in browser.text
    assert "loses : rule 3 has a condition on user, and this rule has none" in browser.text
    browser.go("/console/settings/s?on.user=ann")
    assert "The value is 7 : no rule matches, so it is the default value." in browser.text
    assert "does not match : environment is not given and user is ann" in browser.text


@pytest.mark.parametrize(
    "path",
    [
        "/console/changes?before=99999999999999999999",
        "/console/changes?before=abc",
        "/console/settings/s?done=99999999999999999999",
        "/console/settings/%00",
    ],
)
def test_an_address_that_cannot_be_is_said_on_a_page(browser: Browser, path: str) -> None:
    answer = browser.go(path)
    assert (answer.status_code, "That cannot be done" in answer.text) == (422, True)


@pytest.mark.parametrize(
    "action", ["/console/undo/99999999999999999999", "/console/rules/-99999999999999999999/delete"]
)
def test_a_form_for_what_cannot_be_is_refused(browser: Browser, action: str) -> None:
    browser.go("/console/settings/s")
    assert browser.http.post(action, data={"csrf": browser.csrf}).status_code == 422


def test_a_form_may_have_many_fields(browser: Browser, service: WatchedService) -> None:
    """As many as a type has flags."""
    flags = [f"f{i}" for i in range(1200)]
    service.declare("many", f"Flags{json.dumps(flags)}", [], ["user"])
    browser.go("/console/settings/many")
    answer = browser.send(
        "/console/settings/many/rules", **{"if.user": "jim", "value": [json.dumps(flag) for flag in flags]}
    )
    assert (answer.status_code, "Rule added" in browser.text) == (200, True)


def test_a_database_that_does_not_answer_is_said_on_a_page(
    browser: Browser, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.go("/console/settings/s")

    def connect(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(type(service.database), "_connect", connect)
    answer = browser.send("/console/rules/1/delete")
    assert (answer.status_code, "the database does not answer" in browser.text) == (500, True)


def test_undoing_does_not_take_true_for_1(browser: Browser, service: WatchedService) -> None:
    """To Python they are equal."""
    service.declare("e", "Enum[1,true,2]", 2, ["user"])
    browser.go("/console/settings/e")
    browser.send("/console/settings/e/rules", **{"if.user": "jim", "value": "1"})
    former = undo(browser)
    service.call("PUT", "/api/v1/rules/4/value", {"value": True})
    assert browser.send(former).status_code == 409


def test_a_long_value_can_be_seen_whole(browser: Browser, service: WatchedService) -> None:
    service.declare("long", "str", "x" * 500 + "end", ["user"])
    browser.go("/console/settings/long")
    assert "xend" in browser.page


def test_the_page_of_the_api_needs_nobody_else(browser: Browser) -> None:
    """No script of another host, which could use the console."""
    page = browser.http.get("/docs")
    assert (page.status_code, "//" in page.text.replace("<!doctype", "")) == (200, False)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for asset in re.findall(r'"(/console/assets/[^"]*)"', page.text):
        assert browser.http.get(asset).status_code == 200
    assert browser.http.get("/").url.path == "/console"
    assert browser.http.get("/redoc").status_code == 404


def test_texts_from_elsewhere_are_not_markup(browser: Browser, service: WatchedService) -> None:
    """Of programs that declare settings, and of operators."""
    evil = "<script>alert(1)</script>"
    service.declare("t", "str", evil, ["user"], metadata={"note": evil})
    service.add_rule("t", evil, user="jim")
    for path in ("/console", "/console/settings/t?on.user=<script>", "/console/changes", f"/console?q={evil}"):
        assert "<script>" not in browser.http.get(path).text.replace('<script src="/console/assets/htmx.min.js"', "")


def test_a_long_log_has_pages(browser: Browser, service: WatchedService) -> None:
    for value in range(60):
        service.call("PUT", "/api/v1/rules/1/value", {"value": value})
    browser.go("/console/changes")
    found = re.search(r'href="(/console/changes\?before=\d+)"', browser.page)
    assert found is not None
    assert browser.page.count("<time ") == 50
    browser.go(found[1])
    assert "setting declared" in browser.text


def test_many_rules_are_found_by_their_conditions(browser: Browser, service: WatchedService) -> None:
    """And only the first of them are shown."""
    for number in range(205):
        service.add_rule("s", number, user=f"u{number}")
    browser.go("/console/settings/s")
    assert "208 of 208 rules; the first 200 of them" in browser.text
    browser.go("/console/settings/s?find=user=u20")
    assert "6 of 208 rules" in browser.text


# -- what keeps others out ---------------------------------------------------------------------------------------------


def test_a_page_can_use_nothing_but_its_own_service(browser: Browser) -> None:
    """No script in the page, none from elsewhere, no frame around it."""
    for path in ("/console", "/console/settings/s", "/console/changes", "/console/login", "/console/settings/nosuch"):
        answer = browser.go(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        for address in re.findall(r'(?:src|href|action)="([^"]*)"', answer.text):
            assert not urlsplit(address).netloc, address
        assert " style=" not in answer.text
        assert not re.search(r"\son\w+=", answer.text)
        for asset in re.findall(r'"(/console/assets/[^"]*)"', answer.text):
            assert browser.http.get(asset).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_form_of_another_site_does_nothing(
    browser: Browser, service: WatchedService, headers: dict[str, str]
) -> None:
    """Even if it knows what the console's forms carry."""
    browser.go("/console/settings/s")
    answer = browser.http.post("/console/rules/1/delete", data={"csrf": browser.csrf}, headers=headers)
    assert answer.status_code == 403
    assert values(service) == {1, 2, 3}


@pytest.mark.parametrize("csrf", ["", "nonsense", "é"])
def test_a_form_that_was_not_made_for_the_session_does_nothing(
    browser: Browser, service: WatchedService, csrf: str
) -> None:
    browser.go("/console/settings/s")
    assert browser.send("/console/rules/1/delete", csrf=csrf).status_code == 403
    other = browser.csrf
    browser.http.cookies.clear()
    assert browser.http.post("/console/rules/1/delete", data={"csrf": other}).status_code == 403
    assert values(service) == {1, 2, 3}


def test_a_name_that_was_made_to_lead_here_is_refused(browser: Browser) -> None:
    """A page of another site could otherwise use a service without tokens, through the browser of who looks at it."""
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
        assert browser.http.get("/console", headers={name: "8.8.8.8"}).status_code == 403
    for host, status in [
        ("[", 403),
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("localhost:1", 200),
        ("[::1]:1", 200),
    ]:
        assert browser.http.get("/console", headers={"Host": host}).status_code == status
        assert browser.http.get("/api/v1/settings", headers={"Host": host}).status_code == status


@pytest.fixture
def guarded(service: WatchedService, new_database: Callable[[], str]) -> Iterator[tuple[Browser, dict[str, str]]]:
    """A service that needs tokens, with the setting `s` and a rule, and a token of each role."""
    service.renew(new_database(), access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        texts = {role.value: add_token(connection, role.value, role) for role in Role}
    held = Browser(service.url)
    http = {"Authorization": f"Bearer {texts['admin']}"}
    for path, body in (
        (
            "/api/v1/settings/declare",
            {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]},
        ),
        ("/api/v1/rules", {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}),
    ):
        held.http.post(path, json=body, headers=http).raise_for_status()
    yield held, texts
    held.http.close()


def test_whoever_has_no_session_is_asked_to_log_in(guarded: tuple[Browser, dict[str, str]]) -> None:
    """And then comes to where they wanted to go."""
    browser, tokens = guarded
    browser.go("/console/settings/s")
    assert "Log in" in browser.text
    nonsense = tokens["admin"][:-1]
    assert browser.send("/console/login", token=nonsense, next="/console/settings/s").status_code == 422
    assert "this token is unknown" in browser.text
    answer = browser.send("/console/login", token=tokens["admin"], next="/console/settings/s")
    assert str(answer.url).endswith("/console/settings/s")
    cookie = answer.history[0].headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert tokens["admin"] not in cookie
    browser.send("/console/rules/1/value", value="9")
    browser.go("/console/changes")
    assert re.search(r"UTC admin rule changed", browser.text)
    browser.send("/console/logout")
    assert "Log in" in browser.go("/console").text


def test_a_script_whose_session_has_ended_is_sent_to_the_login(guarded: tuple[Browser, dict[str, str]]) -> None:
    """And a page comes back to where it was, with its question."""
    browser, _ = guarded
    answer = browser.http.get("/console?q=s", headers={"HX-Request": "true", "HX-Target": "settings"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/console/login?next=%2Fconsole")
    assert str(browser.http.get("/console/settings/s?on.user=jim").url).endswith(
        "next=%2Fconsole%2Fsettings%2Fs%3Fon.user%3Djim"
    )


def test_other_cookies_of_the_host_do_no_harm(guarded: tuple[Browser, dict[str, str]]) -> None:
    """Not even those that are no proper cookies."""
    browser, tokens = guarded
    browser.go("/console")
    browser.send("/console/login", token=tokens["admin"], next="/console")
    session = browser.http.cookies["heksher_session"]
    browser.http.cookies.clear()
    for others in ('prefs={"a":1}; ', "a{b}=x y; ", "=; "):
        answer = browser.http.get("/console", headers={"Cookie": f"{others}heksher_session={session}"})
        assert "Log out" in answer.text


def test_a_login_leads_nowhere_else(guarded: tuple[Browser, dict[str, str]]) -> None:
    browser, tokens = guarded
    browser.go("/console")
    answer = browser.send("/console/login", token=tokens["read"], next="https://evil.example/console")
    assert str(answer.url) == str(browser.http.base_url.join("/console"))


def test_whoever_may_only_read_is_offered_no_changes(guarded: tuple[Browser, dict[str, str]]) -> None:
    """And cannot make any."""
    browser, tokens = guarded
    browser.go("/console")
    browser.send("/console/login", token=tokens["read"], next="/console/settings/s")
    assert "Add the rule" not in browser.page
    assert "/delete" not in browser.page
    answer = browser.http.post("/console/rules/1/delete", data={"csrf": browser.csrf})
    assert answer.status_code == 403


def test_a_session_ends_with_its_token(guarded: tuple[Browser, dict[str, str]], service: WatchedService) -> None:
    browser, tokens = guarded
    browser.go("/console")
    browser.send("/console/login", token=tokens["admin"], next="/console")
    assert service.database is not None
    with service.database.begin() as connection:
        revoke_token(connection, "admin")
    assert eventually(lambda: "Log in" in browser.go("/console").text)


def test_a_cookie_is_no_token_for_the_api(guarded: tuple[Browser, dict[str, str]]) -> None:
    browser, tokens = guarded
    browser.go("/console")
    browser.send("/console/login", token=tokens["admin"], next="/console")
    assert browser.http.get("/api/v1/settings").status_code == 401


# -- the parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value", "kind"),
    [
        ("int", 5, "number"),
        ("int", -(10**30), "number"),
        ("float", 0.5, "number"),
        ("float", 2, "number"),
        ("bool", False, "choice"),
        ("str", "two\nlines ", "text"),
        ('Enum["a",1,true]', True, "choice"),
        ('Enum["a",1,true]', 1, "choice"),
        ('Enum["1",1]', "1", "choice"),
        ('Flags["a","b"]', ["b"], "choices"),
        ('Flags["a","b"]', [], "choices"),
        ("Sequence<int>", [1, 2], "json"),
        ("Mapping<Sequence<str>>", {"k": ["é"]}, "json"),
    ],
)
def test_an_input_gives_back_the_value_that_it_shows(type_: str, value: Any, kind: str) -> None:
    """Of every type."""
    parsed = parse_setting_type(type_)
    assert input_for(parsed).kind == kind
    back = parse(parsed, put_in(parsed, value))
    assert (back, type(back)) == (value, type(value))


def test_a_whole_number_may_have_been_given_as_another_kind() -> None:
    """JSON has but one kind; what is shown can be saved as it is."""
    assert parse(parse_setting_type("int"), put_in(parse_setting_type("int"), 5.0)) == 5
    assert put_in(parse_setting_type("Enum[1,2]"), 2.0) == ["2"]
    assert [label for _, label in input_for(parse_setting_type('Enum["1",1,"a"]')).options] == ['"1"', "a", "1"]


@pytest.mark.parametrize(
    ("type_", "given", "words"),
    [
        ("int", ["1.5"], "no whole number"),
        ("int", [], "a value is needed"),
        ("float", ["nan"], "no number"),
        ("float", ["1e999"], "Out of range"),
        ("bool", ["maybe"], "no JSON"),
        ('Enum["a"]', ['"b"'], "no value of the type"),
        ('Flags["a"]', ['"a"', '"a"'], "no value of the type"),
        ("Sequence<int>", ["[1,"], "in line 1 at column 4"),
        ("Sequence<int>", ["[" * 100_000], "no JSON that can be read"),
        ("Sequence<int>", ['["a"]'], "no value of the type Sequence<int>"),
    ],
)
def test_an_input_says_what_is_wrong(type_: str, given: list[str], words: str) -> None:
    """In words for people."""
    with pytest.raises(InputError, match=re.escape(words)):
        parse(parse_setting_type(type_), given)


def test_the_explanation_names_the_last_feature_in_which_two_rules_differ() -> None:
    """As the priority of rules has it: the last one decides first."""
    order = ["a", "b", "c"]
    rules = [
        StoredRule(1, 1, (("a", "x"), ("b", "x")), 1, {}),
        StoredRule(2, 1, (("c", "x"),), 2, {}),
        StoredRule(3, 1, (("a", "y"),), 3, {}),
    ]
    why = explain(rules, order, 0, {"a": "x", "b": "x", "c": "x"}, most=0)
    assert (why.value, why.winner, why.left_out) == (2, 2, 1)
    assert [(line.rule.id, line.outcome) for line in why.lines] == [(2, "wins"), (1, "loses")]
    assert [cell.decides for cell in why.lines[1].cells] == [False, False, True]
