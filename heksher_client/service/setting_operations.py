"""Operations on settings that the API and the console share: check a change, and make it.

Each change of a declaration needs a higher version. Declarations of older versions are outdated then, so that programs
which still have them do not revert the change.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select

from heksher_client.service import store
from heksher_client.service.declarations import Declaration, parse_version, type_conflicts
from heksher_client.service.routing import RequestError
from heksher_client.service.schema import SETTINGS
from heksher_client.service.setting_types import SettingType
from heksher_client.service.store import StoredRule, StoredSetting


def next_versions(setting: StoredSetting) -> tuple[str, str]:
    """Return the next minor and the next major version of a setting."""
    major, minor = setting.declaration.version_number
    return f"{major}.{minor + 1}", f"{major + 1}.0"


def create(connection: Connection, declaration: Declaration) -> None:
    """Add a setting, as its first declaration does.

    Raises:
        RequestError: The name is taken, or a context feature does not exist.
    """
    if store.setting(connection, declaration.name) is not None:
        raise RequestError(409, "name already exists")
    _check_features(connection, declaration.configurable_features)
    store.add_setting(connection, declaration)


def rename(connection: Connection, setting: StoredSetting, name: str, version: str) -> None:
    """Rename a setting, also to one of its aliases. The former name becomes an alias.

    Raises:
        RequestError: The name is taken, or the version is not high enough.
    """
    is_own = name in (setting.declaration.name, *setting.aliases)
    if _is_repeated(setting, version, is_same=is_own):
        return
    if not is_own and store.setting(connection, name) is not None:
        raise RequestError(409, "name already exists")
    _update(connection, setting, version, name=name)


def set_type(connection: Connection, setting: StoredSetting, new: SettingType, version: str) -> list[str]:
    """Change the type of a setting, and return an empty list. If values do not fit, return the reasons.

    Raises:
        RequestError: The version is not high enough.
    """
    if _is_repeated(setting, version, is_same=new == setting.declaration.type):
        return []
    is_major = parse_version(version)[0] > setting.declaration.version_number[0]
    order = store.context_features(connection)
    rules = store.rules(connection, [setting.id])
    values = {f"rule {rule.id} ({list(map(tuple, rule.conditions_in(order)))})": rule.value for rule in rules}
    if conflicts := type_conflicts(setting.declaration, new, values, is_major=is_major):
        return conflicts
    _update(connection, setting, version, type=new)
    return []


def set_features(connection: Connection, setting: StoredSetting, names: Iterable[str], version: str) -> None:
    """Change the configurable features of a setting.

    Raises:
        RequestError: A context feature does not exist, a rule has a condition on a removed one, or the version is not
            high enough.
    """
    features, former = dict.fromkeys(names), setting.declaration.configurable_features
    if _is_repeated(setting, version, is_same=features.keys() == set(former)):
        return
    _check_features(connection, features)
    removed = [feature for feature in former if feature not in features]
    rules = store.rules(connection, [setting.id]) if removed else []
    in_use = [rule.id for feature in removed for rule in rules if feature in dict(rule.conditions)]
    if in_use:
        raise RequestError(409, f"Configurable features {_as_set(removed)} are in use by rules {in_use}")
    if features.keys() - set(former) and parse_version(version)[0] == setting.declaration.version_number[0]:
        raise RequestError(409, "Cannot add new configurable features on a minor version bump")
    _update(connection, setting, version, configurable_features=tuple(features))


def set_default_value(connection: Connection, setting: StoredSetting, value: Any, version: str) -> None:
    """Change the default value of a setting, as a declaration with a higher version does.

    Raises:
        RequestError: The value is not of the type of the setting, or the version is not higher.
    """
    _is_repeated(setting, version)
    type_ = setting.declaration.type
    if not type_.accepts(value):
        raise RequestError(400, f"default value is incompatible with setting type {type_}")
    _update(connection, setting, version, default_value=value)


def set_metadata(connection: Connection, setting: StoredSetting, metadata: Mapping[str, Any], version: str) -> None:
    """Replace the metadata of a setting.

    Raises:
        RequestError: The version is not higher.
    """
    _is_repeated(setting, version)
    _update(connection, setting, version, metadata=metadata)


def add_alias(connection: Connection, setting: StoredSetting, alias: str) -> None:
    """Add an alias to a setting, unless it has it already. The version stays the same: declarations have no aliases.

    Raises:
        RequestError: The alias is the name of a setting, or an alias of another one.
    """
    if alias in setting.aliases:
        return
    if (other := store.setting(connection, alias)) is not None:
        raise RequestError(409, f"{alias} is already a name of the setting {other.declaration.name}")
    store.add_alias(connection, setting, alias)


def delete_alias(connection: Connection, setting: StoredSetting, alias: str) -> None:
    """Delete an alias of a setting.

    Raises:
        RequestError: The setting does not have the alias.
    """
    if alias not in setting.aliases:
        raise RequestError(404, f"the alias {alias} of the setting {setting.declaration.name} does not exist")
    store.delete_alias(connection, setting, alias)


def content_tag(connection: Connection, setting: StoredSetting) -> str:
    """Return a tag of a setting and its rules, which each change of either replaces."""
    tag: str = connection.execute(select(SETTINGS.c.tag).where(SETTINGS.c.id == setting.id)).scalar_one()
    return tag


def rules_not_of_type(connection: Connection, setting: StoredSetting, type_: SettingType) -> list[StoredRule]:
    """Return the rules of a setting whose values are not of a type."""
    return [rule for rule in store.rules(connection, [setting.id]) if not type_.accepts(rule.value)]


def rules_with_conditions_on(
    connection: Connection, setting: StoredSetting, features: Collection[str]
) -> list[StoredRule]:
    """Return the rules of a setting with a condition on at least one of several context features."""
    rules = store.rules(connection, [setting.id]) if features else []
    return [rule for rule in rules if any(feature in features for feature, _ in rule.conditions)]


def _is_repeated(setting: StoredSetting, version: str, *, is_same: bool = False) -> bool:
    """Return True if a change has the version and the content of the setting, so there is nothing to do.

    Args:
        setting: The setting.
        version: The version of the change.
        is_same: Whether the setting already has the content.

    Raises:
        RequestError: The version is lower, or it is the same and the content is not.
    """
    stored, name = setting.declaration.version_number, setting.declaration.name
    if parse_version(version) < stored:
        message = f"the setting {name} is at a higher version than the request"
        # The reference implementation writes a tuple.
        raise RequestError(409, f"{message} ({stored})", shown=f"{message} ({setting.declaration.version})")
    if parse_version(version) > stored:
        return False
    if not is_same:
        raise RequestError(409, f"the setting {name} is at version {version} already")
    return True


def _update(connection: Connection, setting: StoredSetting, version: str, **attributes: Any) -> None:
    store.update_setting(connection, setting, replace(setting.declaration, version=version, **attributes))


def _check_features(connection: Connection, names: Iterable[str]) -> None:
    if unknown := set(names) - set(store.context_features(connection)):
        raise RequestError(404, f"{unknown} are not acceptable context features")


def _as_set(names: Iterable[str]) -> str:
    """Return names as the reference implementation writes them, but sorted."""
    return "{" + ", ".join(repr(name) for name in sorted(names)) + "}"
