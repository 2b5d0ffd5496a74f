"""Settings that the service has never seen, declared with a later version or with an alias: it ends as by history."""

import logging
from typing import Any
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heksher_client import DeclarationError, HeksherSequence, Reason, Setting, State, UnexpectedResponseError
from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.declarations import Attempt, _declare
from heksher_client._core.refresh.effects import Response
from heksher_client._core.settings.declaration import Declaration
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import entry_of
from tests.support.driven import DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.last_known_good import MemoryFile
from tests.support.log_records import summaries
from tests.support.service import DECLARE, QUERY, CannedResponse, RecordedRequest


def declared(service: FakeService) -> list[tuple[str, str, str | None]]:
    """Return name, version and alias of all declarations so far, in order."""
    bodies = [request.json for request in service.requests_to(DECLARE)]
    return [(body["name"], body["version"], body.get("alias")) for body in bodies]


def in_service(service: FakeService) -> list[dict[str, Any]]:
    return [service.settings[name].as_json(service.features) for name in sorted(service.settings)]


def history(*all_settings: Setting[Any]) -> list[dict[str, Any]]:
    """Return the settings of a service to which these were declared one after the other."""
    service = FakeService()
    for setting in all_settings:
        reply = service.respond(protocol.declare(entry_of(setting).declaration.body))
        assert protocol.parse_declaration(reply, setting.name).outcome in ("created", "upgraded")
    return in_service(service)


@pytest.mark.parametrize("version", ["1.1", "2.0", "10.25"])
def test_d8_a_new_setting_is_declared_as_the_first_version_first(
    service: FakeService, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    """Then with its own version. After that it is like any other setting."""
    setting = Setting("s", int, ["user"], 5, {"owner": "jane"}, version=version)
    caplog.set_level(logging.INFO, "heksher_client")
    with driven(service, raises_at_start=True) as client:
        assert declared(service) == [("s", version, None), ("s", "1.0", None), ("s", version, None)]
        assert in_service(service) == [
            {
                "name": "s",
                "configurable_features": ["user"],
                "type": "int",
                "default_value": 5,
                "metadata": {"owner": "jane"},
                "aliases": [],
                "version": version,
            }
        ]
        assert client.status().settings["s"].declaration == "created"
        assert client.status().state is State.FRESH
        service.add_rule("s", 6, user="jim")
        client.reload()
        assert setting.get(user="jim") == 6
        assert len(service.requests_to(DECLARE)) == 3
    text = "setting s is new in the service: it was declared as s with version 1.0 first"
    extras = {"setting": "s", "first_name": "s", "declared_version": version}
    assert summaries(caplog.records) == [("INFO", text, extras)]


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_d8_a_new_setting_with_an_alias_gets_it_as_its_former_name(
    service: FakeService, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    """As if it had been renamed. So programs of both ages read it."""
    new = Setting("new", float, ["user"], 5.0, alias="old", version=version)
    caplog.set_level(logging.INFO, "heksher_client")
    with driven(service, raises_at_start=True) as client:
        assert declared(service) == [
            ("new", version, "old"),
            ("new", version, None),
            ("old", "1.0", None),
            ("new", version, "old"),
        ]
        former = Setting("old", float, ["user"], 5.0)
        assert in_service(service) == history(former, new)
        client.reload()
        service.add_rule("new", 6.0, user="jim")
        client.reload()
        assert (former.get(user="jim"), new.get(user="jim")) == (6.0, 6.0)
        assert client.status().settings["old"].declaration == "outdated"
        assert client.status().settings["new"].declaration == "created"
    text = "setting new is new in the service: it was declared as old with version 1.0 first"
    assert summaries(caplog.records)[0][:2] == ("INFO", text)


def test_d8_an_unknown_alias_of_a_first_version_is_left_out(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """A rename would have had a higher version."""
    new = Setting("new", int, ["user"], 5, alias="old")
    caplog.set_level(logging.INFO, "heksher_client")
    with driven(service, raises_at_start=True) as client:
        assert declared(service) == [("new", "1.0", "old"), ("new", "1.0", None)]
        assert client.status().settings["new"].declaration == "created"
        assert [(one["name"], one["version"], one["aliases"]) for one in in_service(service)] == [("new", "1.0", [])]
        assert new.explain(user="jim").reason is Reason.SERVER_DEFAULT
    text = "setting new was declared without its alias old, which the service does not have"
    assert summaries(caplog.records) == [("INFO", text, {"setting": "new", "alias": "old"})]


@pytest.mark.parametrize("stored", ["1.0", "1.5", "2.0", "3.0"])
def test_d8_an_unknown_alias_of_a_setting_that_the_service_has_is_left_out(service: FakeService, stored: str) -> None:
    """No setting with the name of the alias is created. The outcome is that of the declaration without it."""
    service.declare("new", "int", 5, ["user"])
    if stored != "1.0":
        service.declare("new", "int", 5, ["user"], version=stored)
    _new = Setting("new", int, ["user"], 5, alias="old", version="2.0")
    with driven(service, raises_at_start=True) as client:
        assert declared(service) == [("new", "2.0", "old"), ("new", "2.0", None)]
        assert [(one["name"], one["version"]) for one in in_service(service)] == [("new", max(stored, "2.0"))]
        outcome = {"2.0": "uptodate", "3.0": "outdated"}.get(stored, "upgraded")
        assert client.status().settings["new"].declaration == outcome


@pytest.mark.parametrize(("old", "new"), [("old", "new"), ("a", "b"), ("b", "a")])
@pytest.mark.parametrize("version", ["1.0", "1.2"])
def test_d8_a_setting_is_declared_before_the_one_that_names_it_as_its_alias(
    service: FakeService, caplog: pytest.LogCaptureFixture, old: str, new: str, version: str
) -> None:
    """Independently of their names. One query for the new name has the rules of both."""
    latest = Setting(new, int, ["user"], 5, alias=old, version="1.3")
    former = Setting(old, int, ["user"], 4, version=version)
    with driven(service, raises_at_start=True) as client:
        steps = (
            [(old, "1.0", None)] if version == "1.0" else [(old, "1.2", None), (old, "1.0", None), (old, "1.2", None)]
        )
        assert declared(service) == [*steps, (new, "1.3", old)]
        assert in_service(service) == history(Setting(old, int, ["user"], 4), latest)
        assert [request.query["settings"] for request in service.requests_to(QUERY)] == [new]
        assert [str(request) for request in service.requests if request.method == "GET"][2:] == []
        service.add_rule(new, 6, user="jim")
        client.reload()
        assert (latest.get(user="jim"), former.get(user="jim")) == (6, 6)
    assert caplog.records == []


def test_d8_aliases_may_form_a_chain(service: FakeService) -> None:
    """Each rename is that of the setting before it."""
    c = Setting("c", int, ["user"], 5, alias="a", version="1.2")
    a = Setting("a", int, ["user"], 5, alias="b", version="1.1")
    b = Setting("b", int, ["user"], 5)
    with driven(service, raises_at_start=True):
        assert in_service(service) == history(b, a, c)
        assert len(service.requests_to(DECLARE)) == 3
        assert len(service.requests_to(QUERY)) == 1


def test_d8_aliases_may_form_a_circle(service: FakeService) -> None:
    """It is a mistake, but the program starts."""
    both = [Setting("a", int, ["user"], 5, alias="b", version="1.2"), Setting("b", int, ["user"], 5, alias="a")]
    with driven(service, raises_at_start=True):
        assert [setting.explain(user="jim").reason for setting in both] == [Reason.SERVER_DEFAULT] * 2


def test_d8_many_new_settings_take_three_rounds(service: FakeService) -> None:
    """The steps of all settings are sent together."""
    many = [Setting(f"s{i}", int, ["user"], 5, version="2.0") for i in range(50)]
    rounds: list[int] = []
    client = DrivenClient(service, raises_at_start=True)
    client.set_defaults(user="jim")
    client.session.start()
    flow = client.session.refresh()
    result: Any = None
    while True:
        try:
            effect = flow.send(result)
        except StopIteration:
            break
        rounds.append(len(getattr(effect, "requests", ())))
        result = client._performers[type(effect)](effect)
    assert [count for count in rounds if count > 10] == [50, 50, 50]
    assert len(in_service(service)) == len(many)
    client.close()


@pytest.mark.parametrize("former", ["other", ["other"], None])
def test_d8_only_the_declared_alias_can_be_a_former_name(service: FakeService, former: Any) -> None:
    """A faulty response cannot give the rules of one setting to another one."""
    other, new = Setting("other", int, ["user"], 1), Setting("s", int, ["user"], 5, version="1.1")
    service.declare("s", "int", 5, ["user"])
    difference = {"level": "minor", "attribute": "name", "latest_value": former}
    upgraded = CannedResponse.of({"outcome": "upgraded", "previous_version": "1.0", "differences": [difference]})
    service.respond_with(DECLARE, lambda request: upgraded if request.json["name"] == "s" else None)
    with driven(service) as client:
        service.add_rule("s", 6, user="jim")
        client.reload()
        assert (other.get(user="jim"), new.get(user="jim")) == (1, 6)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, b"no"),
        (422, b"newly created settings must have version 1.0"),
        (404, b"newly created settings must have version 1.0"),
        (404, b'{"detail": "alias other does not exist"}'),
        (404, b"{'planet'} are not acceptable context features"),
        (400, b'{"detail": "alias old does not exist"}'),
    ],
)
def test_d8_another_refusal_is_not_followed_by_more_declarations(
    service: FakeService, status: int, text: bytes
) -> None:
    """Neither at once nor with a retry."""
    _setting = Setting("s", int, ["user"], 5, alias="old", version="2.0")
    service.respond_with(DECLARE, CannedResponse(status, text))
    with driven(service) as client:
        assert len(service.requests_to(DECLARE)) == 1
        client.reload_expecting(DeclarationError)
        assert len(service.requests_to(DECLARE)) == 2


def test_d8_a_version_below_the_first_one_is_refused(service: FakeService) -> None:
    """The service would never have had it, and the version in the service would be higher than the declared one."""
    _setting, _renamed = (
        Setting(name, int, ["user"], 5, alias=alias, version="0.9") for name, alias in [("s", None), ("t", "o")]
    )
    with driven(service) as client:
        assert "must have version 1.0" in str(client.reload_expecting(DeclarationError))
        assert in_service(service) == []


@pytest.mark.parametrize("alias", [None, "old"])
def test_d8_the_error_of_a_new_setting_has_both_reasons(service: FakeService, alias: str | None) -> None:
    """The first one, and why the service refused it as a new setting."""
    _setting = Setting("s", int, ["planet"], 5, alias=alias, version="2.0")
    client = DrivenClient(service, raises_at_start=True)
    with pytest.raises(DeclarationError) as raised:
        client.start()
    client.close()
    first = "newly created settings must have version 1.0" if alias is None else "alias old does not exist"
    assert str(raised.value) == (
        f"the service refused the declaration of setting s: '{first}'; then, as a new setting: "
        "\"{'planet'} are not acceptable context features\""
    )
    assert (raised.value.setting, raised.value.status) == ("s", 400 if alias is None else 404)
    assert raised.value.method == "POST"
    assert in_service(service) == []


def test_d8_the_second_reason_may_contain_a_colon(service: FakeService) -> None:
    """It is quoted as a whole."""
    setting = Setting("s", int, ["user"], 5, version="2.0")
    attempt = _declare(entry_of(setting).declaration)
    attempt.send(service.respond(protocol.declare(next(attempt))))
    with pytest.raises(DeclarationError, match=r": 'default_value: too large: 5'$"):
        attempt.send(Response(422, b"default_value: too large: 5"))


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_d8_an_error_has_the_declaration_that_was_sent(service: FakeService, step: int) -> None:
    """As it was sent in this step: it differs from that of the program in the second and the third one."""
    setting = Setting("new", int, ["user"], 5, alias="old", version="2.0")
    attempt = _declare(entry_of(setting).declaration)
    sent = next(attempt)
    for _ in range(step - 1):
        sent = attempt.send(service.respond(protocol.declare(sent)))
    with pytest.raises(UnexpectedResponseError) as raised:
        attempt.send(Response(502))
    assert raised.value.request_content == sent


@pytest.mark.parametrize("step", [1, 2, 3, 4])
@pytest.mark.parametrize("status", [422, 502])
def test_d8_a_failure_in_the_middle_is_repaired_by_the_next_attempt(
    service: FakeService, step: int, status: int
) -> None:
    """Whichever step it was, and whether the program was restarted in between."""
    new = Setting("new", int, ["user"], 5, alias="old", version="2.0")
    other = Setting("other", int, ["user"], 5)
    count = 0

    def fail(request: RecordedRequest) -> CannedResponse | None:
        nonlocal count
        count += request.json["name"] != "other"
        return CannedResponse(status, b"no") if count == step and request.json["name"] != "other" else None

    service.respond_with(DECLARE, fail)
    with driven(service) as client:
        assert client.status().settings["new"].problem is not None
        client.advance(30)
        assert client.status().settings["new"].problem is None
        assert client.status().state is State.FRESH
        expected = history(Setting("old", int, ["user"], 5), new)
        assert [one for one in in_service(service) if one["name"] != "other"] == expected
        assert other.explain(user="jim").reason is Reason.SERVER_DEFAULT


def test_d8_a_new_setting_does_not_get_restored_rules(service: FakeService) -> None:
    """The service has none, although the last outcome was an upgrade."""
    file = MemoryFile()
    s = Setting("s", int, ["user"], 5)
    with driven(service, last_known_good=file) as client:
        service.add_rule("s", 6, user="jim")
        client.reload()
    registry._entries.pop(ref(entry_of(s)))  # as in another process
    service.empty()
    service.respond_with(QUERY, CannedResponse(503))
    newer = Setting("s", int, ["user"], 7, version="1.1")
    with driven(service, last_known_good=file) as client:
        assert client.status().is_last_known_good
        assert newer.get(user="jim") == 7


@pytest.mark.parametrize(("is_first", "outcome"), [(True, "created"), (False, "upgraded")])
def test_d8_only_the_process_that_declares_the_first_version_creates_a_setting(
    service: FakeService, is_first: bool, outcome: str
) -> None:
    """Another process may declare it after the service has refused the later version, and before the first one."""
    setting = Setting("s", int, ["user"], 5, version="2.0")
    attempt = _declare(entry_of(setting).declaration)
    body = attempt.send(service.respond(protocol.declare(next(attempt))))
    if not is_first:
        service.respond(protocol.declare(body))
    body = attempt.send(service.respond(protocol.declare(body)))
    with pytest.raises(StopIteration) as end:
        attempt.send(service.respond(protocol.declare(body)))
    assert end.value.value.outcome == outcome


def test_d8_a_service_that_is_emptied_while_the_program_runs_gets_the_settings_again(service: FakeService) -> None:
    """With their versions and aliases."""
    new, s = Setting("new", int, ["user"], 5, alias="old", version="1.1"), Setting("s", int, ["user"], 5, version="2.0")
    with driven(service) as client:
        before = in_service(service)
        service.empty()
        client.reload()
        assert in_service(service) == before
        assert client.status().state is State.FRESH
        assert (new.get(user="jim"), s.get(user="jim")) == (5, 5)


# -- several processes -------------------------------------------------------------------------------------------------

RELEASES: list[Setting[Any]] = [
    Setting("old", int, ["user"], 1),
    Setting("new", int, ["user"], 2, {"owner": "jane"}, alias="old", version="1.1"),
    Setting("new", str, ["user", "theme"], "three", alias="old", version="2.0"),
]
"""The declarations of one setting, by three releases of a program."""
UNRENAMED: list[Setting[Any]] = [
    Setting("s", int, ["user"], 1),
    Setting("s", int, ["user"], 2, version="1.1"),
    Setting("s", str, ["user", "theme"], "three", {"owner": "jane"}, version="2.0"),
]
DECLARATIONS: dict[str, list[Declaration[Any]]] = {
    "renamed": [entry_of(setting).declaration for setting in RELEASES],
    "unrenamed": [entry_of(setting).declaration for setting in UNRENAMED],
}


class Process:
    """A process of one release, which declares the setting step by step."""

    def __init__(self, service: FakeService, declaration: Declaration[Any]) -> None:
        self._service, self._attempt = service, self._start(declaration)
        self._body: bytes | None = next(self._attempt)

    @staticmethod
    def _start(declaration: Declaration[Any]) -> Attempt:
        return _declare(declaration)

    def step(self) -> None:
        """Send one declaration."""
        if self._body is None:
            return
        try:
            self._body = self._attempt.send(self._service.respond(protocol.declare(self._body)))
        except StopIteration:
            self._body = None

    def finish(self) -> None:
        while self._body is not None:
            self.step()


@pytest.mark.slow
@pytest.mark.parametrize("name", DECLARATIONS)
def test_d8_any_interleaving_of_processes_and_releases_ends_as_by_history(name: str) -> None:
    """Some of them end between two steps. The newest release is started last, or again."""
    releases = DECLARATIONS[name]
    reference = FakeService()
    for declaration in releases:
        reference.respond(protocol.declare(declaration.body))
    newest = reference.settings[releases[-1].name]

    @settings(max_examples=300)
    @given(st.lists(st.sampled_from(range(3)), min_size=1, max_size=5), st.lists(st.integers(0, 4), max_size=20))
    def check(started: list[int], order: list[int]) -> None:
        service = FakeService()
        processes = [Process(service, releases[i]) for i in started]
        version = (0, 0)
        for i in order:
            processes[i % len(processes)].step()
            assert len(service.settings) <= 1
            for setting in service.settings.values():
                assert setting.declaration.version_number >= version
                version = setting.declaration.version_number
        Process(service, releases[-1]).finish()
        for process in processes:
            process.finish()
        assert len(service.settings) == 1
        (setting,) = service.settings.values()
        assert (setting.declaration, setting.aliases) == (newest.declaration, newest.aliases)

    check()


# -- an older release, and settings that cannot be declared ------------------------------------------------------------


def test_d8_a_default_of_a_newer_release_that_cannot_be_used_is_logged_once(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """Although both responses have it, to the declaration and to the query. The older release uses its own default."""
    service.declare("s", "int", 1, ["user"])
    service.declare("s", "str", "x", ["user"], version="2.0")
    service.declare("t", "int", 1, ["user"])
    service.declare("t", "Sequence<int>", [1, "x"], ["user"], version="2.0")
    setting = Setting("s", int, ["user"], 1)
    coerced = Setting("t", HeksherSequence(int), ["user"], [1])
    with driven(service) as client:
        client.refresh(2)
        assert (setting.get(user="jim"), list(coerced.get(user="jim"))) == (1, [1])
    messages = [message for _, message, _ in summaries(caplog.records) if "default value" in message]
    assert [message.partition(" was ")[0] for message in messages] == [
        f"setting {name}: the service's default value" for name in "st"
    ]


def test_d8_a_setting_that_a_new_service_does_not_accept_is_logged_once(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """It was never in the service, so it is not lost, and is declared at its own time only."""
    first = Setting("x", int, ["user"], 1, alias="a", version="1.1")
    _second = Setting("y", int, ["user"], 1, alias="a", version="1.2")

    def conflict(request: RecordedRequest) -> CannedResponse | None:
        is_second = str(request) == DECLARE and request.json["name"] == "y"
        return CannedResponse.of({"detail": "alias a is an alias of unrelated setting x"}, 409) if is_second else None

    service.intercept = conflict
    with driven(service) as client:
        assert len([request for request in service.requests_to(DECLARE) if request.json["name"] == "y"]) == 1
        assert len(service.requests_to(QUERY)) == 2
        assert first.explain(user="jim").reason is Reason.SERVER_DEFAULT
        problem = "the service denies setting y: 'alias a is an alias of unrelated setting x'"
        assert client.status().settings["y"].problem == problem
        assert [(level, message) for level, message, _ in summaries(caplog.records)] == [
            (
                "ERROR",
                "the declaration of setting y conflicts with the service's (conflict): "
                "'alias a is an alias of unrelated setting x'",
            ),
            ("ERROR", f"refresh failed: {problem}"),
        ]
        client.advance(30)
        assert len([request for request in service.requests_to(DECLARE) if request.json["name"] == "y"]) == 2
        service.intercept = lambda request: None
        service.declare("y", "int", 1, ["user"])
        client.advance(60)
        assert client.status().settings["y"].problem is None
