"""Rules for any value of a context feature: stored, queried, filtered, searched, exported and shown."""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import Setting
from heksher_client._core.settings.context_values import MAX_CONTEXT_VALUE, escape_value, unescape_value
from heksher_client.cli import main
from heksher_client.service.context_filters import MalformedFilterError, parse_context_filters
from tests.support.clients import Kind, running
from tests.support.http import http_client
from tests.support.marks import sqlite_only
from tests.support.service import QUERY, WatchedService

VALUES = (
    "eu-west-1", "en-US", "1.2.3", "jim@example.com", "550e8400-e29b-41d4-a716-446655440000", "Ann Lee", " ", "*",
    "a:*", "a,theme:*", "user:(a)", "~2C", "~", "%2C", "a%", "&x=y", "#?/\\", '"', "'", "+", "é", "\N{GRINNING FACE}",
    "שלום", "\u200b\u202e\u2028", "x" * MAX_CONTEXT_VALUE, "\N{GRINNING FACE}" * MAX_CONTEXT_VALUE,
)  # fmt: skip


@pytest.fixture
def http(service: WatchedService) -> Iterator[httpx.Client]:
    service.declare("s", "int", 0, ["user", "theme"])
    with http_client(service.url) as client:
        yield client


def add_rule(http: httpx.Client, value: int, **conditions: str) -> httpx.Response:
    return http.post("/api/v1/rules", json={"setting": "s", "feature_values": conditions, "value": value})


def selected(http: httpx.Client, context_filters: str) -> list[int]:
    """Return the values of the rules that filters select."""
    response = http.get("/api/v1/query", params={"settings": "s", "context_filters": context_filters})
    assert response.status_code == 200, response.text
    return [rule["value"] for rule in response.json()["settings"]["s"]["rules"]]


@pytest.mark.slow
def test_rules_may_require_any_value(http: httpx.Client) -> None:
    """Each of them is found by a filter and by a search, and no others. An equal rule is a conflict."""
    ids = [add_rule(http, i, user=value).json()["rule_id"] for i, value in enumerate(VALUES)]
    assert add_rule(http, -1, user="jim").status_code == 201
    for i, value in enumerate(VALUES):
        assert add_rule(http, i, user=value).status_code == 409
        assert http.get(f"/api/v1/rules/{ids[i]}").json()["feature_values"] == [["user", value]]
        assert selected(http, f"user:({escape_value(value)})") == [i]
        search = {"setting": "s", "feature_values": f"user:{escape_value(value)}"}
        assert http.get("/api/v1/rules/search", params=search).json() == {"rule_id": ids[i]}
    every = ",".join(map(escape_value, VALUES))
    assert selected(http, f"theme:*,user:({every})") == [*range(len(VALUES))]
    assert len(selected(http, "user:*")) == len(VALUES) + 1


def test_values_that_are_written_differently_are_the_same(http: httpx.Client) -> None:
    """They are compared in Unicode's normal form C, in rules, filters and searches, and in the console."""
    decomposed, composed = "e\u0301", "\u00e9"
    assert add_rule(http, 1, user=decomposed).status_code == 201
    assert add_rule(http, 2, user=composed).status_code == 409
    assert http.get("/api/v1/rules/1").json()["feature_values"] == [["user", composed]]
    for text in (decomposed, composed):
        assert selected(http, f"user:({text})") == [1]
        search = http.get("/api/v1/rules/search", params={"setting": "s", "feature_values": f"user:{text}"})
        assert search.json() == {"rule_id": 1}
        for parameter in ("find", "on.user"):
            page = http.get("/console/settings/s", params={parameter: text}).text
            assert "1 of 1 rule" in page or "it has the highest priority" in page


@pytest.mark.parametrize("value", ["", "a\nb", "\0", "\x7f", "\x85", "x" * 256, "\U0001d160" * 86])
def test_other_values_are_refused(http: httpx.Client, value: str) -> None:
    """Empty and long ones, also those that are long in normal form, and control characters."""
    response = add_rule(http, 1, user=value)
    assert response.status_code == 422
    assert "must have 1 to 255 characters, without control characters" in response.text
    assert response.json()["detail"][0]["loc"] == ["body", "feature_values", "user"]


@pytest.mark.parametrize("text", ["user:(a\nb)", "user:(a~b)", "user:(~00)", "user:(~2)", "user:(a(b)", "user:(a,,b)"])
def test_a_malformed_filter_is_refused(http: httpx.Client, text: str) -> None:
    """Separators without escapes, unknown escapes, and control characters."""
    response = http.get("/api/v1/query", params={"settings": "s", "context_filters": text})
    assert (response.status_code, "~2C" in response.text) == (422, True)
    search = {"setting": "s", "feature_values": text.replace("(", "").replace(")", "")}
    assert http.get("/api/v1/rules/search", params=search).status_code == (404 if text == "user:(a(b)" else 422)


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=5)


@pytest.mark.unmeasured
@given(st.dictionaries(st.sampled_from(["a", "b"]), st.none() | st.lists(TEXTS, min_size=1, max_size=3), min_size=1))
def test_a_filter_selects_the_values_that_it_was_made_of(values: dict[str, list[str] | None]) -> None:
    """They may have all characters that separate values."""
    text = ",".join(
        f"{feature}:*" if given is None else f"{feature}:({','.join(map(escape_value, given))})"
        for feature, given in values.items()
    )
    assert parse_context_filters(text) == {
        feature: None if given is None else {unicodedata.normalize("NFC", value) for value in given}
        for feature, given in values.items()
    }


@given(st.text("ab,()~*:2C78", max_size=12))
def test_what_is_not_a_filter_is_refused(text: str) -> None:
    """A filter can be written again from what it selects."""
    try:
        filters = parse_context_filters(f"a:({text})")
    except MalformedFilterError:
        return
    assert filters is not None
    for values in filters.values():
        assert values is None or {unescape_value(escape_value(value)) for value in values} == values


def test_documents_have_any_value(tmp_path: Path) -> None:
    """An import is an export again, in JSON and YAML. Equal conditions in one document are refused."""
    rules = [
        {
            "rule_id": i,
            "feature_values": {"user": value},
            "value": i,
            "metadata": {},
            "starts_at": None,
            "ends_at": None,
        }
        for i, value in enumerate(VALUES, 1)
    ]
    setting = {"name": "s", "type": "int", "default_value": 0, "configurable_features": ["user"], "rules": rules}
    document = {"heksher": 1, "context_features": ["user"], "settings": [setting]}
    (tmp_path / "0.json").write_text(json.dumps(document))

    def run(*arguments: str, database: str) -> str:
        result = CliRunner().invoke(main, ["service", *arguments, "--database", str(tmp_path / database)])
        assert result.exit_code == 0, result.output
        return result.output

    for former, file in (("0.json", "1.yaml"), ("1.yaml", "2.json")):
        run("import", str(tmp_path / former), "--yes", database=f"{file}.db")
        run("export", str(tmp_path / file), database=f"{file}.db")
    assert json.loads((tmp_path / "2.json").read_text())["settings"][0]["rules"] == rules

    setting["rules"] = [{"feature_values": {"user": user}, "value": 1} for user in ("a, \u00e9", "a, e\u0301")]
    (tmp_path / "0.json").write_text(json.dumps(document))
    result = CliRunner().invoke(
        main, ["service", "import", str(tmp_path / "0.json"), "--database", str(tmp_path / "x")]
    )
    assert 'two rules have the conditions user="a, é"' in result.output


def test_a_program_reads_the_value_for_any_user(kind: Kind, service: WatchedService) -> None:
    """The value passed to `get` and the constants of the client are compared with those of the rules."""
    setting = Setting("s", int, ["user"], -1)
    service.declare("s", "int", -1, ["user"])
    for i, value in enumerate(VALUES):
        service.add_rule("s", i, user=value)
    with running(kind, service.url) as client:
        assert [setting.get(user=value) for value in VALUES] == [*range(len(VALUES))]
        client.client.set_defaults(user="e\u0301")
        assert setting.get() == VALUES.index("é")


def test_a_program_tracks_any_user(kind: Kind, service: WatchedService) -> None:
    """The service sends the rules for these users alone."""
    setting = Setting("s", int, ["user"], -1)
    service.declare("s", "int", -1, ["user"])
    for i, value in enumerate(VALUES[:15]):
        service.add_rule("s", i, user=value)
    with running(kind, service.url) as client:
        client.client.track_contexts(user=["jim@example.com", "a,theme:*"])
        client.reload()
        assert [setting.get(user=value) for value in ("jim@example.com", "a,theme:*", "en-US")] == [3, 9, -1]
    request = service.requests_to(QUERY)[-1]
    assert request.query["context_filters"] == "user:(a~2Ctheme:*,jim@example.com)"


@sqlite_only
def test_the_service_announces_that_it_accepts_any_value(http: httpx.Client) -> None:
    """In all responses: also in errors, to changes, and if nothing has changed."""
    etag = http.get("/api/v1/query").headers["etag"]
    for path, headers, status in (
        ("context_features", {}, 200), ("query", {"If-None-Match": etag}, 304), ("query?settings=t", {}, 404),
    ):  # fmt: skip
        response = http.get(f"/api/v1/{path}", headers=headers)
        assert (response.status_code, response.headers["heksher-context-values"]) == (status, "any")
    responses = [
        add_rule(http, 1, user="jim@example.com"), add_rule(http, 1, user="jim@example.com"),
        add_rule(http, 1, user="\N{GRINNING FACE}" * MAX_CONTEXT_VALUE, theme="a" * 256),
        http.get("/api/v1/rules/9"), http.get("/api/v1/nosuch"), http.delete("/api/v1/rules/1"),
    ]  # fmt: skip
    assert [response.status_code for response in responses] == [201, 409, 422, 404, 404, 204]
    assert {response.headers.get("heksher-context-values") for response in responses} == {"any"}


def test_the_console_adds_and_deletes_a_rule_for_any_value(service: WatchedService) -> None:
    """The inputs of its forms have the value itself, and a page that shows an invisible character shows its escape."""
    service.declare("s", "int", 0, ["user"])
    value = 'a\u200b"<é>'
    with http_client(service.url) as http:
        page = http.get("/console/settings/s").text
        csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
        form: dict[str, Any] = {"csrf": csrf, "if.user": f" {value} ", "value": "5"}
        assert http.post("/console/settings/s/rules", data=form).status_code in (200, 303)
        assert http.get("/api/v1/rules/1").json()["feature_values"] == [["user", value]]
        page = http.get("/console/settings/s").text
        assert page.count('value="a\u200b&#34;&lt;é&gt;"') == 2  # the form of the rule, and a suggestion
        assert "a\\u200b&#34;&lt;é&gt;" in page
