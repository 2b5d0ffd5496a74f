"""The versioning rules: the outcome of a declaration of a setting that exists already.

A higher version upgrades the setting. A minor upgrade may contain minor differences only, a major upgrade all
differences that the rules of the setting permit. A lower version is outdated; the response lists the changes since
then. The same version must not have any differences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heksher_client._json_values import is_equal
from heksher_client.service.setting_types import SettingType

Difference = dict[str, Any]
_LEVELS = ("minor", "major", "mismatch")


@dataclass(frozen=True, slots=True)
class Declaration:
    """The declaration of a setting, by a client or stored."""

    name: str
    configurable_features: tuple[str, ...]
    type: SettingType
    default_value: Any
    metadata: Mapping[str, Any]
    version: str

    @property
    def version_number(self) -> tuple[int, int]:
        return parse_version(self.version)


@dataclass(frozen=True, slots=True)
class ExistingRules:
    """The rules of a setting, as far as a new declaration must fit them."""

    ids_by_feature: Mapping[str, Sequence[int]]
    """The ids of the rules with a condition on a context feature."""
    values: Mapping[int, Any]
    """The values of the rules by id."""


@dataclass(slots=True)
class DeclarationResult:
    """The outcome of a declaration, and the other fields of the response."""

    outcome: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def is_conflict(self) -> bool:
        return self.outcome in ("rejected", "mismatch")


def parse_version(version: str) -> tuple[int, int]:
    """Return the major and minor number: `"1.10"` is higher than `"1.9"`, and `"1.01"` equals `"1.1"`."""
    major, minor = version.split(".")
    return int(major), int(minor)


def compare(declared: Declaration, stored: Declaration, rules: Callable[[], ExistingRules]) -> DeclarationResult:
    """Compare a declaration with the stored one.

    Args:
        declared: The declaration of a client.
        stored: The stored declaration.
        rules: Reads the rules of the setting, if they are needed.
    """
    if declared.version_number < stored.version_number:
        differences = _flatten(_differences(stored, declared, stored, None))
        return DeclarationResult("outdated", {"latest_version": stored.version, "differences": differences})
    by_level = _differences(declared, stored, stored, rules())
    differences = _flatten(by_level)
    if declared.version_number == stored.version_number:
        if not differences:
            return DeclarationResult("uptodate")
        return DeclarationResult("mismatch", {"differences": differences})
    is_major = declared.version_number[0] > stored.version_number[0]
    is_accepted = not by_level["mismatch"] and (is_major or not by_level["major"])
    details = {"previous_version": stored.version, "differences": differences}
    return DeclarationResult("upgraded" if is_accepted else "rejected", details)


def type_conflicts(stored: Declaration, new: SettingType, values: Mapping[str, Any], *, is_major: bool) -> list[str]:
    """Return the reasons why the type of a setting cannot be changed; an empty list if it can.

    Args:
        stored: The declaration of the setting.
        new: The new type.
        values: The values of the setting's rules, by a description of the rule.
        is_major: Whether the major version is increased, which permits types that are not subtypes.
    """
    conflicts = []
    if not is_major and not new.is_subtype_of(stored.type):
        conflicts.append(f"cannot change type to non-subtype {new} in a minor version bump")
    if not new.accepts(stored.default_value):
        conflicts.append(f"the default value {stored.default_value} does not match the new type")
    conflicts += [f"{rule} has incompatible value {value}" for rule, value in values.items() if not new.accepts(value)]
    return conflicts


def _differences(  # noqa: C901 - the rules of the reference implementation, one after the other
    new: Declaration, old: Declaration, stored: Declaration, rules: ExistingRules | None
) -> dict[str, list[Difference]]:
    """Return the differences between two declarations, by level.

    Args:
        new: The declaration with the higher version.
        old: The declaration with the lower version.
        stored: Whichever of the two is stored. The differences contain its values.
        rules: The rules of the setting, if the new declaration must fit them.
    """
    differences: dict[str, list[Difference]] = {level: [] for level in _LEVELS}

    def add(level: str, attribute: str, value: Any) -> None:
        differences[level].append({"level": level, "attribute": attribute, "latest_value": value})

    def add_message(level: str, message: str) -> None:
        differences[level].append({"level": level, "message": message})

    removed = sorted(set(old.configurable_features) - set(new.configurable_features))
    in_use = sorted({i for feature in removed for i in rules.ids_by_feature.get(feature, ())} if rules else ())
    if in_use:
        add_message("mismatch", f"configurable features {removed} are still in use by rules {in_use}")
    elif set(new.configurable_features) - set(old.configurable_features):
        add("major", "configurable_features", list(stored.configurable_features))
    elif removed:
        add_message("minor", f"removal of configurable features {removed}")

    if new.type != old.type:
        invalid = sorted(i for i, value in rules.values.items() if not new.type.accepts(value)) if rules else []
        if new.type.is_subtype_of(old.type):
            add("minor", "type", str(stored.type))
        elif invalid:
            add_message("mismatch", f"setting type incompatible with values for rules: {invalid}")
        else:
            add("major", "type", str(stored.type))

    if new.name != old.name:
        add("minor", "name", stored.name)
    if not is_equal(new.default_value, old.default_value):
        add("minor", "default_value", stored.default_value)
    if not is_equal(new.metadata, old.metadata):
        add("minor", "metadata", dict(stored.metadata))
    return differences


def _flatten(by_level: Mapping[str, list[Difference]]) -> list[Difference]:
    return [difference for level in _LEVELS for difference in by_level[level]]
