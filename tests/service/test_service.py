"""The local service where no recorded exchange tells what is right."""

import asyncio
import gc
import json
import random
import socket
import sqlite3
import string
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from heksher_client.service import LocalService, create_app
from heksher_client.service.context_filters import parse_context_filters
from heksher_client.service.server import Server
from heksher_client.service.setting_types import parse_setting_type
from tests.support.clients import PATIENCE
from tests.support.http import http_client, http_request
from tests.support.service import WatchedService

FEATURES = ["environment", "user", "theme"]


@pytest.fixture
def http(service: WatchedService) -> Iterator[httpx.Client]:
    with http_client(service.url) as client:
        yield client


def declare(http: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"], **changes}
    return http.post("/api/v1/settings/declare", json=body)


def add_rule(http: httpx.Client, value: Any, setting: str = "s", **conditions: str) -> httpx.Response:
    body = {"setting": setting, "feature_values": conditions, "value": value}
    return http.post("/api/v1/rules", json=body)


@pytest.mark.parametrize("feature", ["with_underscore", "Upper", "digit2"])
def test_a_filter_reads_the_name_of_any_feature(feature: str) -> None:
    """The reference loses rules on features that are not lower-case letters; this service does not."""
    with LocalService([feature]) as service, http_client(service.url) as http:
        declare(http, configurable_features=[feature])
        add_rule(http, 2, **{feature: "a"})
        for context_filters in (f"{feature}:*", f"{feature}:(a,b)"):
            answer = http.get("/api/v1/query", params={"settings": "s", "context_filters": context_filters})
            assert len(answer.json()["settings"]["s"]["rules"]) == 1


def test_a_declaration_under_an_alias_at_the_same_version_is_the_same_setting(http: httpx.Client) -> None:
    """The reference answers 500 to it."""
    declare(http)
    http.put("/api/v1/settings/s/name", json={"name": "t", "version": "1.1"})
    assert declare(http, name="s", version="1.1").json() == {"outcome": "uptodate"}
    upgraded = declare(http, name="s", version="1.2", default_value=5)
    assert upgraded.json()["outcome"] == "upgraded"
    assert http.get("/api/v1/settings/s").json()["name"] == "t"


def test_a_rename_by_declaration_needs_a_higher_version(http: httpx.Client) -> None:
    """At the same version a new name is a mismatch like any other difference."""
    declare(http)
    answer = declare(http, name="t", alias="s")
    assert answer.status_code == 409
    assert answer.json()["differences"] == [{"level": "minor", "attribute": "name", "latest_value": "s"}]
    assert declare(http, name="t", alias="s", version="1.1").json()["outcome"] == "upgraded"
    assert declare(http, name="t", alias="s", version="1.1").json()["outcome"] == "uptodate"


def test_a_former_name_can_be_taken_up_again(http: httpx.Client) -> None:
    """Renaming back and forth leaves the other name as an alias; a name in use is refused."""
    declare(http)
    declare(http, name="other")
    for i, name in enumerate(["t", "s", "t"], start=1):
        assert http.put("/api/v1/settings/s/name", json={"name": name, "version": f"1.{i}"}).status_code == 204
    assert http.get("/api/v1/settings/s").json()["aliases"] == ["s"]
    for name in ("t", "other"):
        assert http.put("/api/v1/settings/t/name", json={"name": name, "version": "1.9"}).status_code == 409
    lower = http.put("/api/v1/settings/t/name", json={"name": "u", "version": "1.3"})
    assert (lower.status_code, lower.text) == (409, "the setting t is at version 1.3 already")


def test_an_upgrade_to_a_type_that_rules_do_not_fit_is_rejected(http: httpx.Client) -> None:
    """Even a major version may not leave rules with values that nobody can use."""
    declare(http)
    add_rule(http, 5, user="jim")
    answer = declare(http, type="str", default_value="x", version="2.0")
    assert answer.status_code == 409
    message = {"level": "mismatch", "message": "setting type incompatible with values for rules: [1]"}
    assert message in answer.json()["differences"]


def test_an_upgrade_to_features_that_do_not_exist_is_refused(http: httpx.Client) -> None:
    """As a new setting would be."""
    declare(http)
    answer = declare(http, configurable_features=["user", "planet"], version="2.0")
    assert (answer.status_code, answer.json()) == (404, {"detail": "{'planet'} are not acceptable context features"})


def test_versions_are_numbers_and_no_texts(http: httpx.Client) -> None:
    """1.10 is newer than 1.9."""
    declare(http)
    declare(http, version="1.9", default_value=2)
    assert declare(http, version="1.10", default_value=3).json()["outcome"] == "upgraded"


@pytest.mark.parametrize(
    "value", [b"NaN", b"[Infinity]", b'"\\ud800"', b'{"a": -Infinity}'], ids=["nan", "inf", "surrogate", "deep"]
)
def test_what_is_no_json_is_refused(http: httpx.Client, value: bytes) -> None:
    """Python's parser takes NaN and lone surrogates; nobody could read them again."""
    body = (
        b'{"name": "s", "type": "float", "default_value": 1, "configurable_features": ["user"], "metadata": {"a": %s}}'
    )
    answer = http.post("/api/v1/settings/declare", content=body % value, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert http.get("/api/v1/settings").json() == {"settings": []}


@pytest.mark.parametrize(
    ("name", "canonical", "good", "bad"),
    [
        ("int", "int", [1, 1.0, -(2**40)], [True, 1.5, "1", None]),
        ("float", "float", [1, 0.5], [True, "1", [1]]),
        ("str", "str", ["", "x"], [1, None]),
        ("bool", "bool", [True, False], [0, 1, "true"]),
        ('Enum [ "b", "a",1, true]', 'Enum["a","b",1,true]', ["a", 1, 1.0, True], [0, False, "c", None, ["a"]]),
        ('Flags["b","a"]', 'Flags["a","b"]', [[], ["a"], ["b", "a"]], ["a", ["a", "a"], ["c"], [["a"]]]),
        ("Sequence < int >", "Sequence<int>", [[], [1]], ["x", [None], {}]),
        ("Mapping<Sequence<bool>>", "Mapping<Sequence<bool>>", [{}, {"a": [True]}], [[], {"a": [1]}, {"a": True}]),
    ],
)
def test_a_type_accepts_its_values_and_no_others(name: str, canonical: str, good: list[Any], bad: list[Any]) -> None:
    """And is written in one way, however it was given."""
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
def test_what_is_no_type_is_refused(name: str) -> None:
    """With the name that was given."""
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
def test_a_subtype_is_one_in_one_direction(narrow: str, wide: str) -> None:
    """Every value of the one is a value of the other, and not the other way round."""
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
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@example(1.0)
@example(-0.0)
@example(2**63 + 1)
@example(10**400)
@example(-3.8505053788517434e-292)
def test_a_number_comes_back_as_it_was_given(http: httpx.Client, number: float) -> None:
    """To the last digit: as a default, as a rule's value and in metadata, whole floats included."""
    http.delete("/api/v1/settings/s")
    kind = "float" if isinstance(number, float) and not number.is_integer() else "int"
    assert declare(http, type=kind, default_value=number, metadata={"n": number}).status_code == 200
    assert add_rule(http, number, user="jim").status_code == 201
    held = http.get("/api/v1/settings/s").json()
    answer = http.get("/api/v1/query").json()["settings"]["s"]
    for given_back in (
        held["default_value"],
        held["metadata"]["n"],
        answer["default_value"],
        answer["rules"][0]["value"],
    ):
        assert (repr(given_back), type(given_back)) == (repr(number), type(number))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "Enum[\ud800]"},
        {"type": 'Enum["\ud800"]', "default_value": "x"},
        {"type": "Enum" + "[" * 5000},
        {"type": "Enum[NaN,1]"},
        {"type": "Enum[1e999,1]"},
        {"metadata": {"a": eval("[" * 150 + "]" * 150)}},  # noqa: S307
    ],
    ids=["surrogate", "surrogate option", "brackets", "nan", "infinity", "deep"],
)
def test_what_others_could_not_read_again_is_refused(http: httpx.Client, changes: dict[str, Any]) -> None:
    """Instead of being stored, and failing every answer that it is part of."""
    body = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"], **changes}
    headers = {"Content-Type": "application/json"}
    answer = http.post("/api/v1/settings/declare", content=json.dumps(body), headers=headers)
    assert answer.status_code == 422, answer.text
    assert http.get("/api/v1/settings").json() == {"settings": []}


def test_metadata_are_kept(http: httpx.Client) -> None:
    """Of settings and of rules; a query tells those of rules when asked."""
    declare(http, metadata={"team": "a"})
    body = {"setting": "s", "feature_values": {"user": "jim"}, "value": 2, "metadata": {"by": ["ops", 1.0]}}
    http.post("/api/v1/rules", json=body)
    assert http.get("/api/v1/settings/s").json()["metadata"] == {"team": "a"}
    assert http.get("/api/v1/rules/1").json()["metadata"] == {"by": ["ops", 1.0]}
    for asked, told in (("true", True), ("false", False)):
        (rule,) = http.get("/api/v1/query", params={"include_metadata": asked}).json()["settings"]["s"]["rules"]
        assert ("metadata" in rule) == told


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/rules/1.0", 422),
        ("GET", "/api/v1/rules/+1", 422),
        ("GET", "/api/v1/rules/%201", 422),
        ("GET", "/api/v1/rules/" + "9" * 30, 422),
        ("GET", "/api/v1/rules/1", 200),
        ("GET", "/api/v1/rules/search?setting=s&feature_values=user:john,user:jim", 422),
        ("GET", "/api/v1/rules/search?setting=s&feature_values=user:jim", 200),
    ],
)
def test_a_rule_is_found_by_what_names_it_and_by_nothing_else(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    """An id is digits; conditions name each feature once."""
    declare(http)
    add_rule(http, 5, user="jim")
    assert http.request(method, path).status_code == status


def test_a_search_that_names_a_feature_twice_is_refused_as_the_document_says(http: httpx.Client) -> None:
    """In JSON, as whatever else of a request cannot be."""
    answer = http.get("/api/v1/rules/search", params={"setting": "s", "feature_values": "user:jim,user:ann"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/json")
    assert answer.json()["detail"][0]["msg"] == "a context feature is named twice"


def test_an_etag_is_matched_as_a_whole(http: httpx.Client) -> None:
    """In a list, weak, or in a line of its own; not as part of another one."""
    declare(http)
    etag = http.get("/api/v1/query").headers["etag"]
    for line in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        assert http.get("/api/v1/query", headers={"If-None-Match": line}).status_code == 304, line
    assert http.get("/api/v1/query", headers=[("If-None-Match", '"x"'), ("If-None-Match", etag)]).status_code == 304
    for line in ("", '"x"', '"a, *, b"', etag.strip('"')):
        assert http.get("/api/v1/query", headers={"If-None-Match": line}).status_code == 200, line


def test_two_services_on_one_file_wait_for_each_other(tmp_path: Path) -> None:
    """Neither loses a write, nor keeps the other one from reading."""
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


def test_one_string_is_no_list_of_context_features() -> None:
    """It would be taken for a list of letters."""
    with pytest.raises(TypeError, match="not one string"):
        create_app(context_features="user")


def test_a_filter_of_nothing_wants_nothing() -> None:
    """And `*` wants everything."""
    assert parse_context_filters("") == {}
    assert parse_context_filters("*") is None


def test_deleting_a_setting_frees_its_names_and_rules(http: httpx.Client) -> None:
    """A setting that is declared again has neither the old rules nor their ids."""
    declare(http)
    add_rule(http, 5, user="jim")
    http.put("/api/v1/settings/s/name", json={"name": "t", "version": "1.1"})
    assert http.delete("/api/v1/settings/s").status_code == 204
    assert declare(http).json() == {"outcome": "created"}
    assert http.get("/api/v1/query").json()["settings"] == {"s": {"default_value": 1, "rules": []}}
    assert add_rule(http, 5, user="jim").json() == {"rule_id": 2}


def test_conditions_come_in_the_order_of_the_features(http: httpx.Client) -> None:
    """However they were given."""
    declare(http, configurable_features=FEATURES[::-1])
    answer = add_rule(http, 5, theme="dark", user="jim", environment="prod")
    assert answer.headers["location"] == "/api/v1/rules/1"
    expected = [["environment", "prod"], ["user", "jim"], ["theme", "dark"]]
    assert http.get(answer.headers["location"]).json()["feature_values"] == expected
    assert http.get("/api/v1/settings/s").json()["configurable_features"] == FEATURES


def test_a_context_feature_with_an_impossible_name_is_refused_at_the_start() -> None:
    """Instead of being found out by the first rule."""
    with pytest.raises(ValueError, match="has-dash"):
        create_app(context_features=["has-dash"])


def test_a_database_in_trouble_is_a_500_in_one_line(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack trace in an answer."""

    def fail(*_: object) -> None:
        raise OperationalError("SELECT", {}, OSError("disk"))

    monkeypatch.setattr("heksher_client.service.store.setting", fail)
    answer = http.get("/api/v1/settings/s")
    assert (answer.status_code, answer.text) == (500, "the database does not answer")


def test_a_request_that_comes_after_the_end_is_told_so(service: WatchedService, http: httpx.Client) -> None:
    """Instead of being answered from a new and empty database."""
    assert service.database is not None
    service.database.close()
    assert (http.get("/api/v1/settings").status_code, http.get("/api/health").status_code) == (500, 500)


def test_one_of_two_writers_of_the_same_thing_gets_a_conflict(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database has the last word, where a check before it saw nothing."""
    declare(http)
    add_rule(http, 5, user="jim")
    monkeypatch.setattr("heksher_client.service.store.find_rule", lambda *_: None)
    assert add_rule(http, 6, user="jim").status_code == 409


def test_many_first_declarations_of_one_setting_all_end_well() -> None:
    """The reference answers some of them 500; here one is `created`, and the others are `uptodate`."""
    with LocalService(FEATURES) as service:
        body = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"]}
        outcomes: list[str] = []
        gate = threading.Barrier(8)

        def declare_it() -> None:
            with http_client(service.url) as client:
                gate.wait()
                outcomes.append(client.post("/api/v1/settings/declare", json=body).json()["outcome"])

        threads = [threading.Thread(target=declare_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == ["created"] + ["uptodate"] * 7


def test_a_service_keeps_its_port_and_its_file(tmp_path: Path) -> None:
    """Stopped and started again, it is the same service."""
    service = LocalService(FEATURES, database=tmp_path / "settings.db")
    with pytest.raises(RuntimeError, match="not started"):
        _ = service.url
    with service:
        url = service.url
        with pytest.raises(RuntimeError, match="runs already"):
            service.start()
        http_request("POST", f"{url}/api/v1/context_features", json={"context_feature": "planet"}).raise_for_status()
    service.stop()
    with service:
        assert service.url == url
        assert http_request("GET", f"{url}/api/v1/context_features").json()["context_features"] == [*FEATURES, "planet"]


def test_a_service_that_has_stopped_holds_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that was accepted after all others were told to close, which uvicorn leaves open."""
    stop = uvicorn.Server.shutdown

    async def overlook(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        accepted_late = set(server.server_state.connections)
        server.server_state.connections.clear()
        await stop(server, sockets)
        server.server_state.connections.update(accepted_late)

    monkeypatch.setattr(uvicorn.Server, "shutdown", overlook)
    with LocalService(["user"]) as service, http_client(service.url) as http:
        http.get("/api/health").raise_for_status()
        service.stop()
        gc.collect()  # a socket that is left over would be an error of the test that it is found in: here, of this one


def test_a_port_that_is_taken_is_an_error_at_once(tmp_path: Path) -> None:
    """And the service can be started elsewhere afterwards."""
    with LocalService(FEATURES) as first:
        second = LocalService(FEATURES, port=int(first.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"):
            second.start()


def test_a_service_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of letting its caller wait for ever."""

    async def give_up(server: uvicorn.Server, _: object) -> None:
        server.should_exit = True

    monkeypatch.setattr("uvicorn.Server.startup", give_up)
    with pytest.raises(RuntimeError, match="could not start"):
        LocalService(FEATURES).start()


def test_the_bodies_of_answers_are_compact_json(http: httpx.Client) -> None:
    """A query's answer is read by thousands of processes."""
    declare(http, type="str", default_value="é")
    assert (
        http.get("/api/v1/query").content
        == json.dumps(
            {"settings": {"s": {"default_value": "é", "rules": []}}}, ensure_ascii=False, separators=(",", ":")
        ).encode()
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
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
        ("POST", "rules", {"feature_values": {"user": "x" * 256}}, "at most 255 characters"),
        ("POST", "rules", {"feature_values": {f"f{i}": "x" for i in range(101)}}, "at most 100 items"),
        ("POST", "rules", {"feature_values": {f"f{i}": "x" * 200 for i in range(10)}}, "2000 characters, all of them"),
        ("POST", "context_features", {"context_feature": "f" * 256}, "at most 255 characters"),
        ("GET", f"settings/{'s' * 256}", None, "at most 255 characters"),
    ],
)
def test_what_is_too_long_is_refused_with_its_limit(
    http: httpx.Client, method: str, path: str, body: dict[str, Any] | None, words: str
) -> None:
    """So that no name or rule is a key too long for a database."""
    declaration = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"]}
    whole = {"settings/declare": declaration, "rules": {"setting": "s", "value": 1}}.get(path, {}) | (body or {})
    answer = http.request(method, f"/api/v1/{path}", json=whole if body else None)
    assert (answer.status_code, words in answer.text) == (422, True), answer.text


def test_the_longest_conditions_fit_into_the_database(http: httpx.Client) -> None:
    """On PostgreSQL too, whose keys have a limit."""
    declare(http)
    rng = random.Random(1)
    features = ["".join(rng.choices(string.ascii_letters, k=100)) for _ in range(10)]
    for feature in features:
        assert http.post("/api/v1/context_features", json={"context_feature": feature}).status_code == 204
    declare(http, name="t", configurable_features=features)
    conditions = {feature: "".join(rng.choices(string.ascii_letters, k=100)) for feature in features}
    assert add_rule(http, 2, "t", **conditions).status_code == 201
    assert add_rule(http, 2, "t", **conditions).status_code == 409


def test_a_body_that_is_too_large_is_refused_unread(http: httpx.Client) -> None:
    """Whether it says beforehand how large it is, or not."""
    assert http.post("/api/v1/rules", json={"value": "x" * 2**20}).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(1025):
            yield b"x" * 1024

    assert http.post("/api/v1/rules", content=chunks(), headers={"content-type": "application/json"}).status_code == 413


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_means_something_else_in_a_path_is_refused(http: httpx.Client, name: str) -> None:
    """Nobody could ask for the setting."""
    assert declare(http, name=name).status_code == 422


@pytest.mark.parametrize("number", [2**31, 10**17])
def test_no_rule_has_a_number_that_is_too_large(http: httpx.Client, number: int) -> None:
    assert http.get(f"/api/v1/rules/{number}").status_code == 404
    assert http.get(f"/api/v1/change_log?after={number}").status_code == 422


def test_more_requests_at_once_than_there_are_threads_are_all_answered(
    http: httpx.Client, service: WatchedService
) -> None:
    """Whatever they wait for, none of them holds what another one needs to end."""
    declare(http)
    body = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"]}

    async def ask() -> list[int]:
        limits = httpx.Limits()
        async with httpx.AsyncClient(base_url=service.url, limits=limits, timeout=PATIENCE) as client:
            queries = [client.get("/api/v1/query") for _ in range(100)]
            declarations = [client.post("/api/v1/settings/declare", json=body) for _ in range(50)]
            rules = [
                client.post("/api/v1/rules", json={"setting": "s", "feature_values": {"user": f"u{i}"}, "value": i})
                for i in range(50)
            ]
            return [answer.status_code for answer in await asyncio.gather(*queries, *declarations, *rules)]

    assert Counter(asyncio.run(ask())) == {200: 150, 201: 50}


def test_idle_connections_are_kept_for_longer_than_clients_wait_by_default() -> None:
    """So that a poll a minute, a tenth more at the most, need not open another one each time."""
    app = create_app("sqlite://", ["user"])
    assert Server(app).config.timeout_keep_alive > 60 * 1.1
    app.state.database.close()
