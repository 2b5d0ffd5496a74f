"""Faulty responses with real clients: one test for each row of the table, as its variations are driven by hand."""

import base64
import gzip
import json
import traceback
import tracemalloc
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest

from heksher_client import (
    DeclarationError,
    HeksherError,
    HeksherSequence,
    Reason,
    Setting,
    State,
    UnexpectedResponseError,
)
from tests.support.clients import FEATURES, ClientClock, Kind, Subject, eventually, running
from tests.support.faults import FaultServer, canned_response, gzip_bomb
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.responses import NO_RULES, query_response, rule
from tests.support.service import CONTEXT_FEATURES, DECLARE, QUERY, CannedResponse, RecordedRequest, WatchedService


@pytest.fixture
def setting() -> Setting[int]:
    return Setting("s", int, ["user", "theme"], 7)


def get(setting: Setting[Any], user: str = "jim") -> Any:
    return setting.get(user=user, theme="none")


# -- HTTP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_h1_refused_credentials(
    kind: Kind, service: WatchedService, setting: Setting[int], client_clock: ClientClock, status: int
) -> None:
    """The error and the status say so, and the client retries slowly."""
    with running(kind, service.url) as client:
        service.intercept = lambda request: CannedResponse(status)
        error = client.reload_expecting(UnexpectedResponseError)
        assert isinstance(error, UnexpectedResponseError)
        assert error.status == status
        assert "the credentials are missing, wrong or insufficient" in str(error)
        assert "the credentials are missing, wrong or insufficient" in (client.client.status().last_error or "")
        assert client.client.status().next_attempt == 30  # after other failures: 1
        for _ in range(4):
            client.reload_expecting(UnexpectedResponseError)
        assert client.client.status().next_attempt == 300
        assert get(setting) == 7
        service.intercept = lambda request: None
        client.reload()
        assert client.client.status().state is State.FRESH


def test_h1_httpx_auth_that_refreshes_its_token(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """The request is sent again with the new token."""

    class Refreshing(httpx.Auth):
        token = "old"  # noqa: S105
        refreshed = 0

        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
            request.headers["Authorization"] = self.token
            response = yield request
            if response.status_code == 401:
                self.token, self.refreshed = "new", self.refreshed + 1
                request.headers["Authorization"] = self.token
                yield request

    auth = Refreshing()
    service.intercept = lambda request: CannedResponse(401) if request.headers.get("authorization") != "new" else None
    with running(kind, service.url, http_client_args={"auth": auth}):
        assert auth.refreshed == 1
        assert setting.explain(user="jim", theme="x").reason is Reason.SERVER_DEFAULT


def test_h2_deleted_setting(kind: Kind, service: WatchedService) -> None:
    """It is declared again; the others are updated in the same refresh."""
    deleted, other = (Setting(name, int, ["user"], 1) for name in ("deleted", "other"))
    with running(kind, service.url) as client:
        service.call("DELETE", "/api/v1/settings/deleted")
        service.add_rule("other", 2, user="jim")
        client.reload()
        assert (deleted.get(user="jim"), other.get(user="jim")) == (1, 2)
        assert client.client.status().settings["deleted"].declaration == "created"


def test_h3_refused_declaration(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """The async start raises; the thread client reports the error, and a reload declares the setting again."""
    service.respond_with(DECLARE, CannedResponse(404), times=1)
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.client.set_defaults(user="jim", theme="none")
    if kind.raises_at_start:
        with pytest.raises(DeclarationError):
            subject.start()
        return
    subject.start()
    assert isinstance(subject.next_outcome(), DeclarationError)
    assert subject.client.status().settings["s"].declaration == "refused"
    subject.reload()
    assert subject.client.status().settings["s"].declaration == "created"
    assert setting.get() == 7
    subject.close()


def test_h4_declaration_in_conflict(
    kind: Kind, service: WatchedService, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The differences are logged, and the setting is queried nevertheless."""
    service.declare("s", "str", "x", ["user", "theme"], version="1.0")
    with running(kind, service.url) as client:
        assert client.client.status().settings["s"].declaration in ("rejected", "mismatch")
        assert len(service.requests_to(QUERY)) == 1
    (record,) = [record for record in caplog.records if "conflicts with" in record.getMessage()]
    logged = [(one["attribute"], one["latest_value"]) for one in record.__dict__["differences"]]
    assert logged == [("default_value", "x"), ("type", "str")]
    assert get(setting) == 7


def test_h5_setting_renamed_by_another_program(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """It is queried by its new name."""
    with running(kind, service.url) as client:
        service.declare("renamed", "int", 7, ["user", "theme"], alias="s", version="1.1")
        service.add_rule("renamed", 8, user="jim")
        client.reload()
        assert get(setting) == 8
        assert client.client.status().settings["s"].canonical_name == "renamed"


def test_h8_retry_after(kind: Kind, service: WatchedService, setting: Setting[int], client_clock: ClientClock) -> None:
    """The client waits until the time in the header, by the clock of the service."""
    headers = "Retry-After: Sun, 22 Nov 2026 10:04:00 GMT\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\n"
    with FaultServer(service.url) as proxy, running(kind, proxy.url) as client:
        proxy.inject(canned_response(b"", 503, headers))
        client.reload_expecting(UnexpectedResponseError)
        assert client.client.status().next_attempt == 240
        assert get(setting) == 7


def test_h9_single_500_to_a_declaration(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """The declaration is sent again within the same refresh."""
    service.respond_with(DECLARE, CannedResponse(500), times=1)
    with running(kind, service.url) as client:
        assert client.client.status().settings["s"].declaration == "created"
        assert get(setting) == 7


def test_h10_304_to_the_first_query(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """It is an error, and the next query has no ETag."""
    service.respond_with(QUERY, CannedResponse(304), times=1)
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.client.set_defaults(user="jim", theme="none")
    if kind.raises_at_start:
        with pytest.raises(UnexpectedResponseError):
            subject.start()
        return
    subject.start()
    subject.reload()
    assert ["if-none-match" in request.headers for request in service.requests_to(QUERY)] == [False, False]
    assert setting.explain().reason is Reason.SERVER_DEFAULT
    subject.close()


def test_h11_etag_that_does_not_depend_on_the_query(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """An ETag is sent only with the query that it belongs to, so a new setting is received."""

    def same_etag(request: RecordedRequest) -> CannedResponse:
        if "if-none-match" in request.headers:
            return CannedResponse(304)
        names = request.query["settings"].split(",")
        return CannedResponse.of({"settings": dict.fromkeys(names, NO_RULES)}, etag='"same"')

    service.respond_with(QUERY, same_etag)
    with running(kind, service.url) as client:
        late = Setting("late", int, ["user"], 1)
        client.reload()
        assert late.get(user="jim") == 7
        assert get(setting) == 7


def test_h12_unexpected_success_status(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """It is an error. HTTP does not allow a body with this one."""
    with running(kind, service.url) as client:
        service.respond_with(QUERY, CannedResponse(204))
        client.reload_expecting(UnexpectedResponseError)
        assert get(setting) == 7


@pytest.mark.parametrize("status", [409, 503])
def test_d7_refused_declaration_beside_other_settings(kind: Kind, service: WatchedService, status: int) -> None:
    """The others are refreshed each interval, and the status says when the refused one is tried again."""
    good = Setting("good", int, ["user"], 1)

    def refuse(request: RecordedRequest) -> CannedResponse | None:
        is_refused = str(request) == DECLARE and request.json["name"] == "bad"
        return CannedResponse(status, b"no") if is_refused else None

    with running(kind, service.url, 0.02, stale_after=3600) as client:
        service.intercept = refuse
        bad = Setting("bad", int, ["user"], 1)
        assert eventually(lambda: client.client.status().settings["bad"].problem is not None)
        service.add_rule("good", 2, user="jim")
        refreshes = len(service.requests_to(CONTEXT_FEATURES))
        assert eventually(lambda: len(service.requests_to(CONTEXT_FEATURES)) >= refreshes + 20)
        assert good.get(user="jim") == 2
        problem = client.client.status().settings["bad"]
        assert problem.next_attempt is not None
        assert client.client.status().is_healthy
        assert len([request for request in service.requests_to(DECLARE) if request.json["name"] == "bad"]) <= 10
        service.intercept = lambda request: None
        client.reload()
        assert bad.explain(user="jim").reason is Reason.SERVER_DEFAULT
        assert client.client.status().settings["bad"].next_attempt is None


def test_d8_settings_that_a_new_service_has_never_seen(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The client starts without an error, and the service has their versions and aliases."""
    late = Setting("late", int, ["user"], 1, version="2.0")
    renamed = Setting("renamed", int, ["user"], 2, alias="former", version="1.3")
    new, old = Setting("new", int, ["user"], 3, alias="old", version="1.1"), Setting("old", int, ["user"], 3)
    without = Setting("without", int, ["user"], 4, alias="never")
    with running(kind, service.url) as client:
        assert client.next_outcome() is None
        assert {name: (one.version, one.aliases) for name, one in client.get_settings().items()} == {
            "late": ("2.0", []),
            "renamed": ("1.3", ["former"]),
            "new": ("1.1", ["old"]),
            "without": ("1.0", []),
        }
        service.add_rule("old", 5, user="jim")
        client.reload()
        assert [setting.get(user="jim") for setting in (late, renamed, new, old, without)] == [1, 2, 5, 5, 4]
        assert client.client.status().state is State.FRESH
    assert caplog.records == []


@pytest.mark.slow
@pytest.mark.parametrize("alias", [None, "old"])
def test_d8_processes_of_several_releases_at_once(kind: Kind, service: WatchedService, alias: str | None) -> None:
    """On a service that has never seen the setting. It ends with the newest declaration."""

    def child(release: int) -> Callable[[], bool]:
        def check() -> bool:
            name = "new" if release or alias is None else alias
            version, former = ["1.0", "1.1", "2.0"][release], alias if release else None
            setting = Setting(name, int, ["user"], release, alias=former, version=version)
            with running(type(kind)(), service.url) as client:
                return client.client.status().is_healthy and setting.explain().reason is Reason.SERVER_DEFAULT

        return check

    assert all(map(exited_successfully, [fork_and_check(child(release)) for release in (2, 0, 1, 2, 0, 1)]))
    newest = Setting("new", int, ["user"], 2, alias=alias, version="2.0")
    with running(kind, service.url) as client:
        assert client.client.status().settings["new"].declaration == "uptodate"
        assert newest.get(user="jim") == 2
        ((name, stored),) = client.get_settings().items()
        assert (name, stored.version, stored.aliases) == ("new", "2.0", [] if alias is None else [alias])


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_p1_invalid_body(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """The response is not used, and its ETag is not stored."""
    with running(kind, service.url) as client:
        service.add_rule("s", 8, user="jim")
        service.respond_with(QUERY, CannedResponse(200, b"", {"etag": '"bad"'}), times=1)
        client.reload_expecting(UnexpectedResponseError)
        assert get(setting) == 7
        client.reload()
        assert get(setting) == 8
        assert service.requests_to(QUERY)[-1].headers.get("if-none-match") != '"bad"'


def test_p2_setting_with_an_invalid_structure(kind: Kind, service: WatchedService) -> None:
    """It keeps its rules, and other settings are updated."""
    settings = [Setting(name, int, ["user"], 1) for name in "abc"]
    with running(kind, service.url) as client:
        good = {"default_value": 2, "rules": []}
        service.respond_with(QUERY, CannedResponse.of({"settings": {"a": good, "b": None, "c": good}}))
        client.reload_expecting(UnexpectedResponseError)
        assert [setting.get(user="x") for setting in settings] == [2, 1, 2]


def test_p3_setting_that_was_not_queried(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """It is ignored."""
    service.respond_with(
        QUERY, CannedResponse.of({"settings": {"s": {"default_value": 8, "rules": []}, "other": {"x": 1}}})
    )
    with running(kind, service.url) as client:
        assert get(setting) == 8
        assert client.client.status().state is State.FRESH


def test_p4_omitted_setting(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """It keeps its rules, and its status reports the omission."""
    with running(kind, service.url) as client:
        service.respond_with(QUERY, CannedResponse.of({"settings": {}}))
        client.reload_expecting(UnexpectedResponseError)
        assert "did not include setting s" in (client.client.status().settings["s"].problem or "")
        assert get(setting) == 7


def test_p5_value_of_another_type(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """Its rule is not used, and the status gives the reason."""
    service.respond_with(QUERY, query_response(rule("8"), rule(9, 2, [["user", "ann"]])))
    with running(kind, service.url) as client:
        assert (get(setting), get(setting, "ann")) == (7, 9)
        (rejected,) = client.client.status().settings["s"].first_rejected
        assert rejected.rule_id == 1
        assert rejected.reason


def test_p6_integral_float_and_string_instead_of_a_sequence(kind: Kind, service: WatchedService) -> None:
    """5.0 is a valid int; a string is not a sequence of letters."""
    number, letters = Setting("s", int, ["user"], 7), Setting("t", HeksherSequence(str), ["user"], ())
    service.respond_with(
        QUERY,
        CannedResponse.of({"settings": {
            "s": {"default_value": 5.0, "rules": []},
            "t": {"default_value": [], "rules": [rule("abc")]},
        }}),
    )  # fmt: skip
    with running(kind, service.url):
        assert number.get(user="jim") == 5
        assert letters.get(user="jim") == ()


def test_p7_condition_on_an_undeclared_feature(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """Its rule is not used, and is counted as rejected."""
    service.respond_with(QUERY, query_response(rule(8, 1, [["environment", "prod"]]), rule(9, 2)))
    with running(kind, service.url) as client:
        assert get(setting) == 9
        assert client.client.status().rejected == 1


def test_p8_conditions_in_another_order(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """They are sorted."""
    service.respond_with(QUERY, query_response(rule(8, 1, [["theme", "none"], ["user", "jim"]]), rule(9, 2)))
    with running(kind, service.url):
        assert get(setting) == 8


def test_p9_invalid_conditions(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """Their rule is not used."""
    service.respond_with(QUERY, query_response(rule(8, 1, [["user", "jim"], ["user", "ann"]]), rule(9, 2)))
    with running(kind, service.url) as client:
        assert get(setting) == 9
        assert client.client.status().rejected == 1


def test_p10_rules_with_the_same_conditions(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """The rule with the higher id is used."""
    service.respond_with(QUERY, query_response(rule(9, 2), rule(8, 1)))
    with running(kind, service.url):
        assert get(setting) == 9


def test_p11_number_of_five_thousand_digits(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """Only its rule is not used."""
    body = f"""{{"settings": {{"s": {{"default_value": 7, "rules": [
        {{"value": {"9" * 5000}, "rule_id": 1, "context_features": [["user", "jim"]]}},
        {{"value": 9, "rule_id": 3, "context_features": [["user", "ann"]]}}]}}}}}}"""
    service.respond_with(QUERY, CannedResponse(200, body.encode()))
    with running(kind, service.url):
        assert get(setting, "ann") == 9
        assert get(setting) == 7


def test_p12_numbers_beyond_the_range_of_floats(kind: Kind, service: WatchedService) -> None:
    """A rule with such a value is not used. Other rules are."""
    setting = Setting("s", float, ["user"], 7.0)
    body = b"""{"settings": {"s": {"default_value": 7.0, "rules": [
        {"value": 1e999, "rule_id": 1, "context_features": [["user", "jim"]]},
        {"value": 8.0, "rule_id": 2, "context_features": [["user", "ann"]]}]}}}"""
    service.respond_with(QUERY, CannedResponse(200, body))
    with running(kind, service.url):
        assert (setting.get(user="jim"), setting.get(user="ann")) == (7.0, 8.0)


def test_p13_deeply_nested_json(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """It is an error in the thread and the event loop of a client as well, whose stacks have their own sizes."""
    with running(kind, service.url) as client:
        service.respond_with(QUERY, CannedResponse(200, b'{"settings": {"s": ' + b"[" * 200_000))
        client.reload_expecting(UnexpectedResponseError)
        assert get(setting) == 7


def test_p14_decompression_bomb(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """It is decompressed up to a limit, with little more memory than the limit."""
    with FaultServer(service.url) as proxy, running(kind, proxy.url, max_response_bytes=1 << 20) as client:
        proxy.inject(gzip_bomb(400))
        # Not the memory of the process, whose maximum never falls and so hides all that is less than an earlier test.
        tracemalloc.start()
        try:
            error = client.reload_expecting(UnexpectedResponseError)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert "more than 1,048,576 bytes" in str(error)
        assert peak < 8 << 20
        assert get(setting) == 7
        proxy.inject(None)
        client.reload()


@pytest.mark.parametrize(
    "body", [b"not gzip data", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", gzip.compress(b"{}") + b"\x1f\x8b" * 1000]
)
def test_p14_invalid_compressed_data(kind: Kind, service: WatchedService, setting: Setting[int], body: bytes) -> None:
    """It is an invalid response, and is logged like one. The error of an unknown encoding names it."""
    with FaultServer(service.url) as proxy, running(kind, proxy.url) as client:
        for encoding, problem in (("gzip, identity", "compressed data"), ("br", "the unsupported encoding 'br'")):
            proxy.inject(canned_response(body, headers=f"Content-Encoding: {encoding}\r\n"), "/query")
            error = client.reload_expecting(UnexpectedResponseError)
            assert f"the service responded with 200, but with {problem}" in str(error)
        assert get(setting) == 7


def test_p19_compressed_response(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """However its header is written, and with padding. Without compression, the header may have any other name."""
    encodings: list[tuple[str, Callable[[bytes], bytes]]] = [
        (" X-Gzip , identity", gzip.compress),
        ("identity\r\nContent-Encoding: GZIP", gzip.compress),
        ("gzip", lambda body: gzip.compress(body) + bytes(512)),
        ("gzip", lambda body: gzip.compress(body) + b"\r\n"),
        *((name, bytes) for name in ("none", "utf-8", "binary", "aws-chunked")),
    ]
    with FaultServer(service.url) as proxy, running(kind, proxy.url) as client:
        for value, (encoding, encode) in enumerate(encodings, 8):
            settings = {"s": {"default_value": value, "rules": []}}
            body = encode(json.dumps({"settings": settings}).encode())
            proxy.inject(canned_response(body, headers=f"Content-Encoding: {encoding}\r\n"), "/query")
            client.reload()
            assert get(setting) == value


@pytest.mark.slow
def test_p15_hundred_thousand_rules(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """All of them are used. Benchmarks measure how long other tasks of the event loop are delayed."""
    rules = [rule(i, i, [["user", f"u{i}"]]) for i in range(100_000)]
    service.respond_with(QUERY, query_response(*rules))
    with running(kind, service.url) as client:
        assert get(setting, "u99999") == 99_999
        assert client.client.status().rules == 100_000


@pytest.mark.slow
@pytest.mark.unmeasured
def test_p16_many_settings_and_many_tracked_values(kind: Kind, service: WatchedService) -> None:
    """There are several queries of limited length, and their responses are applied together."""
    settings = [Setting(f"a_setting_with_quite_a_long_name_{i}_{'x' * 60}", int, ["user"], i) for i in range(60)]
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.client.set_defaults(user="jim")
    subject.client.track_contexts(user=[f"user_{i}" for i in range(100_000)])
    subject.start()
    assert [setting.explain().reason for setting in settings] == [Reason.SERVER_DEFAULT] * 60
    assert all(len(str(request.query)) < 8000 for request in service.requests_to(QUERY))
    assert len(service.requests_to(QUERY)) > 1
    subject.close()


def test_p18_line_breaks_and_format_codes(
    kind: Kind, service: WatchedService, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """They are escaped in all log records and in the status."""
    evil = "fine\nERROR root: all is lost \x1b[31m \u202e"
    with running(kind, service.url) as client:
        service.intercept = lambda request: CannedResponse.of({"detail": evil}, 500)
        client.reload_expecting(UnexpectedResponseError)
        assert (client.client.status().last_error or "\n").isprintable()
    assert caplog.records
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert get(setting) == 7


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_an_invalid_header_is_not_quoted(kind: Kind, service: WatchedService, setting: Setting[int]) -> None:
    """For example a token read from a file with its line break: the error and its traceback do not contain it."""
    arguments = {"headers": httpx.Headers({"Authorization": "Bearer s3cr3t\n"})}
    subject = Subject(kind, service.url, 3600, FEATURES, http_client_args=arguments)
    if kind.raises_at_start:
        with pytest.raises(HeksherError) as raised:
            subject.start()
        error: Any = raised.value
    else:
        subject.start()
        error = subject.next_outcome()
        subject.close()
    assert "s3cr3t" not in "".join(traceback.format_exception(error))
    assert "s3cr3t" not in str(subject.client.status())
    assert get(setting) == 7


def test_a_secret_in_a_response_is_redacted(
    kind: Kind, service: WatchedService, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Some pages, of any status, contain the whole request."""
    arguments = {
        "headers": {"X-Token": "to-ken"},
        "params": {"key": "pa/ram", "v": "2"},
        "auth": ("jim", "pass-word"),
        "cookies": {"session": "coo-kie", "other": "coo-kie-2"},
    }
    basic = base64.b64encode(b"jim:pass-word").decode()
    secrets = ("to-ken", "pa/ram", "pa%2Fram", "coo-kie", "pass-word", basic)
    with running(kind, service.url, http_client_args=arguments) as client:
        for status in (200, 302, 400, 404, 502):

            def repeat(request: RecordedRequest, status: int = status) -> CannedResponse:
                cookies = request.headers["cookie"].replace(";", " and").split()
                body = f"You sent {request.headers} {request.query} {cookies} pa%2Fram"
                return CannedResponse(status, body.encode())

            service.intercept = repeat
            error = client.reload_expecting(HeksherError)
            records = [record.getMessage() for record in caplog.records if record.name.startswith("heksher")]
            shown = f"{error!r} {vars(error)} {client.client.status()} {records}"
            assert "You sent" in str(vars(error))
            assert [secret for secret in secrets if secret in shown] == []
            assert get(setting) == 7


def test_redaction_does_not_affect_parsing(kind: Kind, service: WatchedService) -> None:
    """A header value may occur in names of settings; only the deleted setting is declared again."""
    settings = [Setting(name, int, ["user"], 1) for name in ("shop_size", "shop_color")]
    with running(kind, service.url, http_client_args={"headers": {"X-Application": "shop"}}) as client:
        service.call("DELETE", "/api/v1/settings/shop_size")
        service.requests.clear()
        client.reload()
        assert len(service.requests_to(DECLARE)) == 1
        assert [setting.get(user="x") for setting in settings] == [1, 1]
