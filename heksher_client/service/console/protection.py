"""Protected values: those that operators change only after they have seen a preview.

The metadata of a setting or a rule say so: `protected: true`, and for some of a setting's contexts
`protected_contexts: {"environment": ["prod"]}`.
"""

from collections.abc import Mapping
from typing import Any, Final

from heksher_client.service.store import StoredRule, StoredSetting

KEYS: Final = ("protected", "protected_contexts")
"""The metadata keys of a setting that protect its values."""


def is_any_protected(setting: StoredSetting) -> bool:
    """Return True if the metadata of a setting protect any of its values."""
    return any(setting.declaration.metadata.get(key) for key in KEYS)


def is_protected(setting: StoredSetting, rule: StoredRule) -> bool:
    """Return True if a rule is protected, or affects a protected context of its setting.

    A rule without a condition on a feature affects all of its values, so it affects the protected ones. If metadata
    cannot be understood, all rules are protected: an unnecessary preview does no harm.
    """
    metadata = setting.declaration.metadata
    if metadata.get("protected") or rule.metadata.get("protected"):
        return True
    contexts = metadata.get("protected_contexts") or {}
    if not isinstance(contexts, Mapping):
        return True
    conditions = dict(rule.conditions)
    return any(_affects(conditions.get(feature), values) for feature, values in contexts.items())


def _affects(required: str | None, protected: Any) -> bool:
    values = [protected] if isinstance(protected, str) else protected
    return required is None or not isinstance(values, list) or required in values
