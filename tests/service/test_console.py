"""The console in a browser without scripts."""

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from heksher_client.service import store
from heksher_client.service.console.inputs import InputError, format_input, input_for, parse_input
from heksher_client.service.console.why import explain
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredRule
from heksher_client.service.tokens import Role, add_token, revoke_token
from tests.support.clients import eventually
from tests.support.http import http_client
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService


class Browser:
    """An HTTP client that reads pages and submits their forms."""

    def __init__(self, url: str) -> None:
        self.http = http_client(url, follow_redirects=True)
        self.page = ""

    def go(self, path: str) -> httpx.Response:
        return self._show(self.http.get(path))

    def submit(self, action: str, **fields: Any) -> httpx.Response:
        """Submit a form of the current page with its hidden inputs."""
        assert f'action="{action}"' in self.page, action
        fields.setdefault("csrf", self.csrf)
        return self._show(self.http.post(action, data=fields))

    def _show(self, response: httpx.Response) -> httpx.Response:
        self.page = unescape(absolute(response))
        return response

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]*)"', self.page)
        return found[1] if found else ""

    @property
    def text(self) -> str:
        """The text of the page, without its markup."""
        return " ".join(re.sub(r"<[^>]*>", " ", self.page.partition("<main")[2]).split())


def absolute(response: httpx.Response) -> str:
    """Return a page with absolute paths, as the browser resolves them."""

    def resolve(found: re.Match[str]) -> str:
        return f'{found[1]}="{response.url.join(unescape(found[2])).raw_path.decode()}"'

    return re.sub(r'\b(href|src|action|hx-get)="([^"#:]+)"', resolve, response.text)


@pytest.fixture
def browser(service: WatchedService) -> Iterator[Browser]:
    """A browser, and the setting `s` with three rules."""
    service.declare("s", "int", 7, ["environment", "user"], metadata={"owner": "shop"})
    service.add_rule("s", 1, environment="prod")
    service.add_rule("s", 2, user="jim")
    service.add_rule("s", 3, environment="prod", user="jim")
    client = Browser(service.url)
    yield client
    client.http.close()


def test_settings_are_listed_and_searched(browser: Browser, service: WatchedService) -> None:
    """By names, aliases and metadata."""
    service.declare("other", "str", "x", ["user"], metadata={"team": "search"})
    service.call("PUT", "/api/v1/settings/other/name", {"name": "renamed", "version": "1.1"})
    assert browser.go("/console").status_code == 200
    assert "2 settings" in browser.text
    for q, shown in [("renamed", "renamed"), ("OTHER", "renamed"), ("search", "renamed"), ("shop", "s")]:
        browser.go(f"/console?q={q}")
        assert "1 setting matching" in browser.text
        assert f'/console/settings/{shown}"' in browser.page
    browser.go("/console?q=nothing")
    assert "0 settings" in browser.text


def test_the_page_of_a_setting_lists_its_rules_by_priority(browser: Browser) -> None:
    """And its declaration and last changes."""
    browser.go("/console/settings/s")
    assert re.findall(r'<tr id="rule-(\d+)">', browser.page) == ["3", "2", "1"]
    assert "Default value 7" in browser.text
    assert 'owner "shop"' in browser.text
    assert browser.text.count("rule added") == 3


def test_adding_changing_and_deleting_a_rule_can_be_undone(browser: Browser, service: WatchedService) -> None:
    """The last change is shown with an undo button. An undo can be undone as well."""
    browser.go("/console/settings/s")
    browser.submit("/console/settings/s/rules", **{"if.user": "ann", "if.environment": "", "value": "40"})
    assert "Rule added: 40 for user ann" in browser.text
    browser.submit("/console/rules/4/value", value="50")
    assert "Rule changed: 50 for user ann , previously 40 for user ann" in browser.text
    assert values(service) == {1, 2, 3, 50}
    browser.submit(undo(browser))
    assert values(service) == {1, 2, 3, 40}
    browser.submit("/console/rules/4/delete")
    assert "Rule deleted: 40 for user ann" in browser.text
    assert values(service) == {1, 2, 3}
    browser.submit(undo(browser))
    assert values(service) == {1, 2, 3, 40}
    browser.submit(undo(browser))
    assert values(service) == {1, 2, 3}
    browser.go("/console/changes?setting=s")
    assert browser.text.count("rule deleted") == 2


def values(service: WatchedService) -> set[Any]:
    return {rule["value"] for rule in service.call("GET", "/api/v1/query").json()["settings"]["s"]["rules"]}


def undo(browser: Browser) -> str:
    """Return the action of the undo button for the last change."""
    found = re.search(r'id="done".*?action="(/console/undo/\d+)"', browser.page, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (("PUT", "/api/v1/rules/1/value", {"value": 9}), "has been changed since"),
        (("DELETE", "/api/v1/rules/1", None), "has been changed since"),
        (("DELETE", "/api/v1/settings/s", None), "no longer exists"),
    ],
)
def test_a_change_is_not_undone_if_the_rule_has_changed_since(
    browser: Browser, service: WatchedService, operation: tuple[str, str, Any], message: str
) -> None:
    browser.go("/console/settings/s")
    browser.submit("/console/rules/1/value", value="5")
    service.call(*operation)
    assert browser.submit(undo(browser)).status_code == 409
    assert message in browser.text


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (
            ("POST", "/api/v1/rules", {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}),
            "the same conditions",
        ),
        (("PUT", "/api/v1/settings/s/type", {"type": 'Enum[1,3,7]', "version": "2.0"}), "another type"),
        (
            ("PUT", "/api/v1/settings/s/configurable_features",
             {"configurable_features": ["environment"], "version": "2.0"}), "other configurable features",
        ),
    ],
)  # fmt: skip
def test_a_deleted_rule_is_not_restored_if_it_no_longer_fits(
    browser: Browser, service: WatchedService, operation: tuple[str, str, Any], message: str
) -> None:
    """The page says why."""
    service.call("DELETE", "/api/v1/rules/3")
    browser.go("/console/settings/s")
    browser.submit("/console/rules/2/delete")
    service.call(*operation)
    assert browser.submit(undo(browser)).status_code == 409
    assert message in browser.text


def test_only_changes_of_rules_can_be_undone(browser: Browser, service: WatchedService) -> None:
    browser.go("/console/settings/s")
    for revision, status in [(1, 409), (999, 404)]:
        response = browser.http.post(f"/console/undo/{revision}", data={"csrf": browser.csrf})
        assert response.status_code == status


@sqlite_only
@pytest.mark.parametrize(
    ("fields", "message", "where"),
    [
        ({"if.user": "ann", "value": "x"}, "not a whole number", 'id="value-error"'),
        ({"if.user": "ann", "value": ""}, "a value is required", 'id="value-error"'),
        ({"if.user": "a\tb", "value": "5"}, "without control characters", 'id="if-user-error"'),
        ({"if.user": "x" * 256, "value": "5"}, "must have 1 to 255 characters", 'id="if-user-error"'),
        ({"if.user": "", "value": "5"}, "at least one condition is required", 'role="alert"'),
        ({"if.user": "jim", "value": "5"}, "rule already exists", 'role="alert"'),
    ],
)
def test_an_error_is_shown_next_to_its_input(browser: Browser, fields: Any, message: str, where: str) -> None:
    """The form keeps its content."""
    browser.go("/console/settings/s")
    assert browser.submit("/console/settings/s/rules", **fields).status_code == 422
    assert message in browser.text
    assert where in browser.page
    assert f'name="if.user" list="suggestions-user" value="{fields["if.user"]}"' in browser.page
    assert f'name="value" inputmode="decimal" autocomplete="off" value="{fields["value"]}"' in browser.page


@sqlite_only
def test_an_invalid_new_value_is_reported_at_its_rule(browser: Browser) -> None:
    """The form of the rule stays open."""
    browser.go("/console/settings/s")
    assert browser.submit("/console/rules/2/value", value="x").status_code == 422
    assert re.search(
        r'<tr id="rule-2">.*?<details open>.*?id="value-2-error">not a whole number', browser.page, re.DOTALL
    )
    assert browser.page.count("<details open>") == 1


@pytest.mark.parametrize("path", ["/console/settings/nosuch", "/console/rules/99/delete"])
def test_a_setting_or_rule_that_does_not_exist_results_in_an_error_page(browser: Browser, path: str) -> None:
    browser.go("/console/settings/s")
    response = browser.go(path) if "rules" not in path else browser.http.post(path, data={"csrf": browser.csrf})
    assert (response.status_code, "The request failed" in response.text) == (404, True)


def test_the_explanation_shows_the_outcome_of_each_rule(browser: Browser) -> None:
    """The winner, the features by which other rules lose, and the rules that do not match."""
    browser.go("/console/settings/s?on.environment=prod&on.user=jim")
    assert "The value is 3 : rule 3 wins." in browser.text
    assert "loses : rule 3 has a condition on environment, and this rule does not" in browser.text
    assert "loses : rule 3 has a condition on user, and this rule does not" in browser.text
    browser.go("/console/settings/s?on.user=ann")
    assert "The value is 7 : no rule matches, so it is the default value." in browser.text
    assert "does not match : environment is not given and user is ann" in browser.text


@sqlite_only
@pytest.mark.parametrize(
    "path",
    [
        "/console/changes?before=99999999999999999999",
        "/console/changes?before=abc",
        "/console/settings/s?done=99999999999999999999",
    ],
)
def test_an_invalid_address_results_in_an_error_page(browser: Browser, path: str) -> None:
    response = browser.go(path)
    assert (response.status_code, "The request failed" in response.text) == (422, True)


@pytest.mark.parametrize("name", ["nosuch", "not-valid", "with%20space", "%00", "x" * 300, "%ED%A0%80"])
def test_l4_the_page_of_a_setting_with_an_invalid_name_does_not_exist(browser: Browser, name: str) -> None:
    """As the page of each other setting that does not exist."""
    browser.go("/console/settings/s")
    form = {"csrf": browser.csrf, "if.user": "ann", "value": "5"}
    added = browser.http.post(f"/console/settings/{name}/rules", data=form)
    assert (added.status_code, "does not exist any more. You entered 5." in added.text) == (404, True)
    response = browser.go(f"/console/settings/{name}")
    assert (response.status_code, "does not exist" in response.text) == (404, True)


@pytest.mark.unmeasured
def test_texts_that_databases_refuse_are_compared_as_all_others(browser: Browser) -> None:
    """Texts of addresses and forms: NUL, and patterns that are too long."""
    browser.go("/console/settings/s")
    csrf = browser.csrf
    for text in ("\0", "s\0", '"', 's", "s', "\\", "%", "_" * 20_000, "a" * 60_000):
        given = quote(text)
        assert browser.go(f"/console/changes?setting={given}").status_code == 200
        assert "No changes." in browser.text
        for path in ("/console?q=", "/console/settings/s?find=", "/console/settings/s?on.user="):
            assert browser.go(f"{path}{given}").status_code == 200
        for action, fields, status in (
            ("/console/rules/99/value", {"setting": text, "value": "5"}, 404),
            ("/console/rules/1/value", {"etag": text, "value": "5"}, 409),
            ("/console/rules/1/value", {"value": text}, 422),
            ("/console/settings/s/rules", {"if.user": f"\x01{text}", "value": "5"}, 422),
            ("/console/login", {"token": text}, 422),
            ("/console/rules/1/delete", {"csrf": text}, 403),
        ):
            form = {"csrf": csrf} | fields
            assert browser.http.post(action, data=form).status_code == status, (action, fields)


def test_the_changes_of_a_setting_are_not_those_of_similar_names(browser: Browser, service: WatchedService) -> None:
    """Other case, and characters that have a meaning in patterns. A change of the other setting hides no undo."""
    for name in ("my_cache", "My_Cache", "my.cache", "myXcache", "my_cache.x"):
        service.declare(name, "int", 7, ["user"])
    log = service.call("GET", "/api/v1/change_log?setting=my_cache").json()["changes"]
    assert [change["settings"] for change in log] == [["my_cache"]]
    browser.go("/console/changes?setting=my_cache")
    assert browser.text.count("setting declared") == 1
    browser.go("/console/settings/my_cache")
    added = browser.submit("/console/settings/my_cache/rules", **{"if.user": "jim", "value": "1"})
    service.add_rule("My_Cache", 2, user="jim")
    browser.go(added.url.raw_path.decode())
    assert "Rule added: 1 for user jim" in browser.text


@sqlite_only
@pytest.mark.parametrize("action", ["/console/undo/99999999999999999999", "/console/rules/1.0/delete"])
def test_a_form_with_an_invalid_address_is_refused(browser: Browser, action: str) -> None:
    browser.go("/console/settings/s")
    assert browser.http.post(action, data={"csrf": browser.csrf}).status_code == 422


@sqlite_only
def test_a_form_may_have_many_fields(browser: Browser, service: WatchedService) -> None:
    """As many as a type has flags."""
    flags = [f"f{i}" for i in range(1200)]
    service.declare("many", f"Flags{json.dumps(flags)}", [], ["user"])
    browser.go("/console/settings/many")
    response = browser.submit(
        "/console/settings/many/rules", **{"if.user": "jim", "value": [json.dumps(flag) for flag in flags]}
    )
    assert (response.status_code, "Rule added" in browser.text) == (200, True)


@sqlite_only
def test_an_unavailable_database_results_in_an_error_page(
    browser: Browser, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.go("/console/settings/s")

    def connect(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(type(service.database), "_connect", connect)
    response = browser.submit("/console/rules/1/delete")
    assert (response.status_code, "the database is not available" in browser.text) == (500, True)


def test_an_undo_distinguishes_1_from_true(browser: Browser, service: WatchedService) -> None:
    """They are equal in Python."""
    service.declare("e", "Enum[1,true,2]", 2, ["user"])
    browser.go("/console/settings/e")
    browser.submit("/console/settings/e/rules", **{"if.user": "jim", "value": "1"})
    former = undo(browser)
    service.call("PUT", "/api/v1/rules/4/value", {"value": True})
    assert browser.submit(former).status_code == 409


@sqlite_only
def test_a_long_value_can_be_displayed_completely(browser: Browser, service: WatchedService) -> None:
    service.declare("long", "str", "x" * 500 + "end", ["user"])
    browser.go("/console/settings/long")
    assert "xend" in browser.page


@sqlite_only
def test_the_api_page_loads_nothing_from_other_hosts(browser: Browser) -> None:
    """Their scripts could use the console."""
    page = browser.http.get("/docs")
    assert (page.status_code, "//" in page.text.replace("<!doctype", "")) == (200, False)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assets = re.findall(r'"(/console/assets/[^"]*)"', absolute(page))
    assert len(assets) == 4
    for asset in assets:
        assert browser.http.get(asset).status_code == 200
    assert browser.http.get("/").url.path == "/console"
    assert browser.http.get("/redoc").status_code == 404


@sqlite_only
def test_texts_are_escaped(browser: Browser, service: WatchedService) -> None:
    """In declarations, rules, and addresses."""
    evil = "<script>alert(1)</script>"
    service.declare("t", "str", evil, ["user"], metadata={"note": evil})
    service.add_rule("t", evil, user="jim")
    for path in ("/console", "/console/settings/t?on.user=<script>", "/console/changes", f"/console?q={evil}"):
        assert "<script>" not in browser.http.get(path).text.replace("<script src=", "")


def test_the_change_log_is_paginated(browser: Browser, service: WatchedService) -> None:
    for value in range(60):
        service.call("PUT", "/api/v1/rules/1/value", {"value": value})
    browser.go("/console/changes")
    found = re.search(r'href="(/console/changes\?before=\d+)"', browser.page)
    assert found is not None
    assert browser.page.count("<time ") == 50
    browser.go(found[1])
    assert "setting declared" in browser.text


def test_rules_are_searched_by_their_conditions(browser: Browser, service: WatchedService) -> None:
    """A limited number is shown."""
    assert service.database is not None
    with service.database.begin() as connection:
        setting = store.setting(connection, "s")
        assert setting is not None
        for number in range(205):
            store.add_rule(connection, setting, {"user": f"u{number}"}, number, {})
    browser.go("/console/settings/s")
    assert "208 of 208 rules; showing the first 200" in browser.text
    browser.go("/console/settings/s?find=user=u20")
    assert "6 of 208 rules" in browser.text


# -- security ----------------------------------------------------------------------------------------------------------


@sqlite_only
def test_pages_load_and_send_nothing_beyond_their_service(browser: Browser) -> None:
    """There are no inline scripts, nothing from other hosts, and no frames around pages."""
    for path in ("/console", "/console/settings/s", "/console/changes", "/console/login", "/console/settings/nosuch"):
        response = browser.go(path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        for address in re.findall(r'(?:src|href|action)="([^"]*)"', response.text):
            assert not urlsplit(address).netloc, address
        assert " style=" not in response.text
        assert not re.search(r"\son\w+=", response.text)
        for asset in re.findall(r'"(/console/assets/[^"]*)"', absolute(response)):
            assert browser.http.get(asset).status_code == 200


@sqlite_only
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_form_of_another_site_is_refused(browser: Browser, service: WatchedService, headers: dict[str, str]) -> None:
    """Even with a valid CSRF token."""
    browser.go("/console/settings/s")
    response = browser.http.post("/console/rules/1/delete", data={"csrf": browser.csrf}, headers=headers)
    assert response.status_code == 403
    assert values(service) == {1, 2, 3}


@sqlite_only
@pytest.mark.parametrize("csrf", ["", "nonsense", "é"])
def test_a_form_without_the_csrf_token_of_the_session_is_refused(
    browser: Browser, service: WatchedService, csrf: str
) -> None:
    browser.go("/console/settings/s")
    assert browser.submit("/console/rules/1/delete", csrf=csrf).status_code == 403
    other = browser.csrf
    browser.http.cookies.clear()
    assert browser.http.post("/console/rules/1/delete", data={"csrf": other}).status_code == 403
    assert values(service) == {1, 2, 3}


@sqlite_only
def test_a_request_for_another_host_or_through_a_proxy_is_refused_without_tokens(browser: Browser) -> None:
    """A page of another site could otherwise use the service through the browser of its visitor (DNS rebinding)."""
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Port", "X-Forwarded-Proto"):
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
def protected(service: WatchedService, new_database: Callable[[], str]) -> Iterator[tuple[Browser, dict[str, str]]]:
    """A service that requires tokens, with the setting `s` and a rule, and one token of each role."""
    service.reset(new_database(), access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        texts = {role.value: add_token(connection, role.value, role) for role in Role}
    client = Browser(service.url)
    http = {"Authorization": f"Bearer {texts['admin']}"}
    for path, body in (
        (
            "/api/v1/settings/declare",
            {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]},
        ),
        ("/api/v1/rules", {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}),
    ):
        client.http.post(path, json=body, headers=http).raise_for_status()
    yield client, texts
    client.http.close()


def test_a_request_without_a_session_leads_to_the_login_form(protected: tuple[Browser, dict[str, str]]) -> None:
    """The login leads back to the requested page."""
    browser, tokens = protected
    browser.go("/console/settings/s")
    assert "Log in" in browser.text
    nonsense = tokens["admin"][:-1]
    assert browser.submit("/console/login", token=nonsense, next="/console/settings/s").status_code == 422
    assert "this token is unknown" in browser.text
    response = browser.submit("/console/login", token=tokens["admin"], next="/console/settings/s")
    assert str(response.url).endswith("/console/settings/s")
    cookie = response.history[0].headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert tokens["admin"] not in cookie
    browser.submit("/console/rules/1/value", value="9")
    browser.go("/console/changes")
    assert re.search(r"UTC admin rule changed", browser.text)
    browser.submit("/console/logout")
    assert "Log in" in browser.go("/console").text


@sqlite_only
def test_htmx_loads_the_page_again_once_the_session_has_ended(protected: tuple[Browser, dict[str, str]]) -> None:
    """The page leads to the login form, and from there back to it, with its query."""
    browser, _ = protected
    response = browser.http.get("/console?q=s", headers={"HX-Request": "true", "HX-Target": "settings"})
    assert (response.status_code, response.headers["hx-refresh"]) == (401, "true")
    assert str(browser.http.get("/console/settings/s?on.user=jim").url).endswith(
        "next=%2Fconsole%2Fsettings%2Fs%3Fon.user%3Djim"
    )


@sqlite_only
def test_other_cookies_of_the_host_are_ignored(protected: tuple[Browser, dict[str, str]]) -> None:
    """Including malformed ones."""
    browser, tokens = protected
    browser.go("/console")
    browser.submit("/console/login", token=tokens["admin"], next="/console")
    session = browser.http.cookies["heksher_session"]
    browser.http.cookies.clear()
    for others in ('prefs={"a":1}; ', "a{b}=x y; ", "=; "):
        response = browser.http.get("/console", headers={"Cookie": f"{others}heksher_session={session}"})
        assert "Log out" in response.text


@sqlite_only
def test_the_login_redirects_to_other_pages_of_the_console_only(protected: tuple[Browser, dict[str, str]]) -> None:
    browser, tokens = protected
    browser.go("/console")
    for page in ("https://evil.example/console", "/console/login", "/console/login/", "/console/login?next=/console"):
        browser.go("/console/login")
        response = browser.submit("/console/login", token=tokens["read"], next=page)
        assert str(response.url) == str(browser.http.base_url.join("/console"))


@sqlite_only
def test_the_address_of_the_login_form_may_end_with_a_slash(protected: tuple[Browser, dict[str, str]]) -> None:
    """It keeps the page to which the login leads."""
    browser, _ = protected
    response = browser.go("/console/login/?next=/console/changes")
    assert str(response.url) == str(browser.http.base_url.join("/console/login?next=/console/changes"))


@pytest.mark.parametrize("role", ["read", "declare"])
def test_l14_the_other_roles_have_no_forms(protected: tuple[Browser, dict[str, str]], role: str) -> None:
    """And cannot submit any. They can log out."""
    browser, tokens = protected
    browser.go("/console")
    browser.submit("/console/login", token=tokens[role], next="/console/settings/s")
    assert f"{role} ({role})" in browser.page
    assert "Add rule" not in browser.page
    assert "/delete" not in browser.page
    response = browser.http.post("/console/rules/1/delete", data={"csrf": browser.csrf})
    assert response.status_code == 403
    browser.submit("/console/logout")
    assert "Log in" in browser.go("/console").text


def test_a_session_ends_with_its_token(protected: tuple[Browser, dict[str, str]], service: WatchedService) -> None:
    browser, tokens = protected
    browser.go("/console")
    browser.submit("/console/login", token=tokens["admin"], next="/console")
    assert service.database is not None
    with service.database.begin() as connection:
        revoke_token(connection, "admin")
    assert eventually(lambda: "Log in" in browser.go("/console").text)


def test_the_session_cookie_is_not_accepted_by_the_api(protected: tuple[Browser, dict[str, str]]) -> None:
    browser, tokens = protected
    browser.go("/console")
    browser.submit("/console/login", token=tokens["admin"], next="/console")
    assert browser.http.get("/api/v1/settings").status_code == 401


# -- units -------------------------------------------------------------------------------------------------------------


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
def test_formatting_and_parsing_an_input_returns_the_same_value(type_: str, value: Any, kind: str) -> None:
    """For each type."""
    parsed = parse_setting_type(type_)
    assert input_for(parsed).kind == kind
    back = parse_input(parsed, format_input(parsed, value))
    assert (back, type(back)) == (value, type(value))


def test_a_whole_number_may_be_stored_as_a_float() -> None:
    """JSON does not distinguish 5 from 5.0, and the displayed value can be saved."""
    for value in (5.0, 1e22):
        assert parse_input(parse_setting_type("int"), format_input(parse_setting_type("int"), value)) == value
    assert format_input(parse_setting_type("Enum[1,2]"), 2.0) == ["2"]
    assert [label for _, label in input_for(parse_setting_type('Enum["1",1,"a"]')).options] == ['"1"', "a", "1"]


def test_a_number_keeps_its_digits() -> None:
    """A whole number does not become a float that is near it."""
    for type_, text, value in (
        ("int", "12345678901234567890.0", 12345678901234567890),
        ("int", "-" + "9" * 4000 + ".", 1 - 10**4000),
        ("float", "12345678901234567890", 12345678901234567890),
        ("float", "0." + "1" * 5000, 1 / 9),
        ("float", "1" + "0" * 308, 10**308),
        ("float", "0" * 5000 + "5e0", 5.0),
    ):
        parsed = parse_input(parse_setting_type(type_), [text])
        assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("type_", "given", "message"),
    [
        ("int", ["1.5"], "not a whole number"),
        ("int", ["-" + "9" * 5000], "the number is too long"),
        ("int", ["9" * 5000 + ".0"], "the number is too long"),
        ("float", ["9" * 5000], "the number is too long"),
        ("float", ["-" + "9" * 5000], "the number is too long"),
        ("float", ["9" * 5000 + ".0"], "Out of range"),
        ("float", ["9" * 400], "not a value of the type float"),
        ("Enum[1]", ["9" * 5000], "a number is too long"),
        ("Flags[1]", ["9" * 5000], "a number is too long"),
        ("int", [], "a value is required"),
        ("float", ["nan"], "not a number"),
        ("float", ["1e999"], "Out of range"),
        ("bool", ["maybe"], "invalid JSON"),
        ('Enum["a"]', ['"b"'], "not a value of the type"),
        ('Flags["a"]', ['"a"', '"a"'], "not a value of the type"),
        ("Sequence<int>", ["[1,"], "(line 1, column 4)"),
        ("Sequence<int>", ["[" + "9" * 5000 + "]"], "a number is too long"),
        ("Sequence<int>", ["[" * 200 + "]" * 200], "more than 100 nested lists and objects"),
        ("Sequence<int>", ["[" * 100_000 + "]" * 100_000], "more than 100 nested lists and objects"),
        ("Sequence<int>", ['["a"]'], "not a value of the type Sequence<int>"),
    ],
)
def test_an_invalid_input_is_an_error_with_a_message(type_: str, given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse_input(parse_setting_type(type_), given)


def test_the_explanation_names_the_last_feature_in_which_two_rules_differ() -> None:
    """The last feature has the highest priority."""
    order = ["a", "b", "c"]
    rules = [
        StoredRule(1, 1, (("a", "x"), ("b", "x")), 1, {}),
        StoredRule(2, 1, (("c", "x"),), 2, {}),
        StoredRule(3, 1, (("a", "y"),), 3, {}),
    ]
    explanation = explain(rules, order, 0, {"a": "x", "b": "x", "c": "x"}, limit=0)
    assert (explanation.value, explanation.winner, explanation.omitted) == (2, 2, 1)
    assert [(line.rule.id, line.outcome) for line in explanation.lines] == [(2, "wins"), (1, "loses")]
    assert [cell.is_decisive for cell in explanation.lines[1].cells] == [False, False, True]
