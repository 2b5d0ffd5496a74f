"""The admin clients, with a local service."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import httpx
import pytest

import heksher_client.admin
from heksher_client import (
    ClientNotRunningError,
    ConfigError,
    ServiceUnavailableError,
    Setting,
    UnexpectedResponseError,
)
from heksher_client.admin import AdminClient, AsyncAdminClient, RuleRecord
from heksher_client.service.import_export import export
from heksher_client.service.tokens import Role, add_token
from tests.support.clients import TIMEOUT_SECONDS, Kind
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.profiles import write_config
from tests.support.service import WatchedService

CET = timezone(timedelta(hours=1))


class Color(Enum):
    RED = "r"
    BLUE = "b"


class Admin:
    """An admin client of either kind, whose methods return when they have ended."""

    def __init__(self, kind: Kind, make: Callable[[Any], Any]) -> None:
        self._kind = kind
        self.client = make(AsyncAdminClient if kind.raises_at_start else AdminClient)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)
        return lambda *args, **kwargs: self._kind.call(method(*args, **kwargs))

    def close(self) -> None:
        self._kind.call(self.client.aclose() if self._kind.raises_at_start else self.client.close())


@pytest.fixture
def make_admin(kind: Kind) -> Iterator[Callable[[Callable[[Any], Any]], Admin]]:
    """Create admin clients of one kind, which are closed at the end of the test."""
    created: list[Admin] = []

    def make(function: Callable[[Any], Any]) -> Admin:
        created.append(Admin(kind, function))
        return created[-1]

    yield make
    for each in created:
        each.close()


@pytest.fixture
def admin(make_admin: Callable[..., Admin], service: WatchedService) -> Admin:
    service.declare("cache_size", "int", 10, ["environment", "user"])
    return make_admin(lambda admin_class: admin_class(service.url))


def test_rules_are_added_changed_and_removed(admin: Admin) -> None:
    """By the conditions or by the ID; with an ETag, only if nobody else has changed them."""
    cache_size = Setting("cache_size", int, ["environment", "user"], 10)
    rule_id = admin.add_rule(cache_size, 200, {"user": "jim"}, metadata={"ticket": "OPS-17"})
    other_id = admin.add_rule("cache_size", 50, {"user": "jim", "environment": "prod"})
    found = admin.find_rule(cache_size, {"user": "jim"})
    assert (found.rule_id, found.value, dict(found.metadata)) == (rule_id, 200, {"ticket": "OPS-17"})
    assert found == admin.rule(rule_id)

    admin.set_rule(rule_id, 300, etag=found.etag)
    with pytest.raises(UnexpectedResponseError) as raised:
        admin.set_rule(rule_id, 400, etag=found.etag)
    assert raised.value.status == 412
    assert [(rule.value, rule.etag) for rule in admin.rules("cache_size", {"user": "jim"})] == [(300, None), (50, None)]
    assert [rule.value for rule in admin.rules("cache_size", {"environment": "prod"})] == [50]

    with pytest.raises(UnexpectedResponseError, match="409: 'rule already exists'"):
        admin.add_rule("cache_size", 1, {"user": "jim"})
    admin.remove_rule(rule_id)
    assert (admin.rule(rule_id), admin.find_rule("cache_size", {"user": "jim"})) == (None, None)
    (other,) = admin.rules("cache_size")
    assert replace(other, changed_at=None) == RuleRecord(other_id, {"environment": "prod", "user": "jim"}, 50, {})
    assert datetime.fromisoformat(other.changed_at).tzinfo is not None
    with pytest.raises(UnexpectedResponseError, match="the following are not setting names") as raised:
        admin.rules("nosuch")
    assert raised.value.status == 404


def test_temporary_rules(admin: Admin, service: WatchedService) -> None:
    """They have times with a time zone, and are listed and exported if they are not in effect."""
    now = datetime.now(UTC)
    start, end = now + timedelta(days=1), now + timedelta(days=2)
    future = admin.add_rule("cache_size", 200, {"user": "jim"}, starts_at=start, ends_at=end.astimezone(CET))
    rule = admin.rule(future)
    assert (rule.in_effect, rule.starts_at, rule.ends_at) == (False, start.isoformat(), end.isoformat())
    assert admin.rules("cache_size", {"user": "jim"})[0].period == rule.period
    assert service.call("GET", "/api/v1/query").json()["settings"]["cache_size"]["rules"] == []
    document = admin.export()
    assert document["settings"][0]["rules"][0]["starts_at"] == start.isoformat()
    assert service.database is not None
    with service.database.begin() as connection:
        assert document == export(connection)

    admin.set_rule_period(future, starts_at=None, ends_at=end, etag=rule.etag)
    assert (admin.rule(future).in_effect, admin.rule(future).period) == (True, {"ends_at": end.isoformat()})
    admin.set_rule_period(future, starts_at=None, ends_at=None)
    assert admin.rule(future).period == {}
    with pytest.raises(UnexpectedResponseError, match="ends_at must be later than starts_at") as raised:
        admin.add_rule("cache_size", 1, {"user": "ann"}, starts_at=end, ends_at=start)
    assert raised.value.status == 422
    sent = len(service.requests)
    with pytest.raises(ValueError, match=r"^starts_at must have a time zone: use datetime.now\(UTC\)"):
        admin.add_rule("cache_size", 1, {"user": "ann"}, starts_at=datetime(2030, 1, 1))
    with pytest.raises(TypeError, match=r"^ends_at must be a datetime, not str"):
        admin.set_rule_period(future, starts_at=None, ends_at="2030-01-01")
    assert len(service.requests) == sent


def test_the_reason_for_a_rule_is_in_its_metadata(admin: Admin) -> None:
    """And so in the log of changes."""
    link = "https://example.com/OPS-17"
    rule_id = admin.add_rule("cache_size", 200, {"user": "jim"}, metadata={"a": 1}, comment="slow", link=link)
    assert admin.rule(rule_id).metadata == {"a": 1, "comment": "slow", "link": link}
    assert admin.changes()[-1].new["metadata"]["comment"] == "slow"
    assert admin.rule(admin.add_rule("cache_size", 1, {"user": "a"}, comment="x")).metadata == {"comment": "x"}


def test_several_attributes_of_a_rule_are_changed_at_once(admin: Admin) -> None:
    """With one entry in the log of changes. Those that are not given stay as they are."""
    end = datetime.now(UTC) + timedelta(days=2)
    cache_size = Setting("cache_size", int, ["environment", "user"], 10)
    rule_id = admin.add_rule(cache_size, 200, {"user": "jim"}, comment="slow")
    rule = admin.rule(rule_id)
    latest = admin.latest_changes(limit=1)[0].revision
    admin.change_rule(rule_id, value=300, setting=cache_size, ends_at=end, metadata={"link": "x"}, etag=rule.etag)
    (change,) = admin.changes(after=latest)
    assert (change.action, change.former["value"], change.new["value"]) == ("rule changed", 200, 300)
    admin.change_rule(rule_id, conditions={"user": "ann"}, starts_at=None)
    changed = admin.rule(rule_id)
    assert (changed.conditions, changed.value, changed.metadata) == ({"user": "ann"}, 300, {"link": "x"})
    assert changed.period == {"ends_at": end.isoformat()}
    with pytest.raises(UnexpectedResponseError, match="changed since it was read"):
        admin.change_rule(rule_id, value=1, ends_at=None, etag=rule.etag)
    with pytest.raises(TypeError, match=r"^change_rule\(\) got an unexpected keyword argument 'comment'"):
        admin.change_rule(rule_id, comment="x")
    with pytest.raises(ValueError, match="ends_at must have a time zone"):
        admin.change_rule(rule_id, ends_at=datetime(2030, 1, 1))


def test_the_reason_for_a_removal_is_in_the_log_of_changes(admin: Admin) -> None:
    rule_id = admin.add_rule("cache_size", 200, {"user": "jim"})
    admin.remove_rule(rule_id, comment="the test is over", link="https://example.com/1")
    (change,) = admin.latest_changes(limit=1)
    assert (change.former["comment"], change.former["link"]) == ("the test is over", "https://example.com/1")


def test_rules_are_filtered_sorted_and_read_in_pages(admin: Admin) -> None:
    """The service does so. Rules are found in all settings, by a text or as temporary ones."""
    for value, user in ((3, "jim"), (20, "ann"), (100, "jane")):
        admin.add_rule("cache_size", value, {"user": user})
    temporary = admin.add_rule("cache_size", 5, {"environment": "prod"}, ends_at=datetime.now(UTC) + timedelta(days=1))
    assert [rule.value for rule in admin.rules("cache_size", sort="-value")] == [100, 20, 5, 3]
    assert [rule.value for rule in admin.rules("cache_size", sort="value", text="user=j")] == [3, 100]
    assert [rule.value for rule in admin.rules("cache_size", value="0", author="")] == [20, 100]
    assert admin.rules("cache_size", author="ops") == ()
    page = admin.rule_page("cache_size", limit=1, offset=3)
    assert ([rule.rule_id for rule in page.rules], page.total) == ([temporary], 4)
    assert admin.rule_page("cache_size", {"user": "jim"}).total == 1
    assert {name: [rule.rule_id for rule in rules] for name, rules in admin.temporary_rules().items()} == {
        "cache_size": [temporary]
    }
    found = admin.search("ja")
    assert [(each.name, [rule.conditions for rule in each.rules]) for each in found.settings] == [
        ("cache_size", [{"user": "jane"}])
    ]
    assert (found.total, admin.search("ja", offset=1).settings) == (1, ())
    (pair,) = admin.compare({"user": "jane"}, {"user": "nobody"})
    assert (pair.setting, pair.first.conditions, pair.second.rule_id) == ("cache_size", {"user": "jane"}, None)
    assert [each.is_different for each in admin.compare({}, {}, include_equal=True)] == [False]
    with pytest.raises(TypeError, match=r"^rules\(\) got an unexpected keyword argument 'limit'"):
        admin.rules("cache_size", limit=1)
    with pytest.raises(TypeError, match=r"^rule_page\(\) got an unexpected keyword argument 'user'"):
        admin.rule_page("cache_size", user="jim")


def test_the_conditions_of_a_rule_are_replaced(admin: Admin) -> None:
    """Unless another rule has them."""
    first = admin.add_rule("cache_size", 1, {"user": "jim"})
    second = admin.add_rule("cache_size", 2, {"user": "ann"})
    admin.set_rule_conditions(first, {"user": "jim", "environment": "prod"})
    assert admin.rule(first).conditions == {"environment": "prod", "user": "jim"}
    with pytest.raises(UnexpectedResponseError, match=f"409: 'rule {first} has these conditions already'"):
        admin.set_rule_conditions(second, {"environment": "prod", "user": "jim"})


def test_rules_have_values_of_the_type_of_a_setting(admin: Admin, service: WatchedService) -> None:
    """A script adds, compares and changes them without the type of the service."""
    color = Setting("color", Color, ["user"], Color.RED)
    service.declare("color", 'Enum["r","b"]', "r", ["user"])
    rule_id = admin.add_rule(color, Color.BLUE, {"user": "jim"})
    assert admin.rule(rule_id).value == color.type.convert_to_heksher(Color.BLUE) == "b"
    admin.set_rule(rule_id, Color.RED, setting=color)
    assert admin.rule(rule_id).value == "r"
    with pytest.raises(TypeError, match=r"Object of type Color is not JSON serializable.*: pass the Setting"):
        admin.set_rule(rule_id, Color.BLUE)


def test_the_reason_of_a_refusal_is_that_of_the_service(admin: Admin) -> None:
    """Values with other characters are not blamed: this service accepts them."""
    with pytest.raises(UnexpectedResponseError, match=r"^POST \S+: the service responded with 422: 'setting not found"):
        admin.add_rule("nosuch", 1, {"user": "jim@example.com"})
    with pytest.raises(UnexpectedResponseError, match=r"^POST \S+: the service responded with 422"):
        admin.add_rule("cache_size", 1, {"user": "jim@example.com"}, metadata={"a/b": 1})


def test_an_invalid_argument_is_refused_before_anything_is_sent(admin: Admin, service: WatchedService) -> None:
    """Its error names the argument."""
    sent = len(service.requests)
    with pytest.raises(TypeError, match="metadata must be of type Mapping, not list"):
        admin.add_rule("cache_size", 1, {"user": "jim"}, metadata=[])
    with pytest.raises(TypeError, match="conditions must be of type Mapping, not str"):
        admin.rules("cache_size", "")
    with pytest.raises(ValueError, match="is not a valid etag"):
        admin.remove_rule(1, etag="x\ny")
    assert len(service.requests) == sent


def test_metadata_of_rules_and_settings(admin: Admin) -> None:
    """Keys are added, replaced, and deleted; all of them are replaced at once."""
    rule_id = admin.add_rule("cache_size", 200, {"user": "jim"})
    admin.add_rule_metadata(rule_id, {"a": 1, "b": 2})
    admin.add_rule_metadata(rule_id, {"b": 3})
    assert admin.rule(rule_id).metadata == {"a": 1, "b": 3}
    admin.delete_rule_metadata(rule_id, "a")
    assert admin.rules("cache_size")[0].metadata == {"b": 3}
    admin.replace_rule_metadata(rule_id, {})
    assert admin.rule(rule_id).metadata == {}

    admin.add_setting_metadata("cache_size", {"a": 1, "b": 2}, version="1.1")
    admin.delete_setting_metadata("cache_size", "a", version="1.2")
    assert admin.setting("cache_size").metadata == {"b": 2}
    admin.replace_setting_metadata("cache_size", {"owner": "shop"}, version="1.3")
    assert admin.settings()["cache_size"].metadata == {"owner": "shop"}


def test_settings_are_renamed_retyped_and_deleted(admin: Admin) -> None:
    """Each change requires a higher version."""
    admin.rename_setting("cache_size", "shop.cache_size", version="1.1")
    admin.set_setting_type("cache_size", float, version="2.0")
    admin.set_configurable_features("shop.cache_size", ["environment", "user", "theme"], version="3.0")
    data = admin.setting("cache_size")
    assert (data.name, data.aliases, data.type, data.version) == ("shop.cache_size", ["cache_size"], "float", "3.0")
    assert data.configurable_features == ["environment", "user", "theme"]
    admin.add_rule("shop.cache_size", 0.5, {"user": "jim"})
    with pytest.raises(UnexpectedResponseError, match="conflicts") as raised:
        admin.set_setting_type("shop.cache_size", "str", version="4.0")
    assert (raised.value.status, len(raised.value.json()["conflicts"])) == (409, 2)
    admin.delete_setting("shop.cache_size")
    assert (admin.setting("shop.cache_size"), admin.settings()) == (None, {})


def test_context_features_are_added_moved_and_deleted(admin: Admin) -> None:
    """A feature that a setting is configurable by cannot be deleted."""
    admin.add_context_feature("region")
    admin.move_context_feature("region", before="user")
    admin.move_context_feature("theme", after="environment")
    assert admin.context_features() == ("environment", "theme", "region", "user")
    admin.delete_context_feature("region")
    with pytest.raises(UnexpectedResponseError) as raised:
        admin.delete_context_feature("user")
    assert (raised.value.status, admin.context_features()) == (409, ("environment", "theme", "user"))


def test_settings_and_aliases_are_created(admin: Admin) -> None:
    """Before a program declares the setting."""
    assert admin.create_setting("colors", Color, Color.RED, ["user"], metadata={"owner": "shop"}) is True
    assert admin.create_setting("colors", Color, Color.RED, ["user"], metadata={"owner": "shop"}) is False
    with pytest.raises(UnexpectedResponseError) as raised:
        admin.create_setting("colors", Color, Color.BLUE, ["user"])
    assert (raised.value.status, raised.value.json()["outcome"]) == (409, "mismatch")
    admin.add_alias("colors", "old.colors")
    data = admin.setting("old.colors")
    assert (data.name, data.default_value, data.aliases) == ("colors", "r", ["old.colors"])
    admin.delete_alias("colors", "old.colors")
    assert admin.setting("old.colors") is None


def test_tokens_are_created_listed_and_revoked(admin: Admin, make_admin: Callable[..., Admin]) -> None:
    """The text of a new one is returned once."""
    text = admin.create_token("shop", lifetime=timedelta(days=1))
    assert text.startswith("heksher_")
    admin.create_token("ops", "admin")
    ops, shop = admin.tokens()
    assert (ops.name, ops.role, ops.expires_at, ops.expired) == ("ops", "admin", None, False)
    lifetime = datetime.fromisoformat(shop.expires_at) - datetime.fromisoformat(shop.created_at)
    assert (shop.role, lifetime) == ("declare", timedelta(days=1))
    with pytest.raises(UnexpectedResponseError, match="the token shop already exists") as raised:
        admin.create_token("shop")
    assert raised.value.status == 409
    admin.revoke_token("shop")
    assert admin.tokens() == (ops,)
    with pytest.raises(UnexpectedResponseError, match="there is no token shop"):
        admin.revoke_token("shop")


def test_the_whole_content_of_a_service(admin: Admin, service: WatchedService) -> None:
    """An export is that of the service. The log has each change, with the state before and after it."""
    rule_id = admin.add_rule("cache_size", 200, {"user": "jim", "environment": "prod"}, metadata={"a": 1})
    admin.set_rule(rule_id, 300)
    assert service.database is not None
    document = admin.export()
    with service.database.begin() as connection:
        assert document == export(connection)

    progress: list[tuple[int, int]] = []
    state = admin.service_state(lambda *numbers: progress.append(numbers))
    assert (progress, list(state.settings)) == ([(1, 1)], ["cache_size"])
    changes = admin.changes()
    assert [change.action for change in changes[-2:]] == ["rule added", "rule changed"]
    last = admin.changes(after=changes[-2].revision, setting="cache_size")
    assert [(one.former["value"], one.new["value"], one.actor) for one in last] == [(200, 300, None)]
    assert asdict(last[0]) == asdict(changes[-1])
    assert admin.changes(limit=1) == changes[:1]
    assert admin.latest_changes(limit=2) == changes[:-3:-1]
    assert (
        admin.latest_changes(setting="cache_size", action="rule added", before=changes[-1].revision) == changes[-2:-1]
    )
    assert admin.latest_changes(actor="nobody") == admin.changes(actor_part="nobody") == ()
    assert admin.changes(setting_part="SIZE", conditions={"user": "jim"}, value="300") == changes[-1:]
    with pytest.raises(TypeError, match=r"latest_changes\(\) got an unexpected keyword argument 'author'"):
        admin.latest_changes(author="ann")
    day, now = timedelta(days=1), datetime.now(UTC)
    assert admin.latest_changes(since=now + day) == admin.latest_changes(until=now - day) == ()
    assert admin.changes(since=now - day, until=now + day) == changes
    with pytest.raises(ValueError, match="since must have a time zone"):
        admin.latest_changes(since=datetime(2026, 1, 31))


def test_a_document_is_imported(admin: Admin, service: WatchedService) -> None:
    """In one transaction; after a dry run, only if nothing has changed since."""
    document = admin.export()
    document["settings"][0]["rules"] = [{"feature_values": {"user": "ann"}, "value": 7}]
    planned = admin.import_document(document, dry_run=True)
    assert [(change.action, change.setting) for change in planned.changes] == [("rule added", "cache_size")]
    assert admin.rules("cache_size") == ()
    made = admin.import_document(document, revision=planned.revision)
    assert (made.changes, made.revision) == (planned.changes, planned.revision + 1)
    assert [rule.value for rule in admin.rules("cache_size")] == [7]
    with pytest.raises(UnexpectedResponseError, match="changed since") as raised:
        admin.import_document(document, revision=planned.revision)
    assert raised.value.status == 412
    empty = document | {"settings": []}
    assert [change.action for change in admin.import_document(empty, exact=True).changes] == ["setting deleted"]
    with pytest.raises(UnexpectedResponseError, match="unsupported document format 2") as raised:
        admin.import_document(empty | {"heksher": 2})
    assert (raised.value.status, raised.value.json()["path"]) == (422, ["heksher"])
    with pytest.raises(TypeError, match="document must be of type Mapping"):
        admin.import_document([])


def test_a_token_is_sent(make_admin: Callable[..., Admin], service: WatchedService) -> None:
    """Changes require one with the role `admin`."""
    service.reset(access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        token, weak = (add_token(connection, role.value, role) for role in (Role.ADMIN, Role.READ))
    make_admin(lambda admin_class: admin_class(service.url, token=token)).add_context_feature("region")
    with pytest.raises(UnexpectedResponseError, match="needs the role admin") as raised:
        make_admin(lambda admin_class: admin_class(service.url, token=weak)).delete_context_feature("region")
    assert raised.value.status == 403
    with pytest.raises(TypeError, match="give auth or token, not both"):
        make_admin(lambda admin_class: admin_class(service.url, token=token, auth=("a", "b")))


def test_errors_of_arguments_name_the_class(make_admin: Callable[..., Admin]) -> None:
    """Not that of the client that sends the requests, which has further arguments."""
    for name in ("bogus", "context_features", "update_interval"):
        with pytest.raises(TypeError, match=rf"^(Async)?AdminClient got an unexpected keyword argument '{name}'$"):
            make_admin(lambda admin_class, name=name: admin_class("http://host", **{name: 1}))
    with pytest.raises(TypeError, match=r"^(Async)?AdminClient needs service_url$"):
        make_admin(lambda admin_class: admin_class(None))


def test_a_client_of_a_profile(
    make_admin: Callable[..., Admin], service: WatchedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its options are those of the profile. It needs no context features."""
    config = tmp_path / "config.toml"
    write_config(config, f'[profiles.shop]\nurl = "{service.url}"\nheaders = {{ x-team = "ops" }}\n')
    monkeypatch.setenv("HEKSHER_CONFIG", str(config))
    assert make_admin(lambda admin_class: admin_class.from_profile("shop")).context_features()
    assert service.requests[-1].headers["x-team"] == "ops"
    monkeypatch.delenv("HEKSHER_CONFIG")
    assert make_admin(lambda admin_class: admin_class.from_profile("shop", path=tmp_path)).settings() == {}
    with pytest.raises(ConfigError, match=r"^url: 'localhost' must start with http"):
        make_admin(lambda admin_class: admin_class.from_profile(url="localhost"))
    with pytest.raises(TypeError, match=r"^from_profile got an unexpected keyword argument 'bogus'$"):
        make_admin(lambda admin_class: admin_class.from_profile(bogus=1))


def test_errors_are_those_of_other_clients(make_admin: Callable[..., Admin], service: WatchedService) -> None:
    """Of the same classes, and also if the client is closed."""
    admin = make_admin(lambda admin_class: admin_class(f"{service.url}/"))
    admin.ping(timeout=TIMEOUT_SECONDS)
    with pytest.raises(ValueError, match=r"^timeout must be a"):
        admin.ping(timeout=0)
    assert (admin.client.closed, admin.client.service_url) == (False, service.url)
    assert repr(admin.client) == f"<{type(admin.client).__name__} {service.url}>"
    admin.close()
    assert admin.client.closed
    with pytest.raises(ClientNotRunningError, match="the client is closed"):
        admin.settings()
    unreachable = make_admin(lambda admin_class: admin_class("http://127.0.0.1:9"))
    with pytest.raises(ServiceUnavailableError, match=r"GET /api/v1/settings: no response \(ConnectError"):
        unreachable.settings()
    with pytest.raises(httpx.HTTPError):
        unreachable.ping()


def test_the_child_of_a_fork_uses_connections_of_its_own(service: WatchedService) -> None:
    """Those of the parent stay open."""
    with AdminClient(service.url) as admin:
        assert admin.context_features()
        assert exited_successfully(fork_and_check(lambda: admin.context_features() == ("environment", "user", "theme")))
        assert admin.settings() == {}


@pytest.mark.anyio
async def test_both_are_context_managers(service: WatchedService) -> None:
    """They are closed at the end of the block, and never the main client."""
    async with AsyncAdminClient(service.url) as asynchronous:
        assert await asynchronous.settings() == {}
        with AdminClient(service.url) as threaded:
            assert await asyncio.to_thread(threaded.settings) == {}
    assert (asynchronous.closed, threaded.closed) == (True, True)


def test_the_async_client_works_in_an_event_loop_of_asyncio_only() -> None:
    """As the client that keeps settings up to date."""
    with pytest.raises(RuntimeError, match=r"AsyncAdminClient needs asyncio, .* or an AdminClient"):
        AsyncAdminClient("http://host").settings().send(None)


def public(admin_class: type) -> dict[str, Any]:
    return {name: value for name, value in vars(admin_class).items() if not name.startswith("_") or name == "__init__"}


def test_both_have_the_same_methods() -> None:
    """With the same signatures, and the same first sentence."""
    asynchronous, threaded = public(AsyncAdminClient), public(AdminClient)
    asynchronous["close"] = asynchronous.pop("aclose")
    assert asynchronous.keys() == threaded.keys()
    for name, value in threaded.items():
        other = asynchronous[name]
        assert (inspect.getdoc(other) or "") == " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split()), name
        if inspect.isfunction(value):
            assert inspect.signature(other) == inspect.signature(value), name
            assert inspect.iscoroutinefunction(other) == (name != "__init__"), name


def test_all_public_names_are_listed() -> None:
    """The results of the methods included."""
    assert heksher_client.admin.__all__ == sorted(heksher_client.admin.__all__)
    assert all(hasattr(heksher_client.admin, name) for name in heksher_client.admin.__all__)
