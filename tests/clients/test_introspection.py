"""What a client shows of itself: its options, and its `repr`."""

import copy
import dataclasses
import pickle
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from heksher_client import ClientOptions, EffectiveOptions, Setting, ThreadHeksherClient, UnexpectedResponseError
from heksher_client.credentials import StaticToken
from heksher_client.testing import SyncStubHeksherClient
from tests.support.clients import FEATURES, Kind
from tests.support.fake_service import FakeService
from tests.support.http import http_client
from tests.support.in_memory import URL, running_in_memory

SECRETS: dict[str, Any] = {
    "headers": {"X-Key": "hidden-header", "X-Team": "hidden-team"},
    "cookies": {"session": "hidden-cookie"},
    "params": {"p": "hidden-parameter"},
}


class Maintenance(UnexpectedResponseError):  # noqa: N818
    """An error of the program."""


def test_a_client_shows_the_options_that_it_uses(kind: Kind) -> None:
    """An option that the call does not have is the default, which is that of `EffectiveOptions`."""
    options = kind.make("http://jim:hidden-password@host/path/", 60).options
    timeout = {"connect": 5.0, "read": None, "write": None, "pool": None}
    expected = EffectiveOptions("http://host/path/", 60.0, None, auth="basic", timeout=timeout)
    assert options == expected
    given: ClientOptions = {
        "user_agent": "shop/1",
        "token": "hidden-token",
        "timeout": 3,
        "verify": False,
        "error_classes": {503: Maintenance},
        "rate_limit": 20,
        "rate_limit_interval": 2,
        "start_timeout": 5,
        "request_timeout": 4,
        "max_response_bytes": 1000,
        "jitter": 0,
        "max_backoff": 10,
        "stale_after": 20,
        "last_known_good": "settings.json",
        "max_age": 30,
        "follow_changes": False,
        "http_client_args": {"proxy": "http://jim:hidden-password@proxy", "cert": None},
    }
    client = kind.make("http://host", 0.5, FEATURES, **given, **SECRETS)
    shown = client.options
    assert shown == EffectiveOptions(
        service_url="http://host",
        update_interval=0.5,
        context_features=FEATURES,
        headers={"X-Key": "***", "X-Team": "***"},
        cookies={"session": "***"},
        params={"p": "***"},
        user_agent="shop/1",
        auth="<StaticToken>",
        timeout=dict.fromkeys(("connect", "read", "write", "pool"), 3.0),
        verify=False,
        http_client=None,
        http_client_args=("cert", "proxy"),
        error_classes=((503, Maintenance),),
        rate_limit=20,
        rate_limit_interval=2.0,
        start_timeout=5.0,
        request_timeout=4.0,
        max_response_bytes=1000,
        jitter=0.0,
        max_backoff=10.0,
        stale_after=20.0,
        last_known_good=str(Path("settings.json").absolute()),
        max_age=30.0,
        follow_changes=False,
    )
    assert "hidden" not in repr(shown)
    assert "hidden" not in repr(client)


def test_each_option_of_a_client_is_shown() -> None:
    """Except those that others replace."""
    shown = {field.name for field in dataclasses.fields(EffectiveOptions)}
    assert shown == (ClientOptions.__optional_keys__ - {"token", "ca_file"}) | {
        "service_url", "update_interval", "context_features"
    }  # fmt: skip


def test_the_options_are_a_constant_value(kind: Kind) -> None:
    """They can be compared, copied and pickled, and the client does not change with them."""
    client = kind.make(URL, 60, FEATURES, error_classes={503: Maintenance}, **SECRETS)
    options = client.options
    assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == options == client.options  # noqa: S301
    assert hash(options) == hash(client.options)
    for name in ("jitter", "other"):
        with pytest.raises(AttributeError, match=f"cannot assign to field '{name}'"):
            setattr(options, name, 1)
    with pytest.raises(TypeError):
        options.headers["X-Key"] = "x"


def test_the_options_show_what_has_changed_since(kind: Kind, fake_service: FakeService) -> None:
    """Another credential, and the context features of the service once they are known."""
    with running_in_memory(kind, fake_service, context_features=None) as subject:
        assert (subject.client.options.context_features, subject.client.options.auth) == (FEATURES, None)
        subject.client.use_credential(StaticToken("hidden"))
        assert subject.client.options.auth == "<StaticToken>"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"auth": lambda request: request}, {"auth": "function"}),
        ({"auth": httpx.DigestAuth("jim", "hidden")}, {"auth": "DigestAuth"}),
        ({"ca_file": Path("tests/data/tls/certificate.pem")}, {"verify": "tests/data/tls/certificate.pem"}),
        ({"verify": ssl.create_default_context()}, {"verify": "SSLContext"}),
        ({"http_client": http_client()}, {"http_client": "Client", "timeout": None, "verify": None}),
        (
            {"http_client_args": {"transport": httpx.HTTPTransport()}},
            {"verify": None},
        ),
    ],
)
def test_objects_are_shown_as_text(options: dict[str, Any], expected: dict[str, Any]) -> None:
    """They could show secrets, or be changed."""
    shown = ThreadHeksherClient(URL, 60, FEATURES, **options).options
    assert {name: getattr(shown, name) for name in expected} == expected


def test_the_repr_of_a_client_has_its_url_and_state(kind: Kind, fake_service: FakeService) -> None:
    """At any time: also before `__init__` has ended, and after the client was closed."""
    name = "RecordingAsyncClient" if kind.raises_at_start else "RecordingThreadClient"
    with running_in_memory(kind, fake_service, url="http://jim:hidden@service") as subject:
        assert repr(subject.client) == f"<{name} http://service: fresh, main>"
        fake_service.is_running = False
        subject.state_after_reload()
        assert repr(subject.client) == f"<{name} http://service: failing, main>"
    assert repr(subject.client) == f"<{name} http://service: closed>"
    client_class: Any = type(subject.client)
    unfinished = client_class.__new__(client_class)
    assert repr(unfinished) == f"<{name}>"
    assert repr(kind.make(URL, 60)) == f"<{name} {URL}: starting>"


def test_a_stub_has_options() -> None:
    """For programs that log them."""
    assert SyncStubHeksherClient("http://host", 5, ["user"]).options == EffectiveOptions("http://host", 5, ("user",))


def test_the_status_of_a_stub_has_its_iterators() -> None:
    setting = Setting("s", int, ["user"], 1)
    with SyncStubHeksherClient() as stub:
        changes, watch = stub.changes(name="billing"), setting.watch(name="prices", user="jim")
        stub[setting].rules = 2
        assert stub.status().iterators == {"billing": 1, "prices": 1}
        assert (next(changes).setting, next(watch)) == (setting, 2)


def test_the_repr_of_a_stub_has_its_state() -> None:
    stub = SyncStubHeksherClient("http://host")
    states = [repr(stub)]
    with stub:
        states.append(repr(stub))
    states.append(repr(stub))
    assert states == [f"<SyncStubHeksherClient http://host: {state}>" for state in ("starting", "main", "closed")]


def test_the_status_of_a_client_has_its_iterators(kind: Kind, fake_service: FakeService) -> None:
    """Iterators without a name are left out."""
    setting = Setting("s", int, ["user"], 1)
    with running_in_memory(kind, fake_service) as subject:
        changes = subject.client.changes(name="billing")
        watch = setting.watch(name="prices", user="jim")
        assert (repr(changes), repr(watch)) == ("<Changes 'billing'>", "<Watch 'prices'>")
        assert repr(setting.watch(user="jim")) == "<Watch>"
        fake_service.add_rule("s", 2, user="jim")
        subject.reload()
        assert subject.client.status().iterators == {"billing": 1, "prices": 1}
        assert (next(changes).setting, next(watch)) == (setting, 2)
        assert subject.client.status().iterators == {"billing": 0, "prices": 0}
    assert subject.client.status().iterators == {}
