"""Hearing of reads: who asks for it hears of each, or of a share, and nobody else pays for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import pytest

from heksher_client import Setting
from heksher_client._core.settings.getter import Form, source
from heksher_client._core.settings.registry import Observation, registry
from heksher_client.testing import Rule, SyncStubHeksherClient

Heard = list[tuple[str, dict[str, str]]]


@contextmanager
def observed(*draws: float, share: float = 1.0) -> Iterator[Heard]:
    heard: Heard = []
    numbers = cycle(draws or (0.0,))

    def note(setting: Setting[Any], given: Mapping[str, str]) -> None:
        heard.append((setting.name, dict(given)))

    observation = Observation(note, share, lambda: next(numbers))
    registry.observe(observation)
    yield heard
    registry.unobserve(observation)


def test_each_read_is_heard_of_with_what_its_caller_gave() -> None:
    """Before there is a client and with one, on the slow path and on the fast one, by a `get` that was kept, too."""
    setting = Setting("s", int, ["user", "theme"], 7)
    get = setting.get
    with observed() as heard:
        assert get(user="jim", theme="dark") == 7
        with SyncStubHeksherClient() as stub:
            stub.set_defaults(theme="dark")
            stub[setting].rules = [Rule({"user": "jim"}, 8)]
            assert [get(user="jim"), get(user="jim"), setting.get(user="ann", theme="light")] == [8, 8, 7]
            assert setting.explain(user="jim").value == 8
    assert heard == [
        ("s", {"user": "jim", "theme": "dark"}),
        ("s", {"user": "jim"}),
        ("s", {"user": "jim"}),
        ("s", {"user": "ann", "theme": "light"}),
        ("s", {"user": "jim"}),
    ]


def test_a_setting_that_is_declared_later_is_heard_of() -> None:
    """Its first read already."""
    with observed() as heard:
        setting = Setting("later", int, ["user"], 7)
        setting.get(user="jim")
    assert heard == [("later", {"user": "jim"})]


def test_a_share_is_drawn_for_each_read() -> None:
    """Each observer has a share of his own."""
    setting = Setting("s", int, ["user"], 7)
    with observed(0.05, 0.5, 0.95, share=0.1) as few, observed() as all_of_them:
        for _ in range(6):
            setting.get(user="jim")
    assert (len(few), len(all_of_them)) == (2, 6)


def test_what_an_observer_raises_the_read_raises() -> None:
    """And after him, reads are as they were."""
    setting = Setting("s", int, ["user"], 7)

    def refuse(setting: Setting[Any], given: Mapping[str, str]) -> None:
        raise AssertionError(f"{setting.name} is read")

    observation = Observation(refuse, 1.0, float)
    registry.observe(observation)
    with pytest.raises(AssertionError, match="s is read"):
        setting.get(user="jim")
    registry.unobserve(observation)
    assert setting.get(user="jim") == 7


def test_while_nobody_wants_to_hear_of_reads_their_code_does_not_ask() -> None:
    """So that it costs nothing: a name for it appears in the code of those that are observed alone."""
    form = Form(("user",), sources=(str,))
    assert "_observed" not in source(form, "plan")
    setting = Setting("s", int, ["user"], 7)
    setting.get(user="jim")
    with observed():
        assert "_observed" in setting.get.__code__.co_names
    setting.get(user="jim")
    assert "_observed" not in setting.get.__code__.co_names
