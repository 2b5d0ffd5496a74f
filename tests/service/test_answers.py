"""Answers to queries: when they are others, and that nobody gets an old one."""

from typing import Any

import httpx
import pytest

from heksher_client.service.query_cache import Answers, Part, Question, State

Operation = tuple[str, str, Any]

CHANGES: list[Operation] = [
    ("POST", "rules", {"setting": "s", "feature_values": {"user": "ann"}, "value": 9}),
    ("PUT", "rules/1/value", {"value": 10}),
    ("PUT", "settings/s/name", {"name": "t", "version": "1.1"}),
    ("PATCH", "context_features/user/index", {"to_before": "environment"}),
    ("DELETE", "rules/1", None),
    ("POST", "rules/2/metadata", {"metadata": {"a": 1}}),
]
ELSEWHERE: list[Operation] = [
    ("POST", "settings/declare", {"name": "o", "type": "int", "default_value": 1, "configurable_features": ["user"]}),
    ("POST", "rules", {"setting": "o", "feature_values": {"user": "ann"}, "value": 9}),
    ("DELETE", "settings/o", None),
]


def ask(http: httpx.Client, settings: str | None, etag: str = "") -> httpx.Response:
    params = {"include_metadata": "true"} | ({} if settings is None else {"settings": settings})
    return http.get("/query", params=params, headers={"if-none-match": etag})


@pytest.mark.parametrize("settings", ["s", None])
def test_each_change_changes_the_etag_and_the_answer_of_every_instance(
    instances: list[httpx.Client], settings: str | None
) -> None:
    """Though each has answers that it gave before."""
    one, other = instances
    former = ask(other, settings)
    for method, path, body in CHANGES:
        assert ask(other, settings, former.headers["etag"]).status_code == 304
        assert one.request(method, f"/{path}", json=body).is_success
        answers = [ask(http, settings, former.headers["etag"]) for http in instances]
        assert answers[0].text == answers[1].text != former.text
        assert answers[0].headers["etag"] == answers[1].headers["etag"] != former.headers["etag"]
        former = answers[0]


def test_a_change_of_another_setting_changes_nothing(instances: list[httpx.Client]) -> None:
    """Each question depends on the settings that it names."""
    one, other = instances
    etag = ask(other, "s").headers["etag"]
    for method, path, body in ELSEWHERE:
        assert one.request(method, f"/{path}", json=body).is_success
        assert ask(other, "s", etag).status_code == 304


def test_a_setting_that_is_made_again_has_another_etag(instances: list[httpx.Client]) -> None:
    """Though all that is said of it is the same."""
    one, other = instances
    etag = ask(other, "s").headers["etag"]
    one.delete("/settings/s")
    assert ask(other, "s", etag).status_code == 404
    one.post(
        "/settings/declare",
        json={"name": "s", "type": "int", "default_value": 7, "configurable_features": ["environment", "user"]},
    )
    assert ask(other, "s", etag).status_code == 200


def test_old_answers_make_room_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones that were used last stay."""
    monkeypatch.setattr("heksher_client.service.query_cache._MOST_BYTES", 25)
    monkeypatch.setattr("heksher_client.service.query_cache._MOST_QUESTIONS", 2)
    answers = Answers()
    parts = [Part(tag, "", "*", include_metadata=False) for tag in "abc"]
    for part in parts[:2]:
        answers.keep(part, b"0123456789")
    assert answers.part(parts[0]) is not None
    answers.keep(parts[2], b"0123456789")
    assert [answers.part(part) is None for part in parts] == [False, True, False]
    answers.keep(parts[2], b"01234567890123456789")
    assert [answers.part(part) is None for part in parts] == [True, True, False]

    questions = [Question(name, "*", include_metadata=False) for name in "abc"]
    now = State(1, "tag")
    for question in questions:
        answers.remember(question, now, "etag")
    assert [answers.etag(question, now) for question in questions] == [None, "etag", "etag"]
    assert answers.etag(questions[2], State(2, "tag")) is None
