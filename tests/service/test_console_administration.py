"""The pages of the console for settings, context features and tokens, in a browser without scripts."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from heksher_client.service import setting_operations, store
from heksher_client.service.console.inputs import InputError, parse_text
from heksher_client.service.console.metadata_inputs import format_metadata, parse_metadata
from heksher_client.service.console.outcomes import FormError
from heksher_client.service.routing import RequestError
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.tokens import Role, add_token
from tests.support.clients import eventually
from tests.support.console import Browser
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService


class Operator(Browser):
    """An operator who submits the forms of pages as they were loaded."""

    def fill(self, action: str, **fields: Any) -> httpx.Response:
        """Submit a form with its hidden inputs, and other fields."""
        form = self.page.partition(f'action="{action}"')[2].partition("</form>")[0]
        inputs = re.findall(r'<input type="hidden" name="([^"]*)" value="(.*?)">', form)
        return self.submit(action, **dict(inputs) | fields)


@pytest.fixture
def operator(service: WatchedService) -> Iterator[Operator]:
    """An operator, and the setting `s` with two rules."""
    service.declare("s", "int", 7, ["environment", "user"], metadata={"owner": "shop"})
    service.add_rule("s", 1, user="jim")
    service.add_rule("s", 2, environment="prod", user="jim")
    client = Operator(service.url)
    yield client
    client.http.close()


def stored(service: WatchedService, name: str = "s") -> Any:
    return service.call("GET", f"/api/v1/settings/{name}").json()


EDIT = "/console/settings/s/edit"

# -- settings ----------------------------------------------------------------------------------------------------------


def test_a_setting_is_created(operator: Operator, service: WatchedService) -> None:
    """As if a program had declared it."""
    operator.go("/console/new")
    fields = {"name": "limits", "type": "Mapping<int>", "value": '{"a": 1}', "feature": ["user"]}
    metadata = {
        "description": "Limits.\r\nPer user.",
        "key": ["owner", "tier", "", "empty"],
        "content": ["shop", "2", "", " "],
    }
    response = operator.fill("/console/new", **fields, **metadata)
    assert response.url.path == "/console/settings/limits"
    assert stored(service, "limits") == {
        "name": "limits",
        "type": "Mapping<int>",
        "default_value": {"a": 1},
        "configurable_features": ["user"],
        "metadata": {"description": "Limits.\nPer user.", "owner": "shop", "tier": 2},
        "version": "1.0",
        "aliases": [],
    }


@sqlite_only
@pytest.mark.parametrize(
    ("fields", "status", "message", "where"),
    [
        ({"name": "s"}, 409, "name already exists", 'role="alert"'),
        ({"name": "a-b"}, 422, "use letters, digits, underscores and dots", 'id="name-error"'),
        ({"name": ".."}, 422, "has a meaning in paths", 'id="name-error"'),
        (
            {"type": "integer"}, 422, 'setting type integer. The types are int, float, str, bool, Enum["a","b"], Flags',
            'id="type-error"',
        ),
        ({"value": "x"}, 422, "not a whole number", 'id="value-error"'),
        ({"feature": []}, 422, "at least one context feature", 'id="features-error"'),
        ({"feature": ["nosuch"]}, 404, "not acceptable context features", 'role="alert"'),
        ({"key": ["a b"], "content": ["1"]}, 422, "'a b' is not a valid key", 'id="metadata-error"'),
        ({"key": [""], "content": ["1"]}, 422, "a value has no key", 'id="metadata-error"'),
        ({"key": ["a", "a"], "content": ["1", "2"]}, 422, "the key a occurs twice", 'id="metadata-error"'),
        ({"key": ["a"], "content": ['{"b"']}, 422, "a: invalid JSON", 'id="metadata-error"'),
        ({"key": ["a"], "content": ['"\\ud800"']}, 422, "surrogates not allowed", 'id="metadata-error"'),
    ],
)  # fmt: skip
def test_an_error_in_a_new_setting_is_shown_at_its_input(
    operator: Operator, service: WatchedService, fields: dict[str, Any], status: int, message: str, where: str
) -> None:
    """The form keeps its content."""
    operator.go("/console/new")
    valid = {"name": "t", "type": "int", "value": "5", "feature": ["user"], "description": "A text"}
    assert operator.fill("/console/new", **valid | fields).status_code == status
    assert message in operator.text
    assert where in operator.page
    assert "A text</textarea>" in operator.page
    assert f'name="name" value="{(valid | fields)["name"]}"' in operator.page
    assert service.call("GET", "/api/v1/settings").json()["settings"] == [
        {"name": "s", "type": "int", "default_value": 7, "version": "1.0"}
    ]


@sqlite_only
@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("str", " hello ", " hello "), ("bool", "true", True), ("float", "1.5", 1.5),
        ('Enum["a","b"]', "a", "a"), ('Enum["a","b"]', '"a"', "a"), ('Enum["1",1]', "1", 1),
        ('Flags["a","b"]', '["b"]', ["b"]), ("Sequence<str>", '["x"]', ["x"]),
    ],
)  # fmt: skip
def test_a_default_value_is_entered_before_its_type_is_known(
    operator: Operator, service: WatchedService, type_: str, text: str, value: Any
) -> None:
    """As JSON, or as an option or a text without quotation marks."""
    operator.go("/console/new")
    operator.fill("/console/new", name="t", type=type_, value=text, feature=["user"])
    assert stored(service, "t")["default_value"] == value


@pytest.mark.parametrize(
    ("type_", "text", "message"),
    [
        ('Enum["b","a",1]', "c", '^enter one of "a", "b", 1$'),
        ('Enum["a"]', "", '^enter one of "a"$'),
        (f'Enum["{"x" * 400}"]', "c", "x…$"),
        ('Flags["b","a"]', "a", '^enter a JSON list of some of "a", "b"$'),
        ("Sequence<int>", '["x"]', "^not a value of the type Sequence<int>$"),
        ("Mapping<int>", "x", "^invalid JSON"),
        ("bool", "yes", "^enter true or false$"),
    ],
)
def test_a_text_that_is_not_of_the_type_is_refused(type_: str, text: str, message: str) -> None:
    """The message has the allowed values if there are few."""
    with pytest.raises(InputError, match=message):
        parse_text(parse_setting_type(type_), text)


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("shop", "shop"), ("two\nlines", "two\nlines"), (5, "5"), ("5", '"5"'), (True, "true"), ("null", '"null"'),
        ("", '""'), (" x", '" x"'), ("{a", '"{a"'),
        ({"a": [1]}, '{"a": [1]}'), ("NaN", "NaN"), ("a\u202eb", '"a\\u202eb"'),
        ('"quoted"', '"\\"quoted\\""'),
    ],
)  # fmt: skip
def test_metadata_are_entered_as_they_are_shown(value: Any, content: str) -> None:
    """A text has quotation marks only if it would be read as something else without them."""
    assert format_metadata(value) == content
    assert parse_metadata(content.replace("\n", "\r\n")) == value


def test_metadata_that_are_nested_too_deeply_are_refused() -> None:
    for content in ("[" * 150 + "]" * 150, "[" * 100_000 + "]" * 100_000):
        with pytest.raises(FormError, match=r"nested|invalid JSON"):
            parse_metadata(content)


def test_each_attribute_of_a_setting_is_changed_with_the_next_version(
    operator: Operator, service: WatchedService
) -> None:
    """The next minor version, or the next major one where that is required. The page says what was changed."""
    for form, fields, version, expected in (
        ("default", {"value": "8"}, "1.1", {"default_value": 8}),
        ("metadata", {"description": "d", "key": ["n"], "content": ["1"]}, "1.2",
         {"metadata": {"description": "d", "n": 1}}),
        ("features", {"feature": ["environment", "user", "theme"]}, "2.0", {}),
        ("features", {"feature": ["environment", "user"]}, "2.1", {"configurable_features": ["environment", "user"]}),
        ("type", {"type": "float"}, "3.0", {"type": "float"}),
        ("type", {"type": "int"}, "3.1", {"type": "int"}),
        ("type", {"type": "float", "version": "7.3"}, "7.3", {"type": "float"}),
    ):  # fmt: skip
        operator.go(EDIT)
        assert operator.fill(f"{EDIT}/{form}", **fields).status_code == 200, operator.text
        assert "Setting changed" in operator.text
        assert stored(service).items() >= {"version": version, **expected}.items()


def test_a_setting_is_renamed(operator: Operator, service: WatchedService) -> None:
    """Its former name becomes an alias. The page has the new address."""
    operator.go(EDIT)
    response = operator.fill(f"{EDIT}/name", name="shop.s")
    assert response.url.path == "/console/settings/shop.s/edit"
    assert (stored(service)["name"], stored(service)["aliases"]) == ("shop.s", ["s"])


def test_aliases_are_added_and_deleted(operator: Operator, service: WatchedService) -> None:
    """The version stays the same."""
    operator.go(EDIT)
    operator.fill(f"{EDIT}/aliases", alias="old")
    assert "Aliases changed" in operator.text
    assert stored(service, "old").items() >= {"name": "s", "version": "1.0"}.items()
    operator.fill(f"{EDIT}/aliases/delete")
    assert stored(service)["aliases"] == []
    form = {"csrf": operator.csrf, "etag": re.findall(r'name="etag" value="(.*?)">', operator.page)[0], "alias": "x"}
    response = operator.http.post(f"{EDIT}/aliases/delete", data=form)
    assert (response.status_code, "the alias x of the setting s does not exist" in response.text) == (404, True)


@sqlite_only
@pytest.mark.parametrize(
    ("form", "fields", "status", "message", "where"),
    [
        ("name", {"name": "other"}, 409, "name already exists", 'role="alert"'),
        ("name", {"name": "s"}, 422, "nothing was changed", 'id="name-error"'),
        ("name", {"name": "t", "version": "x"}, 422, "two numbers, like 1.0", 'id="name-version-error"'),
        ("name", {"name": "t", "version": "0.9"}, 409, "higher version than the request (1.0)", 'role="alert"'),
        ("type", {"type": "nosuch"}, 422, "cannot resolve setting type nosuch. The types are int", 'id="type-error"'),
        ("type", {"type": "int"}, 422, "nothing was changed", 'id="type-error"'),
        ("type", {"type": "float", "version": "1.1"}, 409, "non-subtype float in a minor version", 'id="type-error"'),
        ("type", {"type": "bool"}, 409, "2 rules with a value that is not of the new type", 'id="type-error"'),
        ("features", {"feature": []}, 422, "at least one context feature", 'id="features-error"'),
        ("features", {"feature": ["environment", "user"]}, 422, "nothing was changed", 'id="features-error"'),
        ("features", {"feature": ["user"]}, 409, "1 rule with a condition on a removed", 'id="features-error"'),
        ("features", {"feature": ["environment", "user", "x"]}, 404, "not acceptable", 'role="alert"'),
        ("default", {"value": "x"}, 422, "not a whole number", 'id="default-value-error"'),
        ("default", {"value": "7"}, 422, "nothing was changed", 'id="default-value-error"'),
        ("metadata", {"key": ["owner"], "content": ["shop"]}, 422, "nothing was changed", 'id="metadata-error"'),
        ("metadata", {"key": ["a"], "content": ["1"], "version": "1.0"}, 409, "at version 1.0 already", 'role="alert"'),
        ("aliases", {"alias": "other"}, 409, "already a name of the setting other", 'role="alert"'),
        ("aliases", {"alias": "a b"}, 422, "use letters, digits", 'id="alias-error"'),
    ],
)  # fmt: skip
def test_an_error_in_a_change_is_shown_at_its_input(
    operator: Operator, service: WatchedService, form: str, fields: Any, status: int, message: str, where: str
) -> None:
    """Nothing is changed."""
    service.declare("other", "int", 1, ["user"])
    before = stored(service)
    operator.go(EDIT)
    assert operator.fill(f"{EDIT}/{form}", **fields).status_code == status
    assert message in operator.text
    assert where in operator.page
    assert stored(service) == before


@sqlite_only
def test_a_default_value_is_checked_whoever_changes_it(operator: Operator, service: WatchedService) -> None:
    """Not only by the input of the form."""
    assert service.database is not None
    with service.database.begin() as connection:
        setting = store.setting(connection, "s")
        assert setting is not None
        with pytest.raises(RequestError, match="default value is incompatible with setting type int"):
            setting_operations.set_default_value(connection, setting, "x", "1.1")
    assert stored(service)["version"] == "1.0"


@sqlite_only
def test_a_form_with_an_error_stays_where_it_is(operator: Operator) -> None:
    """With scripts, the page does not scroll away from it, and keeps its address. Without, a link leads to it."""
    operator.go(EDIT)
    response = operator.fill(f"{EDIT}/name", name="a b")
    headers = response.headers
    assert (headers["hx-reswap"], headers["hx-push-url"]) == ("innerHTML show:none", "false")
    assert 'href="#name-title"' in operator.page
    assert 'id="name-title"' in operator.page
    assert "hx-reswap" not in operator.go(EDIT).headers


def test_rules_in_the_way_of_a_change_are_listed_with_links(operator: Operator, service: WatchedService) -> None:
    """Those whose values are not of the new type, and those with a condition on a removed feature."""
    operator.go(EDIT)
    operator.fill(f"{EDIT}/type", type="Enum[2,7]")
    assert "1 rule with a value that is not of the new type" in operator.text
    assert 'console/settings/s?find=user%3Djim#rule-1"' in operator.page
    assert "Rule 1 : 1 for user jim" in operator.text
    operator.go(EDIT)
    operator.fill(f"{EDIT}/features", feature=["user"])
    assert "Rule 2 : 2 for environment prod , user jim" in operator.text
    assert service.database is not None
    with service.database.begin() as connection:
        setting = store.setting(connection, "s")
        assert setting is not None
        for number in range(105):
            store.add_rule(connection, setting, {"user": f"u{number}"}, 5, {})
    operator.go(EDIT)
    operator.fill(f"{EDIT}/type", type="bool")
    assert "107 rules with a value" in operator.text
    assert "and 7 more." in operator.text
    assert operator.page.count("<li><a") == 100


def test_a_default_value_that_does_not_fit_a_new_type_is_named(operator: Operator, service: WatchedService) -> None:
    """Without rules in the way."""
    operator.go(EDIT)
    operator.fill(f"{EDIT}/type", type="Enum[1,2]")
    assert "the default value 7 does not match the new type" in operator.text
    assert "with a value that is not" not in operator.text


@pytest.mark.parametrize(
    ("form", "fields", "message", "kept"),
    [
        ("default", {"value": "9"}, "Its default value is now 8.", 'value="9"'),
        ("name", {"name": "mine"}, 'Its name is now "s".', 'value="mine"'),
        ("type", {"type": "float"}, 'Its type is now "int".', 'value="float"'),
        ("features", {"feature": ["user"]}, 'Its configurable features are now ["environment","user"].',
         'value="environment">'),
        ("metadata", {"key": ["n"], "content": ["1"]}, 'Its metadata are now {"owner":"shop"}.',
         'name="key" value="n"'),
        ("aliases", {"alias": "mine"}, "Its aliases are now [].", 'value="mine"'),
    ],
)  # fmt: skip
def test_saving_over_a_change_of_somebody_else_shows_both(
    operator: Operator, service: WatchedService, form: str, fields: Any, message: str, kept: str
) -> None:
    """Who has changed it, what it is now, and what was entered. Saved again, it replaces the other change."""
    operator.go(EDIT)
    declaration = {"name": "s", "type": "int", "default_value": 8, "configurable_features": ["environment", "user"]}
    body = declaration | {"metadata": {"owner": "shop"}, "version": "1.1"}
    service.call("POST", "/api/v1/settings/declare", body)
    service.call("PUT", "/api/v1/rules/1/value", {"value": 5})
    assert operator.fill(f"{EDIT}/{form}", **fields).status_code == 409
    assert re.search(
        r"Somebody has changed the setting since the page was loaded \(2\d\d\d-\S+ \S+ UTC\)", operator.text
    )
    assert message in operator.text
    assert kept in operator.page
    assert stored(service)["version"] == "1.1"
    again = operator.fill(f"{EDIT}/{form}", **fields)
    assert again.status_code == (409 if form == "features" else 200)  # a rule is in the way


def test_a_change_that_is_not_among_the_last_ones_is_anonymous(operator: Operator, service: WatchedService) -> None:
    """After many changes of rules."""
    operator.go(EDIT)
    service.call("PUT", "/api/v1/settings/s/metadata/owner", {"value": "x", "version": "1.1"})
    for value in range(50):
        service.call("PUT", "/api/v1/rules/1/value", {"value": value})
    operator.fill(f"{EDIT}/default", value="9")
    assert "Somebody has changed the setting since the page was loaded. Its default" in operator.text


def test_a_setting_is_deleted_after_its_rules_and_aliases_were_shown(
    operator: Operator, service: WatchedService
) -> None:
    """If a rule was added since, the page is shown again."""
    service.call("PUT", "/api/v1/settings/s/aliases/old")
    operator.go(EDIT)
    assert "deletes the setting, its 2 rules and its 1 alias (old)." in operator.text
    service.add_rule("s", 3, user="ann")
    assert operator.fill(f"{EDIT}/delete").status_code == 409
    assert "its 3 rules" in operator.text
    assert "<details open>" in operator.page
    assert operator.fill(f"{EDIT}/delete").status_code == 200
    assert "Setting deleted" in operator.text
    assert service.call("GET", "/api/v1/settings").json() == {"settings": []}


@sqlite_only
@pytest.mark.parametrize("form", ["name", "delete"])
def test_a_setting_that_was_deleted_meanwhile_cannot_be_changed(
    operator: Operator, service: WatchedService, form: str
) -> None:
    """The page says so."""
    operator.go(EDIT)
    service.call("DELETE", "/api/v1/settings/s")
    assert operator.fill(f"{EDIT}/{form}", name="t").status_code == 404
    assert "the setting s does not exist any more" in operator.text


# -- context features --------------------------------------------------------------------------------------------------


FEATURES = "/console/features"


def order(service: WatchedService) -> list[str]:
    names: list[str] = service.call("GET", "/api/v1/context_features").json()["context_features"]
    return names


def test_context_features_are_listed_with_their_use(operator: Operator) -> None:
    """The number of settings and of rules, in the order of the service."""
    operator.go(FEATURES)
    rows = re.findall(
        r'<tr id="feature-(\w+)">.*?"number secondary">(\d+)<.*?"number">(\d+)<', operator.page, re.DOTALL
    )
    assert rows == [("environment", "1", "1"), ("user", "1", "2"), ("theme", "0", "0")]
    assert 'console/settings/s/edit#features-title"' in operator.page


def test_context_features_are_added_moved_and_deleted(operator: Operator, service: WatchedService) -> None:
    """Without a question if no value may change."""
    operator.go(FEATURES)
    operator.fill(FEATURES, context_feature="region")
    assert "Context feature added" in operator.text
    operator.fill(f"{FEATURES}/region/move", direction="up")
    assert order(service) == ["environment", "user", "region", "theme"]
    operator.fill(f"{FEATURES}/region/move", direction="down")
    assert order(service) == ["environment", "user", "theme", "region"]
    operator.fill(f"{FEATURES}/region/delete")
    assert "Context feature deleted" in operator.text
    assert order(service) == ["environment", "user", "theme"]


def test_a_move_that_may_change_values_is_previewed(operator: Operator, service: WatchedService) -> None:
    """With the affected settings. It is confirmed as it was shown."""
    service.add_rule("s", 3, environment="prod")
    service.declare("unaffected", "int", 1, ["environment", "user"])
    service.add_rule("unaffected", 2, environment="prod", user="jim")
    service.add_rule("unaffected", 3, user="jim")
    operator.go(FEATURES)
    operator.submit(f"{FEATURES}/user/move", direction="up")
    assert "Move user before environment?" in operator.text
    assert "rules with a condition on environment only would then win over rules with one on user only" in operator.text
    rows = re.findall(
        r'<th scope="row"><a [^>]*>(\w+)</a></th><td class="number">(\d+)</td><td class="number">(\d+)', operator.page
    )
    assert rows == [("s", "1", "1")]
    assert order(service) == ["environment", "user", "theme"]
    service.add_rule("s", 4, user="ann")
    assert operator.fill(f"{FEATURES}/user/move").status_code == 409
    assert "have been changed since the preview was shown" in operator.text
    assert operator.fill(f"{FEATURES}/user/move").status_code == 200
    assert order(service) == ["user", "environment", "theme"]


@sqlite_only
@pytest.mark.parametrize(
    ("path", "fields", "status", "message"),
    [
        ("", {"context_feature": "a-b"}, 422, "use letters, digits and underscores"),
        ("", {"context_feature": "user"}, 409, "context feature already exists"),
        ("/user/delete", {}, 409, "there is at least one setting configured by it"),
        ("/nosuch/delete", {}, 404, "does not exist any more"),
        ("/nosuch/move", {"direction": "up"}, 404, "does not exist any more"),
        ("/environment/move", {"direction": "up"}, 409, "cannot be moved further"),
        ("/theme/move", {"direction": "down"}, 409, "cannot be moved further"),
    ],
)
def test_an_impossible_change_of_context_features_is_refused(
    operator: Operator, service: WatchedService, path: str, fields: Any, status: int, message: str
) -> None:
    """For example after a change by somebody else."""
    operator.go(FEATURES)
    response = operator.http.post(f"{FEATURES}{path}", data={"csrf": operator.csrf, **fields})
    assert (response.status_code, message in response.text) == (status, True)
    assert order(service) == ["environment", "user", "theme"]


def test_the_page_of_a_service_without_context_features(service: WatchedService) -> None:
    """They are added there."""
    assert service.database is not None
    with service.database.begin() as connection:
        for name in ("environment", "user", "theme"):
            store.delete_context_feature(connection, name)
    operator = Operator(service.url)
    operator.go(FEATURES)
    assert "No context features yet." in operator.text
    operator.go("/console/new")
    assert "There are no context features yet." in operator.text
    operator.http.close()


# -- tokens ------------------------------------------------------------------------------------------------------------


TOKENS = "/console/tokens"


def test_the_text_of_a_new_token_is_shown_once(
    operator: Operator, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """It is neither in an address, nor cached, nor logged."""
    operator.go(TOKENS)
    assert "No tokens yet." in operator.text
    assert "Requests to this address need no token." in operator.text
    with caplog.at_level("DEBUG"):
        response = operator.fill(TOKENS, name="shop", role="read", days="30")
    (text,) = re.findall(r'value="(heksher_[^"]*)" readonly', operator.page)
    assert (response.status_code, response.headers["cache-control"], response.history) == (201, "no-store", [])
    assert text not in caplog.text
    assert text not in operator.go(TOKENS).text
    listed = service.call("GET", "/api/v1/tokens").json()["tokens"]
    assert [(token["name"], token["role"], token["expires_at"] is None) for token in listed] == [
        ("shop", "read", False)
    ]
    operator.fill(TOKENS, name="ops", role="admin", days="")
    assert re.search(r"ops admin \S+ \S+ UTC never", operator.text)


@sqlite_only
@pytest.mark.parametrize(
    ("fields", "message", "where"),
    [
        ({"name": "a b"}, "not a valid token name", 'id="name-error"'),
        ({"name": ".."}, "not a valid token name", 'id="name-error"'),
        ({"name": "used"}, "the token used already exists", 'id="name-error"'),
        ({"role": "root"}, "use one of read, declare, admin", 'id="role-error"'),
        ({"days": "0"}, "use a whole number", 'id="days-error"'),
        ({"days": "x"}, "use a whole number", 'id="days-error"'),
        ({"days": "9" * 5000}, "use a whole number", 'id="days-error"'),
    ],
)
def test_an_error_in_a_new_token_is_shown_at_its_input(
    operator: Operator, service: WatchedService, fields: Any, message: str, where: str
) -> None:
    """No token is created."""
    service.call("POST", "/api/v1/tokens", {"name": "used"})
    operator.go(TOKENS)
    assert operator.fill(TOKENS, **{"name": "shop", "role": "read", "days": "", **fields}).status_code == 422
    assert message in operator.text
    assert where in operator.page
    assert len(service.call("GET", "/api/v1/tokens").json()["tokens"]) == 1


def test_a_token_is_revoked_as_it_was_shown(operator: Operator, service: WatchedService) -> None:
    """Not a later one with its name."""
    service.call("POST", "/api/v1/tokens", {"name": "shop"})
    operator.go(TOKENS)
    service.call("DELETE", "/api/v1/tokens/shop")
    service.call("POST", "/api/v1/tokens", {"name": "shop", "role": "admin"})
    response = operator.fill(f"{TOKENS}/shop/revoke")
    assert (response.status_code, "another one than the page has shown" in operator.text) == (409, True)
    operator.go(TOKENS)
    assert "It is the only token with the role admin" in operator.text
    operator.fill(f"{TOKENS}/shop/revoke")
    assert "Token revoked" in operator.text
    response = operator.http.post(f"{TOKENS}/shop/revoke", data={"csrf": operator.csrf})
    assert (response.status_code, "does not exist any more" in response.text) == (404, True)


@pytest.fixture
def protected(service: WatchedService, new_database: Callable[[], str]) -> Iterator[tuple[Operator, dict[str, str]]]:
    """A service that requires tokens, with one token of each role."""
    service.reset(new_database(), access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        texts = {role.value: add_token(connection, role.value, role) for role in Role}
    client = Operator(service.url)
    yield client, texts
    client.http.close()


def log_in(operator: Operator, token: str, path: str) -> httpx.Response:
    operator.go("/console/login")
    return operator.submit("/console/login", token=token, next=path)


def test_revoking_ones_own_token_ends_the_session(protected: tuple[Operator, dict[str, str]]) -> None:
    """The page marks it."""
    operator, texts = protected
    log_in(operator, texts["admin"], TOKENS)
    assert "admin yours" in operator.text
    assert "also this one" in operator.text
    operator.fill(f"{TOKENS}/admin/revoke")
    assert eventually(lambda: "Log in" in operator.go(TOKENS).text)


@pytest.mark.parametrize("role", ["read", "declare"])
def test_only_administrators_see_tokens_and_forms(protected: tuple[Operator, dict[str, str]], role: str) -> None:
    """The order of the context features is for all."""
    operator, texts = protected
    log_in(operator, texts[role], FEATURES)
    assert "In order of increasing priority" in operator.text
    assert "/move" not in operator.page
    assert "Add context feature" not in operator.page
    for path in (TOKENS, "/console/new", EDIT):
        response = operator.go(path)
        assert (response.status_code, "needs the role admin" in response.text) == (403, True)
    response = operator.http.post(f"{FEATURES}/user/move", data={"csrf": operator.csrf})
    assert response.status_code == 403


@sqlite_only
def test_the_pages_are_written_for_all_roles_without_scripts_of_their_own(operator: Operator) -> None:
    """The content security policy is that of the other pages."""
    for path in ("/console/new", EDIT, FEATURES, TOKENS):
        response = operator.go(path)
        assert response.status_code == 200
        assert "script-src 'self'" in response.headers["content-security-policy"]
        assert " style=" not in response.text
        assert not re.search(r"\son\w+=", response.text)
        ids = re.findall(r' id="([^"]*)"', response.text)
        assert len(ids) == len(set(ids)), path
        labels = set(re.findall(r'<label for="([^"]*)"', response.text))
        assert labels <= set(ids), path
