"""The types of the admin clients. Checked by mypy and pyright, never run."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from heksher_client import Setting, SettingData, setting_type
from heksher_client.admin import (
    AdminClient,
    AsyncAdminClient,
    ChangeRecord,
    ComparedValues,
    ImportResult,
    RulePage,
    RuleRecord,
    SearchResult,
    ServiceState,
    TokenRecord,
)

cache_size = Setting("cache_size", int, ["user"], 10)
limits = Setting("limits", Mapping[str, Sequence[float]], ["user"], {})


def threaded() -> None:
    with AdminClient("http://host", token="token", request_timeout=5) as admin:  # noqa: S106 - not a secret
        assert_type(admin, AdminClient)
        assert_type(admin.context_features(), tuple[str, ...])
        assert_type(admin.settings(), dict[str, SettingData])
        assert_type(admin.setting(cache_size), SettingData | None)
        assert_type(admin.rules("cache_size", {"user": "jim"}), tuple[RuleRecord, ...])
        assert_type(admin.rules(cache_size, sort="-value", text="jim"), tuple[RuleRecord, ...])
        assert_type(admin.rule_page(cache_size, limit=10, author="ops"), RulePage)
        assert_type(admin.temporary_rules(), dict[str, tuple[RuleRecord, ...]])
        assert_type(admin.search("jim"), SearchResult)
        assert_type(admin.compare({"user": "jim"}, {}, include_equal=True), tuple[ComparedValues, ...])
        admin.rules(cache_size, limit=10)  # type: ignore[call-arg]
        admin.change_rule(1, value=5, ends_at=None, setting=cache_size)
        admin.change_rule(1, ends_at="2030-01-01")  # type: ignore[arg-type]
        assert_type(admin.service_state(), ServiceState)
        assert_type(admin.export(), dict[str, Any])
        assert_type(admin.import_document(admin.export(), exact=True, dry_run=True, revision=5), ImportResult)
        assert_type(admin.changes(after=5, setting=cache_size), tuple[ChangeRecord, ...])
        assert_type(admin.add_rule(cache_size, 200, {"user": "jim"}), int)
        admin.add_rule("cache_size", "any JSON value", {"user": "jim"}, metadata={"by": 1})
        admin.add_rule(cache_size, 1, {"user": "jim"}, starts_at=datetime.now(UTC), comment="a test", link="https://x")
        admin.add_rule(cache_size, 1, {"user": "jim"}, ends_at="2030-01-01")  # type: ignore[call-overload]
        admin.set_rule_period(1, starts_at=None)  # type: ignore[call-arg]
        admin.add_rule(limits, {"a": [1.5]}, {"user": "jim"})
        admin.add_rule(cache_size, "200", {"user": "jim"})  # type: ignore[misc]
        admin.add_rule("cache_size", 200)  # type: ignore[call-overload]
        if (rule := admin.find_rule(cache_size, {"user": "jim"})) is not None:
            admin.set_rule(rule.rule_id, 300, etag=rule.etag)
            admin.set_rule(rule.rule_id, 300, setting=cache_size)
            admin.set_rule(rule.rule_id, "300", setting=cache_size)  # type: ignore[misc]
            admin.remove_rule(rule)  # type: ignore[arg-type]
        admin.set_setting_type("cache_size", setting_type(float), version="2.0")
        admin.set_setting_type("cache_size", Sequence[int], version="3.0")
        assert_type(admin.create_setting("size", int, 10, ["user"], metadata={"a": 1}), bool)
        assert_type(admin.tokens(), tuple[TokenRecord, ...])
        assert_type(admin.create_token("shop", "read", lifetime=timedelta(days=1)), str)
        admin.create_token("shop", lifetime=86_400)  # type: ignore[arg-type]
        admin.rename_setting("cache_size", "size")  # type: ignore[call-arg]
        AdminClient("http://host", update_interval=60)  # type: ignore[call-arg]


async def asynchronous() -> None:
    async with AsyncAdminClient.from_profile("shop", url="http://host") as admin:
        assert_type(admin, AsyncAdminClient)
        assert_type(await admin.rule(1), RuleRecord | None)
        assert_type(await admin.add_rule(cache_size, 200, {"user": "jim"}), int)
        await admin.add_rule(cache_size, 1.5, {"user": "jim"})  # type: ignore[misc]
