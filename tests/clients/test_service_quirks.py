"""The traps of the real service, one by one, with both clients. The numbers are those of the wire contract."""

import logging

import pytest

from heksher_client import DeclarationError, HeksherSequence, Reason, Setting, UnexpectedResponseError
from tests.support.clients import FEATURES, Kind, Subject, running
from tests.support.service import DECLARE, QUERY, Answer, Asked, WatchedService


def test_trap_1_a_setting_declared_under_its_former_name_gets_the_rules_of_its_new_one(
    kind: Kind, service: WatchedService
) -> None:
    """A declaration under an old name is outdated; the setting is served under the name that it has now."""
    service.declare("foo", "int", 1, ["user"])
    service.add_rule("foo", 5, user="jim")
    service.call("PUT", "/api/v1/settings/foo/name", {"name": "bar", "version": "1.1"})
    foo = Setting("foo", int, ["user"], 1)

    with running(kind, service.url):
        assert foo.get(user="jim") == 5
        assert [asked.query["settings"] for asked in service.questions(QUERY)] == ["bar"]


def test_trap_1_a_rename_while_the_client_runs_freezes_nothing(kind: Kind, service: WatchedService) -> None:
    """A setting that is renamed under a running client goes on getting its rules, and so do all others."""
    foo = Setting("foo", int, ["user"], 1)
    other = Setting("other", int, ["user"], 1)

    with running(kind, service.url) as client:
        service.call("PUT", "/api/v1/settings/foo/name", {"name": "bar", "version": "1.1"})
        service.add_rule("bar", 5, user="jim")
        service.add_rule("other", 6, user="jim")
        client.reload()
        assert (foo.get(user="jim"), other.get(user="jim")) == (5, 6)

        service.call("PUT", "/api/v1/settings/bar/name", {"name": "baz", "version": "1.2"})
        service.add_rule("baz", 7, user="john")
        client.reload()
        assert (foo.get(user="john"), foo.get(user="jim")) == (7, 5)

        before = len(service.asked)
        client.reload()
        service.add_rule("baz", 8, user="jack")
        client.reload()
        assert foo.get(user="jack") == 8
        assert {asked.path.rpartition("/")[2] for asked in service.asked[before:]} == {"context_features", "query"}


def test_trap_1_a_rename_that_cannot_be_looked_up_costs_that_setting_until_it_can(
    kind: Kind, service: WatchedService
) -> None:
    """All other settings are updated, and the renamed one as soon as the service tells its name."""
    foo, other = Setting("foo", int, ["user"], 1), Setting("other", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.call("PUT", "/api/v1/settings/foo/name", {"name": "bar", "version": "1.1"})
        service.add_rule("bar", 5, user="jim")
        service.add_rule("other", 6, user="jim")
        for status in (404, 500):
            service.answering("GET /api/v1/settings/foo", Answer(status))
            client.reload_expecting(UnexpectedResponseError)
            assert (foo.get(user="jim"), other.get(user="jim")) == (1, 6)
        service.intercept = lambda asked: None
        client.reload()
        assert foo.get(user="jim") == 5


def test_trap_1_a_setting_declared_under_both_names_is_one(kind: Kind, service: WatchedService) -> None:
    """A program that declares a setting by its old and its new name gets the rules for both."""
    service.declare("foo", "int", 1, ["user"])
    service.add_rule("foo", 5, user="jim")
    new = Setting("bar", int, ["user"], 1, alias="foo", version="1.1")
    old = Setting("foo", int, ["user"], 1)

    with running(kind, service.url):
        assert (new.get(user="jim"), old.get(user="jim")) == (5, 5)


@pytest.mark.parametrize("feature", ["with_underscore", "Upper", "digit2"])
def test_trap_2_a_filter_that_the_service_would_misread_is_not_sent(kind: Kind, feature: str) -> None:
    """Tracking a feature with a name that the service's parser skips loses no rule, and still leaves out the others."""
    setting = Setting("s", int, ["plain", feature], 0)
    with (
        WatchedService(("plain", feature)) as service,
        running(kind, service.url, context_features=("plain", feature)) as client,
    ):
        service.add_rule("s", 1, **{feature: "a"})
        service.add_rule("s", 2, **{feature: "b"})
        service.add_rule("s", 3, plain="a")
        client.reload()
        assert (setting.get(**{feature: "b"}), setting.get(plain="a")) == (2, 3)
        client.client.track_contexts(**{feature: "a"})
        client.reload()

        assert service.questions(QUERY)[-1].query["context_filters"] == "*"
        assert setting.get(**{feature: "a"}) == 1
        assert setting.get(**{feature: "b"}) == 0
        assert setting.get(plain="a") == 0


def test_trap_2_without_tracking_all_rules_come_and_an_empty_filter_brings_none(
    kind: Kind, service: WatchedService
) -> None:
    """Nothing tracked means everything is; a feature tracked without a value means that no rule is of interest."""
    setting = Setting("s", int, ["user"], 0)
    with running(kind, service.url) as client:
        service.add_rule("s", 1, user="jim")
        client.reload()
        assert service.questions(QUERY)[-1].query["context_filters"] == "*"
        assert setting.get(user="jim") == 1

        client.client.track_contexts(user=[])
        client.reload()
        assert service.questions(QUERY)[-1].query["context_filters"] == ""
        assert setting.get(user="jim") == 0


def test_trap_2_the_filter_is_applied_here_too(kind: Kind, service: WatchedService) -> None:
    """A service that ignores the filter changes nothing: only rules on tracked values are used."""
    service.declare("s", "int", 0, ["environment", "user"])
    rules = [
        {"value": 1, "context_features": [["user", "jim"]], "rule_id": 1},
        {"value": 2, "context_features": [["user", "john"]], "rule_id": 2},
        {"value": 3, "context_features": [["environment", "prod"]], "rule_id": 3},
    ]
    service.answering(QUERY, Answer.of({"settings": {"s": {"default_value": 0, "rules": rules}}}))
    setting = Setting("s", int, ["environment", "user"], 0)

    with running(kind, service.url) as client:
        client.client.track_contexts(user="jim")
        client.reload()
        assert service.questions(QUERY)[-1].query["context_filters"] == "user:(jim)"
        assert setting.get(user="jim") == 1
        assert setting.get(user="john") == 0
        assert setting.get(environment="prod") == 0


def test_trap_3_a_deleted_setting_is_declared_again_and_the_others_are_updated(
    kind: Kind, service: WatchedService
) -> None:
    """One name that the service has no more makes it refuse the whole query; all are up to date nevertheless."""
    gone = Setting("gone", int, ["user"], 1)
    stays = Setting("stays", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.call("DELETE", "/api/v1/settings/gone")
        service.add_rule("stays", 2, user="jim")
        client.reload()

        assert stays.get(user="jim") == 2
        service.add_rule("gone", 3, user="jim")
        client.reload()
        assert gone.get(user="jim") == 3


def test_trap_3_the_words_of_a_refusal_are_no_names(kind: Kind, service: WatchedService) -> None:
    """Only what the service quotes is missing, though settings may be called as any word of its sentence."""
    gone, other = Setting("gone", int, ["user"], 1), Setting("not", int, ["user"], 1)
    with running(kind, service.url) as client:
        before = len(service.questions(DECLARE))
        service.call("DELETE", "/api/v1/settings/gone")
        client.reload()
        assert [asked.json["name"] for asked in service.questions(DECLARE)[before:]] == ["gone"]
        assert (gone.get(), other.get()) == (1, 1)


def test_trap_3_a_refusal_that_names_nothing_we_know_has_all_settings_declared_again(
    kind: Kind, service: WatchedService
) -> None:
    """A 404 whose text names no setting of ours may mean any of them."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        service.answering(QUERY, Answer(404, b"there is something that I do not have"), times=1)
        client.reload()

        assert len(service.questions(DECLARE)) == 2
        assert setting.get(user="jim") == 2


def test_trap_3_a_setting_that_the_service_denies_even_when_declared_is_left_alone(
    kind: Kind, service: WatchedService
) -> None:
    """A setting that stays missing is an error of its own, and the others are updated."""
    denied = Setting("denied", int, ["user"], 1)
    stays = Setting("stays", int, ["user"], 1)
    with running(kind, service.url) as client:

        def deny(asked: Asked) -> Answer | None:
            missing = "denied" in asked.query["settings"].split(",")
            return Answer(404, b"the following are not setting names: ['denied']") if missing else None

        service.answering(QUERY, deny)
        service.add_rule("stays", 2, user="jim")
        error = client.reload_expecting(DeclarationError)

        assert "denied" in str(error)
        assert (denied.get(), stays.get(user="jim")) == (1, 2)


def test_trap_4_a_long_question_is_asked_in_parts_that_any_server_takes(kind: Kind, service: WatchedService) -> None:
    """Hundreds of settings are asked for in several queries, each of a length that common servers and proxies take."""
    settings = [Setting(f"a_setting_with_quite_a_long_name_{i}", int, ["user"], i) for i in range(300)]
    with running(kind, service.url) as client:
        service.add_rule(settings[0].name, -1, user="jim")
        service.add_rule(settings[299].name, -2, user="jim")
        client.reload()

        parts = [asked.query["settings"].split(",") for asked in service.questions(QUERY)]
        assert len(parts) > 4
        assert max(len(",".join(part)) for part in parts) < 4000
        assert sorted(name for part in parts[: len(parts) // 2] for name in part) == sorted(s.name for s in settings)
        assert (settings[0].get(user="jim"), settings[299].get(user="jim")) == (-1, -2)


def test_trap_5_an_etag_is_sent_back_as_it_came_and_none_before_one_came(kind: Kind, service: WatchedService) -> None:
    """The first query has no If-None-Match, not even an empty one; the next has the ETag of the last answer."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        client.reload()
        service.add_rule("s", 2, user="jim")
        client.reload()
        client.reload()

        sent = [asked.headers.get("if-none-match") for asked in service.questions(QUERY)]
        assert sent[0] is None
        assert sent[1] is not None
        assert sent[1] == sent[2] != sent[3]
        assert setting.get(user="jim") == 2


def test_trap_6_values_that_drifted_are_converted_or_left_out_one_by_one(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """What a newer declaration allows and this one does not costs that rule or element, and all others are used."""
    service.declare("s", "Sequence<int>", [1], ["user", "theme"])
    service.declare("n", "int", 1, ["user"])
    rules = [
        {"value": [1, "x", 3.0], "context_features": [["user", "a"]], "rule_id": 1},
        {"value": "abc", "context_features": [["user", "b"]], "rule_id": 2},
        {"value": [5], "context_features": [["user", "c"], ["planet", "mars"]], "rule_id": 3},
        {"value": [6], "context_features": [["user", "d"]], "rule_id": 4},
    ]
    answer = {
        "s": {"default_value": "no list", "rules": rules},
        "n": {"default_value": 7.0, "rules": []},
    }
    service.answering(QUERY, Answer.of({"settings": answer}))
    s = Setting("s", type=HeksherSequence(int), configurable_features=["user", "theme"], default_value=[1])
    n = Setting("n", int, ["user"], 1)

    with caplog.at_level(logging.INFO, "heksher_client"), running(kind, service.url):
        values = [s.get(user=user) for user in "abcd"]

    assert values == [(1, 3), (1,), (1,), (6,)]
    assert n.get() == 7
    assert type(n.get()) is int
    logged = {record.message.partition(" the first")[0]: record for record in caplog.records}
    assert logged["setting s: 2 rules were rejected,"].levelname == "WARNING"
    assert [rule_id for rule_id, _ in vars(logged["setting s: 2 rules were rejected,"])["rejected_rules"]] == [2, 3]
    assert logged["setting s: 1 rules were coerced,"].levelname == "INFO"
    assert any("default value was rejected" in message for message in logged)


@pytest.mark.parametrize(
    "body",
    [
        b'{"detail": "text"}',
        b'{"detail": [{"loc": ["body"], "msg": "bad", "type": "value_error"}]}',
        b"plain text",
        b"",
    ],
)
def test_trap_7_an_error_is_understood_in_all_its_shapes(kind: Kind, service: WatchedService, body: bytes) -> None:
    """Whatever shape a refusal has, it is a declaration error for that setting, with the service's words."""
    refused = Setting("refused", int, ["user"], 1)
    good = Setting("good", int, ["user"], 1)
    service.declare("good", "int", 1, ["user"])
    service.add_rule("good", 3, user="jim")
    service.answering(DECLARE, lambda asked: Answer(422, body) if asked.json["name"] == "refused" else None)

    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.client.set_defaults(user="jim")
    if kind.raises_at_start:
        with pytest.raises(DeclarationError) as raised:
            subject.start()
        error: Exception | None = raised.value
    else:
        subject.start()
        error = subject.next_outcome()
    subject.close()

    assert isinstance(error, DeclarationError)
    assert error.setting == "refused"
    assert (good.get(), refused.get()) == (3, 1)


def test_trap_8_more_rules_than_the_service_can_answer_at_once_are_asked_for_in_parts(
    kind: Kind, service: WatchedService
) -> None:
    """A 500 for a large question leads to smaller ones; the size that worked is remembered."""
    settings = [Setting(f"s{i:02}", int, ["user"], i) for i in range(20)]

    def limited(asked: Asked) -> Answer | None:
        return Answer(500, b"Internal Server Error") if asked.query["settings"].count(",") >= 6 else None

    service.answering(QUERY, limited)
    with running(kind, service.url) as client:
        assert [setting.explain(user="jim").reason for setting in settings] == [Reason.SERVER_DEFAULT] * 20
        first = len(service.questions(QUERY))
        assert first <= 8

        service.add_rule("s19", -1, user="jim")
        client.reload()
        assert settings[19].get(user="jim") == -1
        later = service.questions(QUERY)[first:]
        assert max(asked.query["settings"].count(",") for asked in later) < 6
        assert len(later) == 4


def test_trap_8_one_setting_that_is_too_much_by_itself_costs_that_setting(kind: Kind, service: WatchedService) -> None:
    """A setting that the service cannot answer for at all is an error, and all others are loaded."""
    settings = [Setting(f"s{i}", int, ["user"], i) for i in range(9)]

    def limited(asked: Asked) -> Answer | None:
        return Answer(500) if "s0" in asked.query["settings"].split(",") else None

    with running(kind, service.url) as client:
        for setting in settings:
            service.add_rule(setting.name, -1, user="jim")
        service.answering(QUERY, limited)
        error = client.reload_expecting(UnexpectedResponseError)

        assert isinstance(error, UnexpectedResponseError)
        assert error.status == 500
        assert [setting.get(user="jim") for setting in settings] == [0, *[-1] * 8]


def test_trap_8_a_service_that_answers_nothing_is_not_asked_for_every_setting(
    kind: Kind, service: WatchedService
) -> None:
    """A 500 whatever is asked is a service in trouble: the refresh gives up after a few questions."""
    settings = [Setting(f"s{i}", int, ["user"], i) for i in range(64)]
    with running(kind, service.url) as client:
        service.answering(QUERY, Answer(500))
        before = len(service.questions(QUERY))
        client.reload_expecting(UnexpectedResponseError)

        assert len(service.questions(QUERY)) - before <= 16
        assert settings[5].get() == 5


def test_trap_9_a_500_to_a_first_declaration_is_tried_again_at_once(kind: Kind, service: WatchedService) -> None:
    """Of several processes that declare a new setting at the same moment, one that loses the race still starts."""
    setting = Setting("s", int, ["user"], 1)
    service.answering(DECLARE, Answer(500, b"Internal Server Error"), times=1)

    with running(kind, service.url):
        assert len(service.questions(DECLARE)) == 2
        assert setting.explain().reason is Reason.SERVER_DEFAULT
