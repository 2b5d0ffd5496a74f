"""The protection of the console against other sites, and its login."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import delete

from heksher_client.service import access, store
from heksher_client.service.history import read_state
from heksher_client.service.schema import SESSIONS
from heksher_client.service.tokens import Role, add_token, revoke_token
from tests.support.clients import eventually
from tests.support.console import Browser, absolute, rule_values
from tests.support.console_editor import Editor
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService


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
    assert rule_values(service) == {1, 2, 3}


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
    assert rule_values(service) == {1, 2, 3}


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


def test_a_refused_request_for_a_page_results_in_an_error_page(
    browser: Browser, service: WatchedService, new_database: Callable[[], str]
) -> None:
    """With the headers of all pages. The API responds with a text."""
    refused = [("/console", {"Host": "evil.example"}, 403), (f"/console?{'&' * 1_000}", {}, 400)]
    for path, headers, status in refused:
        response = browser.http.get(path, headers=headers)
        assert (response.status_code, "<h1>The request failed</h1>" in response.text) == (status, True)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert browser.http.get(f"/api/v1/settings?{'&' * 1_000}").text.startswith("the query string has more than")
    service.reset(new_database(), access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        token = add_token(connection, "reader", Role.READ)
    browser.go("/console/login")
    browser.submit("/console/login", token=token, next="/console")
    for response in (browser.go("/console/tokens"), browser.http.post("/console/rules/1/delete")):
        assert (response.status_code, "<h1>The request failed</h1>" in response.text) == (403, True)
        assert "The token reader has the role read; this request needs the role admin".lower() in response.text.lower()
        assert "default-src 'none'" in response.headers["content-security-policy"]


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
    assert re.search(r"UTC revision [0-9]+ by admin Rule changed: s user jim 8 → changed to 9", browser.text)
    browser.submit("/console/logout")
    assert "Log in" in browser.go("/console").text


@sqlite_only
@pytest.mark.parametrize("role", list(Role))
def test_the_console_shows_tokens_to_administrators_only(
    protected: tuple[Browser, dict[str, str]], service: WatchedService, role: Role
) -> None:
    """Neither in the list of changes nor as the change that was just made, whose revision is in the address."""
    browser, tokens = protected
    assert service.database is not None
    with service.database.begin() as connection:
        add_token(connection, "secret.project", Role.READ)
        revision = read_state(connection).revision
    browser.go("/console")
    browser.submit("/console/login", token=tokens[role], next="/console")
    for page in ("changes?action=token+added", f"changes?done={revision}", f"features?done={revision}"):
        assert browser.go(f"/console/{page}").status_code == 200
        assert "Token added" in browser.text
        assert ("secret.project" in browser.text) == (role is Role.ADMIN)
        assert ("only administrators see the token" in browser.text) == (role is not Role.ADMIN)


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


# -- forms after the end of the session --------------------------------------------------------------------------------


@pytest.fixture
def expired(
    protected: tuple[Browser, dict[str, str]], service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Editor, str]]:
    """An operator whose session has ended, with the form for a new rule, and the token to log in with."""
    _, tokens = protected
    monkeypatch.setattr(access, "_CACHE_SECONDS", 0.0)
    operator = Editor(service.url)
    operator.go("/console/settings/s/rules?back=/console/settings/s?find=jim")
    operator.press("Log in", token=tokens["admin"])
    assert service.database is not None
    with service.database.begin() as connection:
        connection.execute(delete(SESSIONS))
    yield operator, tokens["admin"]
    operator.http.close()


def stored_values(service: WatchedService) -> set[Any]:
    """Return the values of all rules. The API would need a token."""
    assert service.database is not None
    with service.database.begin(writes=False) as connection:
        return {rule.value for rule in store.rules(connection)}


def test_a_form_is_submitted_after_another_login_if_the_session_has_ended(
    expired: tuple[Editor, str], service: WatchedService
) -> None:
    """With what was entered, once it is confirmed. Nothing of it is in an address or a cookie."""
    operator, token = expired
    response = operator.press("Add rule", if__user="ann", value="9", comment="why")
    assert "Your session has ended, so nothing has been saved yet." in operator.text
    assert response.headers["hx-push-url"] == "false"
    assert operator.press("Log in", token=token[:-1]).status_code == 422
    response = operator.press("Log in", token=token)
    assert "You are logged in again as admin ." in operator.text
    assert "user ann value 9 comment why" in operator.text
    assert stored_values(service) == {8}
    for sent in (*response.history, response):
        assert "why" not in f"{sent.url}{sent.headers}"
    assert "?find=jim&done=" in str(operator.press("Continue").url)
    assert stored_values(service) == {8, 9}
    assert operator.http.get("/console/changes").url.path == "/console/changes"


def test_what_was_entered_is_forgotten_if_its_author_cancels(
    expired: tuple[Editor, str], service: WatchedService
) -> None:
    """The link leads to the page of the form."""
    operator, token = expired
    operator.press("Add rule", if__user="ann", value="9")
    operator.press("Log in", token=token)
    assert operator.follow("Cancel").url.path == "/console/settings/s/rules"
    assert stored_values(service) == {8}


@sqlite_only
def test_a_logout_after_the_session_has_ended_leads_to_the_login_form(expired: tuple[Editor, str]) -> None:
    """There is nothing to keep."""
    operator, _ = expired
    response = operator.press("Log out")
    assert (response.url.path, response.url.params["next"]) == ("/console/login", "/console")
    assert "Your session has ended" not in operator.text


def test_the_login_keeps_only_forms_of_the_console(expired: tuple[Editor, str], service: WatchedService) -> None:
    """Those with the CSRF token of the ended session. Other pages could make an operator submit theirs."""
    operator, token = expired
    csrf, form = {"csrf": operator.csrf}, {"value": "9", "if.user": "ann", "back": "/console"}
    refused = operator.http.post("/console/settings/s/rules", data=form)
    kept = {"token": token, "next": "/console/settings/s/rules", "form.value": "9"}
    for response in (refused, operator.http.post("/console/login", data=kept)):
        assert (response.status_code, "the session of this page has expired" in response.text) == (403, True)
    assert "Log in" in operator.go("/console").text
    response = operator.http.post("/console/login", data=kept | csrf | {"next": "https://evil.example/"})
    assert (response.url.path, "form.value" in response.text) == ("/console", False)
    assert stored_values(service) == {8}


@sqlite_only
def test_the_form_of_another_session_shows_what_was_entered(browser: Browser, service: WatchedService) -> None:
    """So that it can be copied. Its author may have logged in again in another tab."""
    browser.go("/console/settings/s")
    form = {"csrf": "former", "back": "/console", "if.user": "ann", "value": "9", "comment": "why", "link": ""}
    response = browser.http.post("/console/settings/s/rules", data=form)
    browser.page = response.text
    assert (response.status_code, browser.text.endswith(
        "You entered: user ann value 9 comment why Go to the settings")) == (403, True)  # fmt: skip
    assert rule_values(service) == {1, 2, 3}
