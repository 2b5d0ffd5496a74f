"""Administration of a service from Python: its context features, settings, rules and tokens, and its log of changes.

    with AdminClient("http://heksher:8080", token=os.environ["HEKSHER_TOKEN"]) as admin:
        admin.add_rule("cache_size", 200, {"environment": "prod", "user": "jim"})

Each call sends requests, and nothing is cached. The clients are never the main client, so a program may have them in
addition to its client. `AsyncAdminClient` has the same methods, to be awaited.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from os import PathLike
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack, overload

from heksher_client._core.refresh.admin_requests import SettingOrName
from heksher_client._core.refresh.administration import Administration
from heksher_client._core.refresh.effects import Flow
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.records import (
    ChangeRecord,
    ComparedValues,
    FoundRule,
    FoundSetting,
    ImportedChange,
    ImportResult,
    ResolvedValue,
    RulePage,
    RuleRecord,
    SearchResult,
    ServiceState,
    SettingRecord,
    TokenRecord,
)
from heksher_client._core.settings.setting import Setting
from heksher_client._drivers import async_client, thread_client
from heksher_client._drivers.async_client import AsyncHeksherClient
from heksher_client._drivers.options import ClientOptions, check_option_names
from heksher_client._drivers.thread_client import ThreadHeksherClient
from heksher_client._resource import Resource
from heksher_client._runtime import wakeup
from heksher_client.profiles._connect import ProfileOptions, create_request_client

__all__ = [
    "AdminClient",
    "AsyncAdminClient",
    "ChangeCriteria",
    "ChangeRecord",
    "ComparedValues",
    "FoundRule",
    "FoundSetting",
    "ImportResult",
    "ImportedChange",
    "ResolvedValue",
    "RuleChanges",
    "RuleCriteria",
    "RulePage",
    "RuleRecord",
    "SearchResult",
    "ServiceState",
    "SettingRecord",
    "TokenRecord",
]

T = TypeVar("T")
_INTERVAL: Final = 60.0
"""An interval that is never used: the clients are not set as main."""


class ChangeCriteria(TypedDict, total=False):
    """Criteria of changes, as keyword arguments of `changes` and `latest_changes`. None is the same as no criterion."""

    setting: SettingOrName | None
    """Only changes that affect this setting, by a present or former name."""
    setting_part: str | None
    """Only changes that affect a setting with this text in a present or former name, in any case."""
    actor: str | None
    """Only changes made with the token of this name; `schedule` for the changes of temporary rules at their times."""
    actor_part: str | None
    """Only changes made with a token with this text in its name, in any case."""
    action: str | None
    """Only this kind of changes, such as `rule added`."""
    since: datetime | None
    """Only changes since this time, which must have a time zone."""
    until: datetime | None
    """Only changes until this time, which must have a time zone."""
    feature: str | None
    """Only changes of rules with a condition on this context feature, before or after the change."""
    conditions: Mapping[str, str] | None
    """Only changes of rules with these conditions, perhaps with others, before or after the change."""
    value: str | None
    """Only changes of rules or default values with this text in the JSON of the value, before or after the change."""
    group: int | None
    """Only changes that were made together: those with this `group`, their first revision."""


def _checked_criteria(method: str, criteria: ChangeCriteria) -> dict[str, Any]:
    """Return criteria as the service accepts them.

    Raises:
        TypeError: A criterion does not exist, or is of another type.
        ValueError: A time has no time zone.
    """
    check_option_names(criteria, ChangeCriteria, f"{method}()")
    limits = {"since": criteria.get("since"), "until": criteria.get("until")}
    return {**criteria, **{name: _time_text(name, limit) for name, limit in limits.items()}}


class RuleCriteria(TypedDict, total=False):
    """Criteria of the rules of a setting, as keyword arguments of `rules` and `rule_page`. None is ignored."""

    text: str | None
    """Only rules with this text in a condition, such as `jim` or `user=jim`, in any case."""
    value: str | None
    """Only rules with this text in the JSON of the value, in any case."""
    author: str | None
    """Only rules whose last change was made with the token of this name."""


def _checked_rule_criteria(method: str, criteria: RuleCriteria) -> Mapping[str, Any]:
    """Return criteria of rules.

    Raises:
        TypeError: A criterion does not exist.
    """
    check_option_names(criteria, RuleCriteria, f"{method}()")
    return criteria


class RuleChanges(TypedDict, total=False):
    """New attributes of a rule, as keyword arguments of `change_rule`. Those that are not given stay as they are."""

    value: Any
    """The new value: of the type of `setting`, if that is a `Setting`; otherwise a JSON value."""
    conditions: Mapping[str, str]
    """The values of context features that the rule requires. They replace all conditions."""
    metadata: Mapping[str, Any]
    """In JSON values. They replace all metadata."""
    starts_at: datetime | None
    """The time at which the rule begins to apply, with a time zone; None if there is none."""
    ends_at: datetime | None
    """The time from which on the rule does not apply any more, with a time zone; None if there is none."""


def _checked_changes(changes: RuleChanges) -> dict[str, Any]:
    """Return new attributes of a rule, with the times as the service accepts them.

    Raises:
        TypeError: An attribute does not exist, or a time is not a datetime.
        ValueError: A time has no time zone.
    """
    check_option_names(changes, RuleChanges, "change_rule()")
    checked: dict[str, Any] = dict(changes)
    return checked | {name: _time_text(name, checked[name]) for name in ("starts_at", "ends_at") if name in checked}


def _check_arguments(admin_class: type[Any], service_url: object, options: Mapping[str, Any]) -> None:
    """Check the arguments whose errors would name the inner client instead.

    Raises:
        TypeError: The URL is missing, or an option does not exist.
    """
    check_option_names(options, ClientOptions, admin_class.__name__)
    if service_url is None:
        raise TypeError(f"{admin_class.__name__} needs service_url")


def _period(starts_at: datetime | None, ends_at: datetime | None) -> dict[str, str | None]:
    """Return a period as the service accepts it.

    Raises:
        TypeError: A limit is not a datetime.
        ValueError: A limit has no time zone.
    """
    return {"starts_at": _time_text("starts_at", starts_at), "ends_at": _time_text("ends_at", ends_at)}


def _time_text(name: str, time: datetime | None) -> str | None:
    if time is None:
        return None
    if not isinstance(time, datetime):
        raise TypeError(f"{name} must be a datetime, not {type(time).__name__}")
    if time.utcoffset() is None:
        raise ValueError(f"{name} must have a time zone: use datetime.now(UTC), or {name}.astimezone()")
    return time.isoformat()


def _reason(comment: str | None, link: str | None) -> dict[str, str]:
    return {key: text for key, text in (("comment", comment), ("link", link)) if text is not None}


def _with_reason(metadata: Mapping[str, Any] | None, comment: str | None, link: str | None) -> Mapping[str, Any]:
    """Return the metadata of a new rule, with its comment and its link."""
    reason = _reason(comment, link)
    given = {} if metadata is None else metadata
    return {**given, **reason} if reason else given


class AdminClient(Resource):
    """Reads and changes the contents of a service. All methods may be called from any thread.

    Methods that take a setting accept a `Setting`, or the name or an alias of any setting of the service. All raise:

    - `ServiceUnavailableError`: There was no response.
    - `UnexpectedResponseError`: The service refused the request. Its `status` is 404 if the object does not exist, 409
      for a conflict with another object, 412 if the object does not have the `etag` any more, 400 or 422 for an invalid
      value, and 401 or 403 for missing permissions.
    - `ClientNotRunningError`: The client is closed.
    - `ValueError`, `TypeError`: An argument is not valid. No request was sent.

    A `version` is the version of the setting after the change. It must be higher than before: declarations of older
    versions are outdated from then on.
    """

    def __init__(self, service_url: str, **options: Unpack[ClientOptions]) -> None:
        """Create a client. Close it, or use it as a context manager.

        Args:
            service_url: The URL of the service.
            **options: See `ClientOptions`. If the service requires tokens, `token` needs the role `admin`.

        Raises:
            TypeError, ValueError: An option is invalid.
        """
        _check_arguments(type(self), service_url, options)
        self._client = ThreadHeksherClient(service_url, _INTERVAL, (), **options)

    @classmethod
    def from_profile(
        cls,
        profile: str | None = None,
        *,
        path: str | PathLike[str] | None = None,
        **overrides: Unpack[ProfileOptions],
    ) -> Self:
        """Create a client from a profile of the configuration file, environment variables and arguments.

        Args:
            profile: The name of the profile, which then takes precedence over `HEKSHER_URL` and `HEKSHER_TOKEN`. If
                None, the profile that `connect` uses. With a URL, no profile is necessary.
            path: The configuration file, or the folder in which it is `config.toml`, as for `connect`.
            **overrides: As for `connect`.

        Raises:
            ConfigError: The configuration is incomplete or invalid.
        """
        self = cls.__new__(cls)
        self._client = create_request_client(profile, url_name="url", path=path, **overrides)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.service_url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def closed(self) -> bool:
        """True if the client is closed."""
        return self._client.closed

    @property
    def service_url(self) -> str:
        """The URL of the service, without user name and password."""
        return thread_client.internals(self._client).session.service_url

    def ping(self, *, timeout: float | None = None) -> None:
        """Check that the service is healthy. The error is an `httpx.HTTPError` as well.

        Args:
            timeout: The longest time for that in seconds, in addition to the limits in the options.
        """
        self._client.ping(timeout=timeout)

    # -- context features ----------------------------------------------------------------------------------------------

    def context_features(self) -> tuple[str, ...]:
        """Return the context features, in the order of the service."""
        return self._run(self._flows.context_features())

    def add_context_feature(self, name: str) -> None:
        """Add a context feature after all others: rules with a condition on it are stronger than those without."""
        self._run(self._flows.add_context_feature(name))

    def move_context_feature(self, name: str, *, before: str | None = None, after: str | None = None) -> None:
        """Move a context feature before or after another one. This changes which rules win."""
        self._run(self._flows.move_context_feature(name, before, after))

    def delete_context_feature(self, name: str) -> None:
        """Delete a context feature that no setting is configurable by."""
        self._run(self._flows.delete_context_feature(name))

    # -- settings ------------------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, SettingData]:
        """Return all settings by name, without their rules."""
        return self._run(self._flows.settings())

    def setting(self, setting: SettingOrName) -> SettingData | None:
        """Return a setting, without its rules; None if it does not exist."""
        return self._run(self._flows.setting(setting))

    def rename_setting(self, setting: SettingOrName, new_name: str, *, version: str) -> None:
        """Rename a setting. Its former name becomes an alias, by which older programs go on reading it."""
        self._run(self._flows.rename_setting(setting, new_name, version))

    def set_setting_type(self, setting: SettingOrName, new_type: Any, *, version: str) -> None:
        """Change the type of a setting, if its default value and the values of its rules are of the new type.

        Args:
            setting: The setting.
            new_type: The type, as for `Setting`: `float`, say; or the text of the service: `"Sequence<int>"`.
            version: The new version. A type that does not contain all values of the former one requires a new major
                version.

        Raises:
            UnexpectedResponseError: The status is 409 if there are conflicts, which `error.json()` lists, or if the
                version is not high enough.
        """
        self._run(self._flows.set_setting_type(setting, new_type, version))

    def set_configurable_features(self, setting: SettingOrName, features: Iterable[str], *, version: str) -> None:
        """Change the configurable features of a setting, if no rule has a condition on a removed one.

        Further features require a new major version.
        """
        self._run(self._flows.set_configurable_features(setting, features, version))

    def delete_setting(self, setting: SettingOrName) -> None:
        """Delete a setting with its rules and aliases."""
        self._run(self._flows.delete_setting(setting))

    def add_setting_metadata(self, setting: SettingOrName, metadata: Mapping[str, Any], *, version: str) -> None:
        """Add metadata to a setting, and replace those with the same keys."""
        self._run(self._flows.add_setting_metadata(setting, metadata, version))

    def replace_setting_metadata(self, setting: SettingOrName, metadata: Mapping[str, Any], *, version: str) -> None:
        """Replace all metadata of a setting."""
        self._run(self._flows.replace_setting_metadata(setting, metadata, version))

    def delete_setting_metadata(self, setting: SettingOrName, key: str, *, version: str) -> None:
        """Delete a key of a setting's metadata."""
        self._run(self._flows.delete_setting_metadata(setting, key, version))

    def create_setting(
        self,
        name: str,
        type: Any,
        default_value: Any,
        configurable_features: Iterable[str],
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Create a setting, so that it can have rules before a program declares it.

        Args:
            name: The name of the setting.
            type: The type, as for `Setting`: `int`, say; or the text of the service: `"Sequence<int>"`.
            default_value: A value of the type; if that is a text of the service, a JSON value.
            configurable_features: The context features that its rules may have conditions on.
            metadata: Metadata of the setting, in JSON values.

        Returns:
            True if the setting was created; False if it exists with these attributes, or in a newer version.

        Raises:
            UnexpectedResponseError: The status is 409 if the setting exists with other attributes, which
                `error.json()` lists, 404 if a context feature does not exist, and 422 if the value is not of the type.
        """
        flow = self._flows.create_setting(
            name, type, default_value, configurable_features, {} if metadata is None else metadata
        )
        return self._run(flow)

    def add_alias(self, setting: SettingOrName, alias: str) -> None:
        """Add an alias to a setting, by which programs can read it as well.

        Only services of this package have requests for aliases.
        """
        self._run(self._flows.add_alias(setting, alias))

    def delete_alias(self, setting: SettingOrName, alias: str) -> None:
        """Delete an alias of a setting. Programs can no longer read the setting by it."""
        self._run(self._flows.delete_alias(setting, alias))

    # -- rules ---------------------------------------------------------------------------------------------------------

    def rules(
        self,
        setting: SettingOrName,
        conditions: Mapping[str, str] | None = None,
        *,
        sort: str = "rule",
        **criteria: Unpack[RuleCriteria],
    ) -> tuple[RuleRecord, ...]:
        """Return the rules of a setting, without their ETags.

        Services of this package also return the rules that are not in effect at present.

        To change one of them only if nobody else has changed it since, read it with `rule` first.

        Args:
            setting: The setting.
            conditions: Return only the rules with these conditions, which may have others as well.
            sort: The order: `rule` (the ID), `priority` (the strongest rule first), `value`, or `changed` (the last
                change first). A hyphen before it reverses the order: `-rule`. Only services of this package have
                `value` and `changed`.
            **criteria: Return only the rules that meet these `RuleCriteria`. Only services of this package have them.

        Raises:
            UnknownContextError: No rule has the conditions, and the setting is not configurable at one of the features.
        """
        checked = _checked_rule_criteria("rules", criteria)
        return self._run(self._flows.rules(setting, {} if conditions is None else conditions, checked, sort))

    def rule_page(
        self,
        setting: SettingOrName,
        conditions: Mapping[str, str] | None = None,
        *,
        sort: str = "priority",
        limit: int = 100,
        offset: int = 0,
        **criteria: Unpack[RuleCriteria],
    ) -> RulePage:
        """Return some of the rules of a setting, without their ETags, and the number of all.

        Args:
            setting: The setting.
            conditions: As for `rules`.
            sort: The order, as for `rules`.
            limit: The maximum number of rules.
            offset: The number of rules before the first one.
            **criteria: As for `rules`.

        Raises:
            UnknownContextError: As for `rules`.
        """
        checked = _checked_rule_criteria("rule_page", criteria)
        flow = self._flows.rule_page(setting, {} if conditions is None else conditions, checked, sort, limit, offset)
        return self._run(flow)

    def temporary_rules(self) -> dict[str, tuple[RuleRecord, ...]]:
        """Return the rules of all settings that have a start or an end, by the name of the setting.

        Only services of this package have temporary rules.
        """
        return self._run(self._flows.temporary_rules())

    def search(self, text: str, *, limit: int = 20, offset: int = 0) -> SearchResult:
        """Search for a text in all settings, and in their rules.

        Only services of this package have a search.

        Args:
            text: The text, in any case, which may be a part of a name, an alias, metadata, a value or a condition. One
                like `user=ji` is searched for in conditions only.
            limit: The maximum number of settings.
            offset: The number of settings before the first one.
        """
        return self._run(self._flows.search(text, limit, offset))

    def rule(self, rule_id: int) -> RuleRecord | None:
        """Return a rule by its ID; None if it does not exist."""
        return self._run(self._flows.rule(rule_id))

    def find_rule(self, setting: SettingOrName, conditions: Mapping[str, str]) -> RuleRecord | None:
        """Return the rule of a setting with exactly these conditions; None if it does not exist.

        Raises:
            UnknownContextError: As for `rules`.
        """
        return self._run(self._flows.find_rule(setting, conditions))

    @overload
    def add_rule(
        self,
        setting: Setting[T],
        value: T,
        conditions: Mapping[str, str],
        *,
        metadata: Mapping[str, Any] | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        comment: str | None = None,
        link: str | None = None,
    ) -> int: ...
    @overload
    def add_rule(
        self,
        setting: str,
        value: Any,
        conditions: Mapping[str, str],
        *,
        metadata: Mapping[str, Any] | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        comment: str | None = None,
        link: str | None = None,
    ) -> int: ...
    def add_rule(
        self,
        setting: SettingOrName,
        value: Any,
        conditions: Mapping[str, str],
        *,
        metadata: Mapping[str, Any] | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        comment: str | None = None,
        link: str | None = None,
    ) -> int:
        """Add a rule to a setting, and return its ID.

        Args:
            setting: The setting.
            value: A value of its type, if it is a `Setting`; a JSON value, if it is a name.
            conditions: The values of context features that the rule requires.
            metadata: Metadata of the rule, in JSON values: a ticket, say.
            starts_at: The time at which the rule begins to apply, with a time zone. Only services of this package have
                temporary rules; others are not asked to add one.
            ends_at: The time from which on the rule does not apply any more, with a time zone.
            comment: The reason for the rule. It becomes the metadata key `comment`.
            link: The address of a ticket or a page about it. It becomes the metadata key `link`.

        Raises:
            UnexpectedResponseError: The status is 409 if the setting has a rule with these conditions, 400 if the value
                is not of its type or the setting does not have a feature, and 422 if the setting does not exist.
        """
        all_metadata = _with_reason(metadata, comment, link)
        period = _period(starts_at, ends_at)
        return self._run(self._flows.add_rule(setting, value, conditions, all_metadata, period))

    @overload
    def set_rule(self, rule_id: int, value: T, *, setting: Setting[T], etag: str | None = None) -> None: ...
    @overload
    def set_rule(self, rule_id: int, value: Any, *, setting: str | None = None, etag: str | None = None) -> None: ...
    def set_rule(
        self, rule_id: int, value: Any, *, setting: SettingOrName | None = None, etag: str | None = None
    ) -> None:
        """Change the value of a rule.

        Args:
            rule_id: The ID of the rule.
            value: The new value: of the type of `setting`, if that is a `Setting`; otherwise a JSON value.
            setting: The setting of the rule, which only converts the value.
            etag: Change it only if the rule still has this ETag, which `rule` and `find_rule` return. Otherwise the
                error has the status 412. With None, as in the results of `rules`, a change by somebody else in between
                is lost. Services that do not have ETags ignore it.
        """
        self._run(self._flows.set_rule(rule_id, value, etag, setting))

    def change_rule(
        self,
        rule_id: int,
        *,
        setting: SettingOrName | None = None,
        etag: str | None = None,
        **changes: Unpack[RuleChanges],
    ) -> None:
        """Change several attributes of a rule at once, with one entry in the log of changes.

        Other services than those of this package can only change the value and the metadata, with two requests.

        Args:
            rule_id: The ID of the rule.
            setting: The setting of the rule, which only converts the value.
            etag: Change it only if the rule still has this ETag, as for `set_rule`. Use it with `metadata` that contain
                those of the rule.
            **changes: The new attributes, see `RuleChanges`.

        Raises:
            UnexpectedResponseError: As for `set_rule` and `set_rule_conditions`. The status is also 400 if the period
                would end before it begins, and 404 or 405 if the service cannot make the change.
        """
        self._run(self._flows.change_rule(rule_id, _checked_changes(changes), etag, setting))

    def set_rule_conditions(self, rule_id: int, conditions: Mapping[str, str], *, etag: str | None = None) -> None:
        """Change the conditions of a rule.

        Args:
            rule_id: The ID of the rule.
            conditions: The values of context features that the rule requires.
            etag: Change it only if the rule still has this ETag, as for `set_rule`.

        Raises:
            UnexpectedResponseError: The status is 409 if the setting has another rule with these conditions, and 400
                if the setting does not have a feature.
        """
        self._run(self._flows.set_rule_conditions(rule_id, conditions, etag))

    def set_rule_period(
        self, rule_id: int, *, starts_at: datetime | None, ends_at: datetime | None, etag: str | None = None
    ) -> None:
        """Change the period in which a rule applies.

        Args:
            rule_id: The ID of the rule.
            starts_at: The time at which the rule begins to apply, with a time zone; None if there is none.
            ends_at: The time from which on the rule does not apply any more, with a time zone; None if there is none.
            etag: Change it only if the rule still has this ETag, as for `set_rule`.
        """
        self._run(self._flows.set_rule_period(rule_id, _period(starts_at, ends_at), etag))

    def remove_rule(
        self, rule_id: int, *, comment: str | None = None, link: str | None = None, etag: str | None = None
    ) -> None:
        """Remove a rule.

        Args:
            rule_id: The ID of the rule.
            comment: The reason, for the log of changes of services of this package.
            link: The address of a ticket or a page about it.
            etag: Remove it only if the rule still has this ETag, as for `set_rule`.
        """
        self._run(self._flows.remove_rule(rule_id, etag, _reason(comment, link)))

    def add_rule_metadata(self, rule_id: int, metadata: Mapping[str, Any], *, etag: str | None = None) -> None:
        """Add metadata to a rule, and replace those with the same keys."""
        self._run(self._flows.add_rule_metadata(rule_id, metadata, etag))

    def replace_rule_metadata(self, rule_id: int, metadata: Mapping[str, Any], *, etag: str | None = None) -> None:
        """Replace all metadata of a rule."""
        self._run(self._flows.replace_rule_metadata(rule_id, metadata, etag))

    def delete_rule_metadata(self, rule_id: int, key: str, *, etag: str | None = None) -> None:
        """Delete a key of a rule's metadata."""
        self._run(self._flows.delete_rule_metadata(rule_id, key, etag))

    # -- tokens --------------------------------------------------------------------------------------------------------

    def tokens(self) -> tuple[TokenRecord, ...]:
        """Return all access tokens, sorted by name, without their texts.

        Only services of this package have tokens.
        """
        return self._run(self._flows.tokens())

    def create_token(self, name: str, role: str = "declare", *, lifetime: timedelta | None = None) -> str:
        """Create an access token, and return its text, which the service does not store.

        Args:
            name: The name of the owner, which the log of changes shows: letters, digits and `_.@-`.
            role: The permissions: `read`, `declare` (for programs) or `admin`.
            lifetime: The time until the token expires; None for no limit.

        Raises:
            UnexpectedResponseError: The status is 409 if a token with this name exists.
        """
        seconds = None if lifetime is None else lifetime.total_seconds()
        return self._run(self._flows.create_token(name, role, seconds))

    def revoke_token(self, name: str) -> None:
        """Revoke an access token. The service refuses it within a second."""
        self._run(self._flows.revoke_token(name))

    # -- everything ----------------------------------------------------------------------------------------------------

    def service_state(self, on_progress: Callable[[int, int], object] | None = None) -> ServiceState:
        """Return the context features, and all settings with their rules.

        Args:
            on_progress: Called with the number of settings whose rules have been fetched, and the number of all.

        Raises:
            ServiceUnavailableError: Settings are renamed all the time. A state without them would look as if they were
                removed.
        """
        return self._run(self._flows.service_state(on_progress))

    def compare(
        self,
        first: Mapping[str, str],
        second: Mapping[str, str],
        *,
        include_equal: bool = False,
        on_progress: Callable[[int, int], object] | None = None,
    ) -> tuple[ComparedValues, ...]:
        """Return the values of all settings that differ in two contexts, sorted by setting.

        If a rule for one of the contexts has further conditions, the values in both contexts with these conditions are
        returned as well.

        Args:
            first: A context, such as `{"environment": "staging"}`. Context features that it does not have meet no
                condition.
            second: Another context.
            include_equal: Whether to return values that do not differ as well.
            on_progress: Called with the number of settings whose rules have been read, and the number of all, if the
                service cannot compare contexts itself.
        """
        return self._run(self._flows.compare(first, second, include_equal, on_progress))

    def export(self) -> dict[str, Any]:
        """Return everything as a document of JSON values, which `import_document` and `heksher-client diff` read.

        It is of one moment. That of a service without an endpoint for it is put together from several responses.
        """
        return self._run(self._flows.export())

    def import_document(
        self, document: Mapping[str, Any], *, exact: bool = False, dry_run: bool = False, revision: int | None = None
    ) -> ImportResult:
        """Make all changes that a document requires, in one transaction.

        Only services of this package have this. For thousands of changes, raise the options `timeout` and
        `request_timeout`.

        Args:
            document: The document, as `export` returns it. `rule_id`, `metadata`, `aliases` and `version` are optional.
            exact: Delete what is not in the document.
            dry_run: Return the changes without making them.
            revision: Make no change unless the service has this revision, as a dry run returns it. Otherwise, the error
                has the status 412.

        Raises:
            UnexpectedResponseError: The status is 422 if the document is invalid, 409 if it conflicts with the settings
                of the service, and 404 if the service does not support imports. With 409 and 422, `error.json()` has
                the place in the document (`path`).
        """
        return self._run(self._flows.import_document(document, exact=exact, dry_run=dry_run, revision=revision))

    def changes(
        self, *, after: int = 0, limit: int = 100, **criteria: Unpack[ChangeCriteria]
    ) -> tuple[ChangeRecord, ...]:
        """Return the first changes that meet all criteria, the oldest first.

        Only services of this package have a log of changes.

        Args:
            after: Return only changes after this revision. For the next changes, it is that of the last one.
            limit: The maximum number of changes.
            **criteria: See `ChangeCriteria`.
        """
        return self._run(self._flows.changes(after, limit, _checked_criteria("changes", criteria)))

    def latest_changes(
        self, *, before: int | None = None, limit: int = 100, **criteria: Unpack[ChangeCriteria]
    ) -> tuple[ChangeRecord, ...]:
        """Return the last changes that meet all criteria, the latest first.

        Only services of this package have a log of changes.

        Args:
            before: Return only changes before this revision. For the next changes, it is that of the last one.
            limit: The maximum number of changes.
            **criteria: See `ChangeCriteria`.
        """
        return self._run(self._flows.latest_changes(before, limit, _checked_criteria("latest_changes", criteria)))

    @property
    def _flows(self) -> Administration:
        return Administration(thread_client.internals(self._client).session.requests)

    def _run(self, flow: Flow[T]) -> T:
        return thread_client.internals(self._client).run(flow)


class AsyncAdminClient(Resource):
    """Reads and changes the contents of a service, for asyncio.

    The methods, their arguments and their errors are those of `AdminClient`.
    """

    def __init__(self, service_url: str, **options: Unpack[ClientOptions]) -> None:
        """Create a client. Close it, or use it as a context manager."""
        _check_arguments(type(self), service_url, options)
        self._client = AsyncHeksherClient(service_url, _INTERVAL, (), **options)

    @classmethod
    def from_profile(
        cls,
        profile: str | None = None,
        *,
        path: str | PathLike[str] | None = None,
        **overrides: Unpack[ProfileOptions],
    ) -> Self:
        """Create a client from a profile of the configuration file, environment variables and arguments."""
        self = cls.__new__(cls)
        self._client = create_request_client(
            profile, client_class=AsyncHeksherClient, url_name="url", path=path, **overrides
        )
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.service_url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @property
    def closed(self) -> bool:
        """True if the client is closed."""
        return self._client.closed

    @property
    def service_url(self) -> str:
        """The URL of the service, without user name and password."""
        return async_client.internals(self._client).session.service_url

    async def ping(self, *, timeout: float | None = None) -> None:
        """Check that the service is healthy. The error is an `httpx.HTTPError` as well."""
        await self._client.ping(timeout=timeout)

    # -- context features ----------------------------------------------------------------------------------------------

    async def context_features(self) -> tuple[str, ...]:
        """Return the context features, in the order of the service."""
        return await self._run(self._flows.context_features())

    async def add_context_feature(self, name: str) -> None:
        """Add a context feature after all others: rules with a condition on it are stronger than those without."""
        await self._run(self._flows.add_context_feature(name))

    async def move_context_feature(self, name: str, *, before: str | None = None, after: str | None = None) -> None:
        """Move a context feature before or after another one. This changes which rules win."""
        await self._run(self._flows.move_context_feature(name, before, after))

    async def delete_context_feature(self, name: str) -> None:
        """Delete a context feature that no setting is configurable by."""
        await self._run(self._flows.delete_context_feature(name))

    # -- settings ------------------------------------------------------------------------------------------------------

    async def settings(self) -> dict[str, SettingData]:
        """Return all settings by name, without their rules."""
        return await self._run(self._flows.settings())

    async def setting(self, setting: SettingOrName) -> SettingData | None:
        """Return a setting, without its rules; None if it does not exist."""
        return await self._run(self._flows.setting(setting))

    async def rename_setting(self, setting: SettingOrName, new_name: str, *, version: str) -> None:
        """Rename a setting. Its former name becomes an alias, by which older programs go on reading it."""
        await self._run(self._flows.rename_setting(setting, new_name, version))

    async def set_setting_type(self, setting: SettingOrName, new_type: Any, *, version: str) -> None:
        """Change the type of a setting, if its default value and the values of its rules are of the new type."""
        await self._run(self._flows.set_setting_type(setting, new_type, version))

    async def set_configurable_features(self, setting: SettingOrName, features: Iterable[str], *, version: str) -> None:
        """Change the configurable features of a setting, if no rule has a condition on a removed one."""
        await self._run(self._flows.set_configurable_features(setting, features, version))

    async def delete_setting(self, setting: SettingOrName) -> None:
        """Delete a setting with its rules and aliases."""
        await self._run(self._flows.delete_setting(setting))

    async def add_setting_metadata(self, setting: SettingOrName, metadata: Mapping[str, Any], *, version: str) -> None:
        """Add metadata to a setting, and replace those with the same keys."""
        await self._run(self._flows.add_setting_metadata(setting, metadata, version))

    async def replace_setting_metadata(
        self, setting: SettingOrName, metadata: Mapping[str, Any], *, version: str
    ) -> None:
        """Replace all metadata of a setting."""
        await self._run(self._flows.replace_setting_metadata(setting, metadata, version))

    async def delete_setting_metadata(self, setting: SettingOrName, key: str, *, version: str) -> None:
        """Delete a key of a setting's metadata."""
        await self._run(self._flows.delete_setting_metadata(setting, key, version))

    async def create_setting(
        self,
        name: str,
        type: Any,
        default_value: Any,
        configurable_features: Iterable[str],
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Create a setting, so that it can have rules before a program declares it."""
        flow = self._flows.create_setting(
            name, type, default_value, configurable_features, {} if metadata is None else metadata
        )
        return await self._run(flow)

    async def add_alias(self, setting: SettingOrName, alias: str) -> None:
        """Add an alias to a setting, by which programs can read it as well."""
        await self._run(self._flows.add_alias(setting, alias))

    async def delete_alias(self, setting: SettingOrName, alias: str) -> None:
        """Delete an alias of a setting. Programs can no longer read the setting by it."""
        await self._run(self._flows.delete_alias(setting, alias))

    # -- rules ---------------------------------------------------------------------------------------------------------

    async def rules(
        self,
        setting: SettingOrName,
        conditions: Mapping[str, str] | None = None,
        *,
        sort: str = "rule",
        **criteria: Unpack[RuleCriteria],
    ) -> tuple[RuleRecord, ...]:
        """Return the rules of a setting, without their ETags."""
        checked = _checked_rule_criteria("rules", criteria)
        return await self._run(self._flows.rules(setting, {} if conditions is None else conditions, checked, sort))

    async def rule_page(
        self,
        setting: SettingOrName,
        conditions: Mapping[str, str] | None = None,
        *,
        sort: str = "priority",
        limit: int = 100,
        offset: int = 0,
        **criteria: Unpack[RuleCriteria],
    ) -> RulePage:
        """Return some of the rules of a setting, without their ETags, and the number of all."""
        checked = _checked_rule_criteria("rule_page", criteria)
        flow = self._flows.rule_page(setting, {} if conditions is None else conditions, checked, sort, limit, offset)
        return await self._run(flow)

    async def temporary_rules(self) -> dict[str, tuple[RuleRecord, ...]]:
        """Return the rules of all settings that have a start or an end, by the name of the setting."""
        return await self._run(self._flows.temporary_rules())

    async def search(self, text: str, *, limit: int = 20, offset: int = 0) -> SearchResult:
        """Search for a text in all settings, and in their rules."""
        return await self._run(self._flows.search(text, limit, offset))

    async def rule(self, rule_id: int) -> RuleRecord | None:
        """Return a rule by its ID; None if it does not exist."""
        return await self._run(self._flows.rule(rule_id))

    async def find_rule(self, setting: SettingOrName, conditions: Mapping[str, str]) -> RuleRecord | None:
        """Return the rule of a setting with exactly these conditions; None if it does not exist."""
        return await self._run(self._flows.find_rule(setting, conditions))

    @overload
    async def add_rule(
        self,
        setting: Setting[T],
        value: T,
        conditions: Mapping[str, str],
        *,
        metadata: Mapping[str, Any] | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        comment: str | None = None,
        link: str | None = None,
    ) -> int: ...
    @overload
    async def add_rule(
        self,
        setting: str,
        value: Any,
        conditions: Mapping[str, str],
        *,
        metadata: Mapping[str, Any] | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        comment: str | None = None,
        link: str | None = None,
    ) -> int: ...
    async def add_rule(
        self,
        setting: SettingOrName,
        value: Any,
        conditions: Mapping[str, str],
        *,
        metadata: Mapping[str, Any] | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        comment: str | None = None,
        link: str | None = None,
    ) -> int:
        """Add a rule to a setting, and return its ID."""
        all_metadata = _with_reason(metadata, comment, link)
        period = _period(starts_at, ends_at)
        return await self._run(self._flows.add_rule(setting, value, conditions, all_metadata, period))

    @overload
    async def set_rule(self, rule_id: int, value: T, *, setting: Setting[T], etag: str | None = None) -> None: ...
    @overload
    async def set_rule(
        self, rule_id: int, value: Any, *, setting: str | None = None, etag: str | None = None
    ) -> None: ...
    async def set_rule(
        self, rule_id: int, value: Any, *, setting: SettingOrName | None = None, etag: str | None = None
    ) -> None:
        """Change the value of a rule."""
        await self._run(self._flows.set_rule(rule_id, value, etag, setting))

    async def change_rule(
        self,
        rule_id: int,
        *,
        setting: SettingOrName | None = None,
        etag: str | None = None,
        **changes: Unpack[RuleChanges],
    ) -> None:
        """Change several attributes of a rule at once, with one entry in the log of changes."""
        await self._run(self._flows.change_rule(rule_id, _checked_changes(changes), etag, setting))

    async def set_rule_conditions(
        self, rule_id: int, conditions: Mapping[str, str], *, etag: str | None = None
    ) -> None:
        """Change the conditions of a rule."""
        await self._run(self._flows.set_rule_conditions(rule_id, conditions, etag))

    async def set_rule_period(
        self, rule_id: int, *, starts_at: datetime | None, ends_at: datetime | None, etag: str | None = None
    ) -> None:
        """Change the period in which a rule applies."""
        await self._run(self._flows.set_rule_period(rule_id, _period(starts_at, ends_at), etag))

    async def remove_rule(
        self, rule_id: int, *, comment: str | None = None, link: str | None = None, etag: str | None = None
    ) -> None:
        """Remove a rule."""
        await self._run(self._flows.remove_rule(rule_id, etag, _reason(comment, link)))

    async def add_rule_metadata(self, rule_id: int, metadata: Mapping[str, Any], *, etag: str | None = None) -> None:
        """Add metadata to a rule, and replace those with the same keys."""
        await self._run(self._flows.add_rule_metadata(rule_id, metadata, etag))

    async def replace_rule_metadata(
        self, rule_id: int, metadata: Mapping[str, Any], *, etag: str | None = None
    ) -> None:
        """Replace all metadata of a rule."""
        await self._run(self._flows.replace_rule_metadata(rule_id, metadata, etag))

    async def delete_rule_metadata(self, rule_id: int, key: str, *, etag: str | None = None) -> None:
        """Delete a key of a rule's metadata."""
        await self._run(self._flows.delete_rule_metadata(rule_id, key, etag))

    # -- tokens --------------------------------------------------------------------------------------------------------

    async def tokens(self) -> tuple[TokenRecord, ...]:
        """Return all access tokens, sorted by name, without their texts."""
        return await self._run(self._flows.tokens())

    async def create_token(self, name: str, role: str = "declare", *, lifetime: timedelta | None = None) -> str:
        """Create an access token, and return its text, which the service does not store."""
        seconds = None if lifetime is None else lifetime.total_seconds()
        return await self._run(self._flows.create_token(name, role, seconds))

    async def revoke_token(self, name: str) -> None:
        """Revoke an access token. The service refuses it within a second."""
        await self._run(self._flows.revoke_token(name))

    # -- everything ----------------------------------------------------------------------------------------------------

    async def service_state(self, on_progress: Callable[[int, int], object] | None = None) -> ServiceState:
        """Return the context features, and all settings with their rules."""
        return await self._run(self._flows.service_state(on_progress))

    async def compare(
        self,
        first: Mapping[str, str],
        second: Mapping[str, str],
        *,
        include_equal: bool = False,
        on_progress: Callable[[int, int], object] | None = None,
    ) -> tuple[ComparedValues, ...]:
        """Return the values of all settings that differ in two contexts, sorted by setting."""
        return await self._run(self._flows.compare(first, second, include_equal, on_progress))

    async def export(self) -> dict[str, Any]:
        """Return everything as a document of JSON values, which `import_document` and `heksher-client diff` read."""
        return await self._run(self._flows.export())

    async def import_document(
        self, document: Mapping[str, Any], *, exact: bool = False, dry_run: bool = False, revision: int | None = None
    ) -> ImportResult:
        """Make all changes that a document requires, in one transaction."""
        return await self._run(self._flows.import_document(document, exact=exact, dry_run=dry_run, revision=revision))

    async def changes(
        self, *, after: int = 0, limit: int = 100, **criteria: Unpack[ChangeCriteria]
    ) -> tuple[ChangeRecord, ...]:
        """Return the first changes that meet all criteria, the oldest first."""
        return await self._run(self._flows.changes(after, limit, _checked_criteria("changes", criteria)))

    async def latest_changes(
        self, *, before: int | None = None, limit: int = 100, **criteria: Unpack[ChangeCriteria]
    ) -> tuple[ChangeRecord, ...]:
        """Return the last changes that meet all criteria, the latest first."""
        return await self._run(self._flows.latest_changes(before, limit, _checked_criteria("latest_changes", criteria)))

    @property
    def _flows(self) -> Administration:
        return Administration(async_client.internals(self._client).session.requests)

    async def _run(self, flow: Flow[T]) -> T:
        wakeup.running_loop("AsyncAdminClient", "an AdminClient")
        return await async_client.internals(self._client).run(flow)
