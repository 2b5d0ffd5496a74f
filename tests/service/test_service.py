"""The local service beyond the recorded exchanges with the reference implementation."""

import asyncio
import gc
import json
import random
import socket
import sqlite3
import string
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.routing import Mount

from heksher_client.service import LocalService, create_app
from heksher_client.service.context_filters import parse_context_filters
from heksher_client.service.database import DatabaseClosedError
from heksher_client.service.server import Server
from heksher_client.service.setting_types import parse_setting_type
from tests.support.clients import TIMEOUT_SECONDS
from tests.support.http import http_client, http_request
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService

FEATURES = ["environment", "user", "theme"]


def declare(http: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"], **changes}
    return http.post("/api/v1/settings/declare", json=body)


def add_rule(http: httpx.Client, value: Any, setting: str = "s", **conditions: str) -> httpx.Response:
    body = {"setting": setting, "feature_values": conditions, "value": value}
    return http.post("/api/v1/rules", json=body)


@pytest.mark.parametrize("feature", ["with_underscore", "Upper", "digit2"])
def test_context_filters_support_all_names_of_features(feature: str) -> None:
    """The reference ignores rules on features whose names are not lower-case letters."""
    with LocalService([feature]) as service, http_client(service.url) as http:
        declare(http, configurable_features=[feature])
        add_rule(http, 2, **{feature: "a"})
        for context_filters in (f"{feature}:*", f"{feature}:(a,b)"):
            response = http.get("/api/v1/query", params={"settings": "s", "context_filters": context_filters})
            assert len(response.json()["settings"]["s"]["rules"]) == 1


def test_a_declaration_under_an_alias_at_the_same_version_is_up_to_date(http: httpx.Client) -> None:
    """The reference responds with the status 500."""
    declare(http)
    http.put("/api/v1/settings/s/name", json={"name": "t", "version": "1.1"})
    assert declare(http, name="s", version="1.1").json() == {"outcome": "uptodate"}
    upgraded = declare(http, name="s", version="1.2", default_value=5)
    assert upgraded.json()["outcome"] == "upgraded"
    assert http.get("/api/v1/settings/s").json()["name"] == "t"


def test_a_rename_by_declaration_requires_a_higher_version(http: httpx.Client) -> None:
    """At the same version, another name is a mismatch like any other difference."""
    declare(http)
    response = declare(http, name="t", alias="s")
    assert response.status_code == 409
    assert response.json()["differences"] == [{"level": "minor", "attribute": "name", "latest_value": "s"}]
    assert declare(http, name="t", alias="s", version="1.1").json()["outcome"] == "upgraded"
    assert declare(http, name="t", alias="s", version="1.1").json()["outcome"] == "uptodate"


def test_a_setting_can_be_renamed_to_a_former_name(http: httpx.Client) -> None:
    """The other name becomes the alias. A name of another setting is refused."""
    declare(http)
    declare(http, name="other")
    for i, name in enumerate(["t", "s", "t"], start=1):
        assert http.put("/api/v1/settings/s/name", json={"name": name, "version": f"1.{i}"}).status_code == 204
    assert http.get("/api/v1/settings/s").json()["aliases"] == ["s"]
    assert http.put("/api/v1/settings/t/name", json={"name": "other", "version": "1.9"}).status_code == 409
    lower = http.put("/api/v1/settings/t/name", json={"name": "u", "version": "1.3"})
    assert (lower.status_code, lower.text) == (409, "the setting t is at version 1.3 already")


def test_an_upgrade_to_a_type_that_rules_do_not_fit_is_rejected(http: httpx.Client) -> None:
    """Even with a new major version."""
    declare(http)
    add_rule(http, 5, user="jim")
    response = declare(http, type="str", default_value="x", version="2.0")
    assert response.status_code == 409
    message = {"level": "mismatch", "message": "setting type incompatible with values for rules: [1]"}
    assert message in response.json()["differences"]


def test_an_upgrade_to_unknown_features_is_refused(http: httpx.Client) -> None:
    """Like the declaration of a new setting."""
    declare(http)
    response = declare(http, configurable_features=["user", "planet"], version="2.0")
    assert (response.status_code, response.json()) == (
        404,
        {"detail": "{'planet'} are not acceptable context features"},
    )


def test_versions_are_compared_as_numbers(http: httpx.Client) -> None:
    """1.10 is higher than 1.9."""
    declare(http)
    declare(http, version="1.9", default_value=2)
    assert declare(http, version="1.10", default_value=3).json()["outcome"] == "upgraded"


@sqlite_only
@pytest.mark.parametrize(
    "value", [b"NaN", b"[Infinity]", b'"\\ud800"', b'{"a": -Infinity}'], ids=["nan", "inf", "surrogate", "deep"]
)
def test_values_that_are_not_json_are_refused(http: httpx.Client, value: bytes) -> None:
    """Python's parser accepts NaN and lone surrogates, which other parsers reject."""
    body = (
        b'{"name": "s", "type": "float", "default_value": 1, "configurable_features": ["user"], "metadata": {"a": %s}}'
    )
    response = http.post("/api/v1/settings/declare", content=body % value, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert http.get("/api/v1/settings").json() == {"settings": []}


@pytest.mark.parametrize(
    ("name", "canonical", "good", "bad"),
    [
        ("int", "int", [1, 1.0, -(2**40)], [True, 1.5, "1", None]),
        ("float", "float", [1, 0.5, 10**308], [True, "1", [1], 10**309]),
        ("str", "str", ["", "x"], [1, None]),
        ("bool", "bool", [True, False], [0, 1, "true"]),
        ('Enum [ "b", "a",1, true]', 'Enum["a","b",1,true]', ["a", 1, 1.0, True], [0, False, "c", None, ["a"]]),
        ('Flags["b","a"]', 'Flags["a","b"]', [[], ["a"], ["b", "a"]], ["a", ["a", "a"], ["c"], [["a"]]]),
        ("Sequence < int >", "Sequence<int>", [[], [1]], ["x", [None], {}]),
        ("Mapping<Sequence<bool>>", "Mapping<Sequence<bool>>", [{}, {"a": [True]}], [[], {"a": [1]}, {"a": True}]),
    ],
)
def test_a_type_accepts_its_values_and_no_others(name: str, canonical: str, good: list[Any], bad: list[Any]) -> None:
    """And it has one canonical name."""
    parsed = parse_setting_type(name)
    assert str(parsed) == canonical
    assert parse_setting_type(canonical) == parsed
    assert [parsed.accepts(value) for value in good] == [True] * len(good)
    assert [parsed.accepts(value) for value in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    "name",
    ["", "integer", "Enum[]", "Enum", "Enum[1,1.0]", 'Enum["a", "a"]', "Enum[[1]]", "Enum[null]", "Enum[1", "Enum{1}",
     "Flags[nope]", "Sequence<>", "Sequence", "Mapping<str, int>", "Sequence<" * 40 + "int" + ">" * 40],
)  # fmt: skip
def test_an_invalid_type_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot resolve setting type"):
        parse_setting_type(name)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("int", "float"),
        ('Enum["a"]', 'Enum["a","b"]'),
        ("Flags[1]", "Flags[1,2]"),
        ("Sequence<int>", "Sequence<float>"),
        ("Mapping<Sequence<int>>", "Mapping<Sequence<float>>"),
    ],
)
def test_the_subtype_relation(narrow: str, wide: str) -> None:
    """Each value of the subtype is a value of the other type, but not the reverse."""
    small, large = parse_setting_type(narrow), parse_setting_type(wide)
    assert small.is_subtype_of(large)
    assert small.is_subtype_of(small)
    assert not large.is_subtype_of(small)
    assert not small.is_subtype_of(parse_setting_type("str"))


@given(
    st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)).filter(
        lambda x: isinstance(x, int) or not x.is_integer() or abs(x) < 2**53
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@example(1.0)
@example(-0.0)
@example(2**63 + 1)
@example(10**400)
@example(-3.8505053788517434e-292)
def test_numbers_are_preserved_exactly(http: httpx.Client, number: float) -> None:
    """As default values, values of rules and in metadata, including whole floats.

    The tests of import and export draw many more.
    """
    http.delete("/api/v1/settings/s")
    kind = "float" if isinstance(number, float) and not number.is_integer() else "int"
    assert declare(http, type=kind, default_value=number, metadata={"n": number}).status_code == 200
    assert add_rule(http, number, user="jim").status_code == 201
    setting = http.get("/api/v1/settings/s").json()
    queried = http.get("/api/v1/query").json()["settings"]["s"]
    for returned in (
        setting["default_value"],
        setting["metadata"]["n"],
        queried["default_value"],
        queried["rules"][0]["value"],
    ):
        assert (repr(returned), type(returned)) == (repr(number), type(number))


@sqlite_only
@pytest.mark.parametrize(
    "changes",
    [
        {"type": "Enum[\ud800]"},
        {"type": 'Enum["\ud800"]', "default_value": "x"},
        {"type": r'Enum["\ud800","x"]', "default_value": "x"},
        {"type": r'Flags["\uDFFF"]', "default_value": []},
        {"type": r'Mapping<Sequence<Enum["\udc00\ud800", 1]>>', "default_value": {}},
        {"type": "Enum" + "[" * 5000},
        {"type": "Enum[NaN,1]"},
        {"type": "Enum[1e999,1]"},
        {"metadata": {"a": eval("[" * 150 + "]" * 150)}},  # noqa: S307
    ],
    ids=["surrogate", "surrogate option", "escape", "flags", "nested escape", "brackets", "nan", "infinity", "deep"],
)
def test_values_that_other_parsers_cannot_read_are_refused(http: httpx.Client, changes: dict[str, Any]) -> None:
    """They would otherwise make each response that contains them invalid."""
    body = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"], **changes}
    headers = {"Content-Type": "application/json"}
    response = http.post("/api/v1/settings/declare", content=json.dumps(body), headers=headers)
    assert response.status_code == 422, response.text
    assert http.get("/api/v1/settings").json() == {"settings": []}


def test_metadata_are_stored(http: httpx.Client) -> None:
    """Of settings and rules. A query returns those of rules if requested."""
    declare(http, metadata={"team": "a"})
    body = {"setting": "s", "feature_values": {"user": "jim"}, "value": 2, "metadata": {"by": ["ops", 1.0]}}
    http.post("/api/v1/rules", json=body)
    assert http.get("/api/v1/settings/s").json()["metadata"] == {"team": "a"}
    assert http.get("/api/v1/rules/1").json()["metadata"] == {"by": ["ops", 1.0]}
    for parameter, is_included in (("true", True), ("false", False)):
        (rule,) = http.get("/api/v1/query", params={"include_metadata": parameter}).json()["settings"]["s"]["rules"]
        assert ("metadata" in rule) == is_included


@sqlite_only
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/rules/1.0", 422),
        ("GET", "/api/v1/rules/+1", 422),
        ("GET", "/api/v1/rules/%201", 422),
        ("GET", "/api/v1/rules/" + "9" * 30, 404),
        ("GET", "/api/v1/rules/1", 200),
        ("GET", "/api/v1/rules/search?setting=s&feature_values=user:john,user:jim", 422),
        ("GET", "/api/v1/rules/search?setting=s&feature_values=user:jim", 200),
    ],
)
def test_a_rule_is_found_by_a_valid_id_or_conditions_only(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    """An id consists of digits, and conditions contain each feature once."""
    declare(http)
    add_rule(http, 5, user="jim")
    assert http.request(method, path).status_code == status


@sqlite_only
def test_a_search_with_a_repeated_feature_is_refused_as_documented(http: httpx.Client) -> None:
    """In JSON, like other validation errors."""
    response = http.get("/api/v1/rules/search", params={"setting": "s", "feature_values": "user:jim,user:ann"})
    assert (response.status_code, response.headers["content-type"]) == (422, "application/json")
    assert response.json()["detail"][0]["msg"] == "a context feature is named twice"


@sqlite_only
def test_if_none_match_compares_whole_etags(http: httpx.Client) -> None:
    """In a list, weak, or in several header lines."""
    declare(http)
    etag = http.get("/api/v1/query").headers["etag"]
    for line in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        assert http.get("/api/v1/query", headers={"If-None-Match": line}).status_code == 304, line
    assert http.get("/api/v1/query", headers=[("If-None-Match", '"x"'), ("If-None-Match", etag)]).status_code == 304
    for line in ("", '"x"', '"a, *, b"', etag.strip('"')):
        assert http.get("/api/v1/query", headers={"If-None-Match": line}).status_code == 200, line


def test_two_services_with_one_file_wait_for_each_other(tmp_path: Path) -> None:
    """No write is lost, and a writer does not block readers."""
    path = tmp_path / "with ? and %41.db"
    with LocalService(FEATURES, database=path) as first, LocalService(database=path) as second:
        assert path.exists()
        with http_client(first.url) as a, http_client(second.url) as b:
            declare(a)
            threads = [
                threading.Thread(target=lambda http, i: add_rule(http, i, user=f"u{i}"), args=(http, i))
                for i, http in enumerate([a, b] * 10)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(a.get("/api/v1/query").json()["settings"]["s"]["rules"]) == 20
            with sqlite3.connect(path, isolation_level=None) as writer:
                writer.execute("BEGIN IMMEDIATE")
                assert len(b.get("/api/v1/query").json()["settings"]["s"]["rules"]) == 20
                writer.execute("ROLLBACK")
            writer.close()


@pytest.mark.parametrize("make", [lambda features: create_app(context_features=features), LocalService])
def test_context_features_are_checked(make: Callable[[Any], object]) -> None:
    """A string would be a list of letters."""
    with pytest.raises(TypeError, match="not one string"):
        make("user")
    with pytest.raises(ValueError, match="not a valid name"):
        make(["user name"])


def test_an_application_runs_once() -> None:
    """A second lifespan is an error that says what to do, as data in memory are lost at the end of the first one."""
    app = create_app()

    async def run() -> None:
        async with app.router.lifespan_context(app):
            assert not app.state.event_stream.is_closed

    asyncio.run(run())
    with pytest.raises(RuntimeError, match="create another one"):
        asyncio.run(run())


def test_an_outer_application_may_run_the_lifespan_as_its_own(tmp_path: Path) -> None:
    """It ends what belongs to the service, although the lifespan is called with the outer application."""
    app = create_app(f"sqlite:///{tmp_path / 's.db'}")
    outer = Starlette(routes=[Mount("/heksher", app)], lifespan=app.router.lifespan_context)

    async def run() -> None:
        async with outer.router.lifespan_context(outer):
            assert not app.state.event_stream.is_closed

    asyncio.run(run())
    assert app.state.event_stream.is_closed
    with pytest.raises(DatabaseClosedError), app.state.database.begin():
        pass


def test_an_empty_filter_selects_nothing() -> None:
    """And `*` selects all rules."""
    assert parse_context_filters("") == {}
    assert parse_context_filters("*") is None


def test_deleting_a_setting_frees_its_names(http: httpx.Client) -> None:
    """A setting that is declared again has neither the former rules nor their ids."""
    declare(http)
    add_rule(http, 5, user="jim")
    http.put("/api/v1/settings/s/name", json={"name": "t", "version": "1.1"})
    assert http.delete("/api/v1/settings/s").status_code == 204
    assert declare(http).json() == {"outcome": "created"}
    assert http.get("/api/v1/query").json()["settings"] == {"s": {"default_value": 1, "rules": []}}
    assert add_rule(http, 5, user="jim").json() == {"rule_id": 2}


def test_conditions_are_returned_in_the_order_of_the_features(http: httpx.Client) -> None:
    """The order in the request does not matter."""
    declare(http, configurable_features=FEATURES[::-1])
    response = add_rule(http, 5, theme="dark", user="jim", environment="prod")
    location = str(response.url.join(response.headers["location"]))
    assert location.endswith("/api/v1/rules/1")
    expected = [["environment", "prod"], ["user", "jim"], ["theme", "dark"]]
    assert http.get(location).json()["feature_values"] == expected
    assert http.get("/api/v1/settings/s").json()["configurable_features"] == FEATURES


def test_an_invalid_name_of_a_context_feature_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="has-dash"):
        create_app(context_features=["has-dash"])


@sqlite_only
def test_an_error_of_the_database_results_in_a_500_with_one_line(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a traceback."""

    def fail(*_: object) -> None:
        raise OperationalError("SELECT", {}, OSError("disk"))

    monkeypatch.setattr("heksher_client.service.store.setting", fail)
    response = http.get("/api/v1/settings/s")
    assert (response.status_code, response.text) == (500, "the database is not available")


def test_a_request_after_the_database_was_closed_results_in_a_500(service: WatchedService, http: httpx.Client) -> None:
    """It must not be answered from a new, empty database."""
    assert service.database is not None
    service.database.close()
    assert (http.get("/api/v1/settings").status_code, http.get("/api/health").status_code) == (500, 500)


def test_a_violated_constraint_of_the_database_results_in_a_409(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In case a check before the write has missed the conflict."""
    declare(http)
    add_rule(http, 5, user="jim")
    monkeypatch.setattr("heksher_client.service.store.find_rule", lambda *_: None)
    assert add_rule(http, 6, user="jim").status_code == 409


def test_simultaneous_first_declarations_all_succeed() -> None:
    """One is `created`, the others are `uptodate`. The reference responds to some with the status 500."""
    with LocalService(FEATURES) as service:
        body = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"]}
        outcomes: list[str] = []
        barrier = threading.Barrier(8)

        def declare_it() -> None:
            with http_client(service.url) as client:
                barrier.wait()
                outcomes.append(client.post("/api/v1/settings/declare", json=body).json()["outcome"])

        threads = [threading.Thread(target=declare_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == ["created"] + ["uptodate"] * 7


def test_a_restarted_service_keeps_its_port_and_its_file(tmp_path: Path) -> None:
    service = LocalService(FEATURES, database=tmp_path / "settings.db")
    with pytest.raises(RuntimeError, match="not started"):
        _ = service.url
    with service:
        url = service.url
        with pytest.raises(RuntimeError, match="already running"):
            service.start()
        http_request("POST", f"{url}/api/v1/context_features", json={"context_feature": "planet"}).raise_for_status()
    service.stop()
    with service:
        assert service.url == url
        assert http_request("GET", f"{url}/api/v1/context_features").json()["context_features"] == [*FEATURES, "planet"]


def test_a_stopped_service_has_no_open_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Including one that was accepted after uvicorn had told the others to close."""
    stop = uvicorn.Server.shutdown

    async def shutdown_without_late_connections(
        server: uvicorn.Server, sockets: list[socket.socket] | None = None
    ) -> None:
        accepted_late = set(server.server_state.connections)
        server.server_state.connections.clear()
        await stop(server, sockets)
        server.server_state.connections.update(accepted_late)

    monkeypatch.setattr(uvicorn.Server, "shutdown", shutdown_without_late_connections)
    with LocalService(["user"]) as service, http_client(service.url) as http:
        http.get("/api/health").raise_for_status()
        service.stop()
        gc.collect()  # a socket that is still open would result in a ResourceWarning, which must occur in this test


def test_a_port_in_use_is_an_error(tmp_path: Path) -> None:
    with LocalService(FEATURES) as first:
        second = LocalService(FEATURES, port=int(first.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"):
            second.start()


def test_a_failed_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller must not wait forever."""

    async def give_up(server: uvicorn.Server, _: object) -> None:
        server.should_exit = True

    monkeypatch.setattr("uvicorn.Server.startup", give_up)
    with pytest.raises(RuntimeError, match="could not start"):
        LocalService(FEATURES).start()


@sqlite_only
def test_response_bodies_are_compact_json(http: httpx.Client) -> None:
    """Thousands of processes read the result of a query."""
    declare(http, type="str", default_value="é")
    assert (
        http.get("/api/v1/query").content
        == json.dumps(
            {"settings": {"s": {"default_value": "é", "rules": []}}}, ensure_ascii=False, separators=(",", ":")
        ).encode()
    )


@sqlite_only
@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "settings/declare", {"name": "s" * 256}, "at most 255 characters"),
        ("POST", "settings/declare", {"configurable_features": ["user"] * 101}, "at most 100 items"),
        (
            "POST",
            "settings/declare",
            {"type": f"Enum[{','.join(map(str, range(20_000)))}]"},
            "at most 65536 characters",
        ),
        ("POST", "settings/declare", {"metadata": {"k" * 256: 1}}, "at most 255 characters"),
        ("POST", "rules", {"feature_values": {"user": "x" * 256}}, "1 to 255 characters"),
        ("POST", "rules", {"feature_values": {"user": "\U0001d160" * 86}}, "1 to 255 characters"),
        ("POST", "rules", {"feature_values": {f"f{i}": "x" for i in range(101)}}, "at most 100 items"),
        ("POST", "rules", {"feature_values": {f"f{i}": "x" * 250 for i in range(10)}}, "2600 bytes in total"),
        ("POST", "rules", {"feature_values": {f"f{i}": "é" * 250 for i in range(6)}}, "2600 bytes in total"),
        ("POST", "rules", {"feature_values": {f"f{i}": '"' * 250 for i in range(6)}}, "2600 bytes in total"),
        ("POST", "context_features", {"context_feature": "f" * 256}, "at most 255 characters"),
    ],
)
def test_values_beyond_a_limit_are_refused_with_the_limit(
    http: httpx.Client, method: str, path: str, body: dict[str, Any], message: str
) -> None:
    """So that names and conditions are valid keys in all databases."""
    declaration = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"]}
    whole = {"settings/declare": declaration, "rules": {"setting": "s", "value": 1}}.get(path, {}) | body
    response = http.request(method, f"/api/v1/{path}", json=whole)
    assert (response.status_code, message in response.text) == (422, True), response.text


def test_the_longest_conditions_can_be_stored(http: httpx.Client) -> None:
    """In PostgreSQL too, whose keys have a limit, whatever the number of conditions. Longer ones are refused."""
    declare(http)
    rng = random.Random(1)
    features = ["".join(rng.choices(string.ascii_letters, k=9)) for _ in range(100)]
    for feature in features:
        assert http.post("/api/v1/context_features", json={"context_feature": feature}).status_code == 204
    declare(http, name="t", configurable_features=features)
    for count in (10, 60, 99, 100):
        values_length = 2600 - count * (9 + 10)
        lengths = [values_length // count] * (count - 1)
        lengths.append(values_length - sum(lengths))
        values = ["".join(rng.choices(string.ascii_letters, k=length)) for length in lengths]
        conditions = dict(zip(features, values, strict=False))
        assert add_rule(http, 2, "t", **conditions).status_code == 201
        assert add_rule(http, 2, "t", **conditions).status_code == 409
        assert add_rule(http, 2, "t", **conditions | {features[0]: f"{values[0]}x"}).status_code == 422


@sqlite_only
def test_a_body_that_is_too_large_is_refused(http: httpx.Client) -> None:
    """With and without a Content-Length header."""
    assert http.post("/api/v1/rules", json={"value": "x" * 2**20}).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(1025):
            yield b"x" * 1024

    assert http.post("/api/v1/rules", content=chunks(), headers={"content-type": "application/json"}).status_code == 413


@sqlite_only
@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_with_a_meaning_in_paths_is_refused(http: httpx.Client, name: str) -> None:
    """The setting could not be requested."""
    assert declare(http, name=name).status_code == 422


@pytest.mark.parametrize("number", [2**31, 10**17])
def test_ids_beyond_the_range_of_the_database_do_not_exist(http: httpx.Client, number: int) -> None:
    assert http.get(f"/api/v1/rules/{number}").status_code == 404
    assert http.get(f"/api/v1/change_log?after={number}").status_code == 422


@pytest.mark.slow
@pytest.mark.unmeasured
def test_more_simultaneous_requests_than_threads_are_all_answered(http: httpx.Client, service: WatchedService) -> None:
    """Requests that wait for a transaction do not block the end of another one."""
    declare(http)
    body = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"]}

    async def send_all() -> list[int]:
        limits = httpx.Limits()
        async with httpx.AsyncClient(base_url=service.url, limits=limits, timeout=TIMEOUT_SECONDS) as client:
            queries = [client.get("/api/v1/query") for _ in range(40)]
            declarations = [client.post("/api/v1/settings/declare", json=body) for _ in range(20)]
            rules = [
                client.post("/api/v1/rules", json={"setting": "s", "feature_values": {"user": f"u{i}"}, "value": i})
                for i in range(40)
            ]
            return [response.status_code for response in await asyncio.gather(*queries, *declarations, *rules)]

    assert Counter(asyncio.run(send_all())) == {200: 60, 201: 40}


def test_idle_connections_stay_open_for_longer_than_the_default_update_interval() -> None:
    """So that clients, whose interval varies by a tenth, need not open a new connection for each refresh."""
    app = create_app("sqlite://", ["user"])
    assert Server(app).config.timeout_keep_alive > 60 * 1.1
    app.state.database.close()
