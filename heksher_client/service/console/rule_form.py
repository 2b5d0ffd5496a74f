"""The form of a rule: its content, the errors in it, and the rule that it describes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.console.forms import condition_errors, text
from heksher_client.service.console.inputs import Fields, InputError, format_input, keep_line_breaks, parse_input
from heksher_client.service.json_values import is_identical
from heksher_client.service.routes.rules import NewRule
from heksher_client.service.routing import MAX_NOTE
from heksher_client.service.rule_period import Period
from heksher_client.service.store import StoredRule, StoredSetting

NOTE: Final = ("comment", "link")
"""The metadata keys of a rule with the reason for its last change."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The content of the form of a rule, with the errors in it."""

    conditions: Mapping[str, str]
    value: Sequence[str]
    errors: Mapping[str, str] = field(default_factory=dict)
    """The messages by the name of the input. The name is empty for errors of the whole form."""
    starts_at: str = ""
    ends_at: str = ""
    comment: str = ""
    link: str = ""
    existing: int | None = None
    """The id of another rule with the same conditions."""


class DraftError(ValueError):
    """A form does not describe a rule. Its draft has the errors."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self.draft = draft


def draft_of_rule(setting: StoredSetting, rule: StoredRule) -> Draft:
    """Return the content of the form that describes a rule."""
    comment, link = (_text_of(rule.metadata.get(key)) for key in NOTE)
    return Draft(
        dict(rule.conditions),
        format_input(setting.declaration.type, rule.value),
        starts_at=format_time(rule.period.starts_at),
        ends_at=format_time(rule.period.ends_at),
        comment=comment,
        link=link,
    )


def draft_of_form(form: Fields, setting: StoredSetting) -> Draft:
    """Return the content of a submitted form."""
    features = setting.declaration.configurable_features
    conditions = {feature: value for feature in features if (value := text(form, f"if.{feature}"))}
    return Draft(
        conditions,
        form.get("value", []),
        starts_at=text(form, "starts_at"),
        ends_at=text(form, "ends_at"),
        comment=text(form, "comment"),
        link=text(form, "link"),
    )


def removed_features(form: Fields, setting: StoredSetting) -> str:
    """Return the message about conditions on features that the setting is not configurable by; empty if there are none.

    Somebody may have removed a feature since the form was loaded. A rule without its condition would apply to more
    contexts than the operator has asked for.
    """
    features = setting.declaration.configurable_features
    removed = [name[3:] for name in form if name.startswith("if.") and name[3:] not in features and text(form, name)]
    if not removed:
        return ""
    conditions = ", ".join(f"{feature}={text(form, f'if.{feature}')}" for feature in removed)
    return f"the setting is no longer configurable by {', '.join(removed)}, so no rule can require {conditions}"


def read_rule(
    connection: Connection, form: Fields, setting: StoredSetting, former: StoredRule | None = None
) -> StoredRule:
    """Return the rule that a form describes. The id of a new rule is 0.

    Args:
        connection: The connection of the transaction.
        form: The fields of the form.
        setting: The setting of the rule.
        former: The rule that the form changes.

    Raises:
        DraftError: The form does not describe a rule, or another rule has the same conditions.
    """
    rule, errors = parse_rule(form, setting, former)
    if not errors:
        existing = store.find_rule(connection, setting.id, dict(rule.conditions))
        if existing is None or (former is not None and existing == former.id):
            return rule
        errors[""] = "A rule with these conditions already exists"
        raise DraftError(replace(draft_of_form(form, setting), errors=errors, existing=existing))
    raise DraftError(replace(draft_of_form(form, setting), errors=errors))


def parse_rule(
    form: Fields, setting: StoredSetting, former: StoredRule | None = None
) -> tuple[StoredRule, dict[str, str]]:
    """Return the rule that a form describes, and the errors in the form. With errors, the rule is incomplete."""
    draft = draft_of_form(form, setting)
    period = Period() if former is None else former.period
    errors: dict[str, str] = {}
    value = _read(errors, "value", lambda: parse_input(setting.declaration.type, draft.value))
    starts_at = _read(errors, "starts_at", lambda: _parse_time(draft.starts_at, period.starts_at))
    ends_at = _read(errors, "ends_at", lambda: _parse_time(draft.ends_at, period.ends_at))
    note = read_note(form, errors)
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        errors["ends_at"] = "the end must be after the start"
    conditions = dict(draft.conditions)
    try:
        new = NewRule(setting=setting.declaration.name, feature_values=conditions, value=value)
        conditions = new.feature_values
    except ValidationError as error:
        errors |= condition_errors(error)
    if removed := removed_features(form, setting):
        errors[""] = removed
    metadata = {} if former is None else dict(former.metadata)
    for key in NOTE:  # The form shows no other values than texts.
        if isinstance(metadata.get(key), str):
            del metadata[key]
    rule = StoredRule(0, setting.id, (), None, {}) if former is None else former
    value = keep_line_breaks(value, rule.value)
    period = Period(starts_at, ends_at)
    required = tuple(sorted(conditions.items()))
    return replace(rule, conditions=required, value=value, metadata=metadata | note, period=period), errors


def _read(errors: dict[str, str], name: str, parse: Callable[[], Any]) -> Any:
    """Return the parsed content of an input; None if it is invalid, which is added to the errors."""
    try:
        return parse()
    except InputError as error:
        errors[name] = str(error)
        return None


def read_note(form: Fields, errors: dict[str, str]) -> dict[str, str]:
    """Return the comment and the link in a form as metadata, as far as they are not empty. Add errors in them."""
    note = {key: content for key in NOTE if (content := text(form, key))}
    for key, content in note.items():
        if len(content) > MAX_NOTE:
            errors[key] = f"a {key} may have at most {MAX_NOTE:,} characters"
    if "link" in note and not note["link"].lower().startswith(("http://", "https://")):
        errors["link"] = "a link must begin with http:// or https://"
    return note


def read_value(form: Fields, setting: StoredSetting) -> tuple[Any, dict[str, str], dict[str, str]]:
    """Return the value and the note in a form that changes only these, and the errors in the form."""
    errors: dict[str, str] = {}
    value = _read(errors, "value", lambda: parse_input(setting.declaration.type, form.get("value", [])))
    return value, read_note(form, errors), errors


def with_value(rule: StoredRule, value: Any, note: Mapping[str, str]) -> StoredRule:
    """Return a rule with a value, and with a comment and a link as far as they are given.

    Those of the rule are the reason for its value, so another value does not keep them.
    """
    value = keep_line_breaks(value, rule.value)
    removed = () if is_identical(value, rule.value) else NOTE
    metadata = {key: content for key, content in rule.metadata.items() if key not in removed}
    return replace(rule, value=value, metadata={**metadata, **note})


def format_time(at: datetime | None) -> str:
    """Return a time in UTC as an input of the type `datetime-local` contains it; empty if there is none."""
    if at is None:
        return ""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds").removesuffix(":00")


def _parse_time(content: str, former: datetime | None) -> datetime | None:
    """Return the time in an input, which is in UTC unless it has an offset.

    Args:
        content: The content of the input.
        former: The time that the input was filled with. It may be more exact than the input.
    """
    if not content:
        return None
    try:
        at = datetime.fromisoformat(content)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError("not a date and a time, such as 2026-12-01T09:00") from None
    return former if former is not None and former.replace(microsecond=0) == at else at


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""
