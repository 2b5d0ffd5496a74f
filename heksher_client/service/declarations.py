"""What a declaration means for a setting that the service has: the rules of versions.

A declaration of a higher version upgrades the setting: a minor version by minor differences alone, a major one by any
that the setting's rules allow. One of a lower version is outdated, and is told what has changed since. One of the same
version must be the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heksher_client.service.json_values import is_equal
from heksher_client.service.setting_types import SettingType

Difference = dict[str, Any]
_LEVELS = ("minor", "major", "mismatch")


@dataclass(frozen=True, slots=True)
class Declaration:
    """A setting as a client declares it, or as the service holds it."""

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
class Rules:
    """What the comparison has to know of the setting's rules."""

    features: Mapping[str, Sequence[int]]
    """The ids of the rules by the features that they have conditions on."""
    values: Mapping[int, Any]
    """The rules' values by id."""


@dataclass(slots=True)
class Verdict:
    """What becomes of a declaration."""

    outcome: str
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def is_conflict(self) -> bool:
        return self.outcome in ("rejected", "mismatch")


def parse_version(version: str) -> tuple[int, int]:
    """`"1.10"` is (1, 10), and higher than `"1.9"`; `"1.01"` is the same as `"1.1"`."""
    major, minor = version.split(".")
    return int(major), int(minor)


def judge(declared: Declaration, held: Declaration, rules: Callable[[], Rules]) -> Verdict:
    """Compare a declaration with the setting that the service holds."""
    if declared.version_number < held.version_number:
        differences = _in_order(_differences(held, declared, held, None))
        return Verdict("outdated", {"latest_version": held.version, "differences": differences})
    by_level = _differences(declared, held, held, rules())
    differences = _in_order(by_level)
    if declared.version_number == held.version_number:
        return Verdict("mismatch", {"differences": differences}) if differences else Verdict("uptodate")
    is_major = declared.version_number[0] > held.version_number[0]
    is_accepted = not by_level["mismatch"] and (is_major or not by_level["major"])
    body = {"previous_version": held.version, "differences": differences}
    return Verdict("upgraded" if is_accepted else "rejected", body)


def type_conflicts(held: Declaration, new: SettingType, values: Mapping[str, Any], *, is_major: bool) -> list[str]:
    """Why a setting cannot have another type.

    Args:
        held: The setting.
        new: The type.
        values: Those of the setting's rules, by what to call a rule.
        is_major: Whether the change is one of the major version, which may be to a type that is no subtype.
    """
    conflicts = []
    if not is_major and not new.is_subtype_of(held.type):
        conflicts.append(f"cannot change type to non-subtype {new} in a minor version bump")
    if not new.accepts(held.default_value):
        conflicts.append(f"the default value {held.default_value} does not match the new type")
    conflicts += [f"{rule} has incompatible value {value}" for rule, value in values.items() if not new.accepts(value)]
    return conflicts


def _differences(
    new: Declaration, old: Declaration, held: Declaration, rules: Rules | None
) -> dict[str, list[Difference]]:
    """How the new one differs from the old one, by the level of the difference.

    Args:
        new: The later of the two by its version.
        old: The earlier.
        held: The one of them that the service holds; its values are reported.
        rules: The setting's rules, if the new one is to apply to them.
    """
    found: dict[str, list[Difference]] = {level: [] for level in _LEVELS}

    def report(level: str, attribute: str, value: Any) -> None:
        found[level].append({"level": level, "attribute": attribute, "latest_value": value})

    def say(level: str, message: str) -> None:
        found[level].append({"level": level, "message": message})

    removed = sorted(set(old.configurable_features) - set(new.configurable_features))
    in_use = sorted({i for feature in removed for i in rules.features.get(feature, ())} if rules else ())
    if in_use:
        say("mismatch", f"configurable features {removed} are still in use by rules {in_use}")
    elif set(new.configurable_features) - set(old.configurable_features):
        report("major", "configurable_features", list(held.configurable_features))
    elif removed:
        say("minor", f"removal of configurable features {removed}")

    if new.type != old.type:
        unfit = sorted(i for i, value in rules.values.items() if not new.type.accepts(value)) if rules else []
        if new.type.is_subtype_of(old.type):
            report("minor", "type", str(held.type))
        elif unfit:
            say("mismatch", f"setting type incompatible with values for rules: {unfit}")
        else:
            report("major", "type", str(held.type))

    if new.name != old.name:
        report("minor", "name", held.name)
    if not is_equal(new.default_value, old.default_value):
        report("minor", "default_value", held.default_value)
    if not is_equal(new.metadata, old.metadata):
        report("minor", "metadata", dict(held.metadata))
    return found


def _in_order(by_level: Mapping[str, list[Difference]]) -> list[Difference]:
    return [difference for level in _LEVELS for difference in by_level[level]]
