"""The comparison of two contexts, and the copy of rules from one to the other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection

from heksher_client._core.settings.context_comparison import (
    ComparedRule,
    ComparedSetting,
    CopyKind,
    PlannedCopy,
    ValuePair,
    compare_contexts,
    copied_metadata,
    plan_copy,
)
from heksher_client._core.settings.context_values import normalize
from heksher_client.service import json_values, rule_search, store
from heksher_client.service.changes import record_together
from heksher_client.service.console.forms import Form, condition_errors, text
from heksher_client.service.console.inputs import Fields
from heksher_client.service.console.listing import PAGE_SIZE, Listing, listing, redirect_back
from heksher_client.service.console.pages.settings import Revision
from heksher_client.service.console.rendering import page
from heksher_client.service.console.rule_form import NOTE, read_note
from heksher_client.service.history import read_state
from heksher_client.service.operations import rule_etag
from heksher_client.service.routing import Conditions, RequestDatabase, RequestError
from heksher_client.service.store import StoredRule, StoredSetting

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_PATH: Final = "console/compare"
_CONDITIONS: Final[TypeAdapter[Mapping[str, str]]] = TypeAdapter(Conditions)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Two contexts, and the settings to compare."""

    state: Listing
    """The state of the page with the comparison."""
    first: Mapping[str, str]
    second: Mapping[str, str]
    order: Sequence[str]
    """The context features."""
    settings: Mapping[str, StoredSetting]
    """By name: all, or those whose names contain a text."""
    rules: Mapping[int, StoredRule]
    """By id: all that concern the comparison."""
    compared: Sequence[ComparedSetting]
    """The same settings and rules."""

    @classmethod
    def read(cls, connection: Connection, request: Request, form: Fields | None = None) -> "_Comparison":
        """Read the settings and their rules.

        Args:
            connection: The connection of the transaction.
            request: The request.
            form: The submitted form, if any, whose field `back` is the address of the comparison.
        """
        order = store.context_features(connection)
        names = [f"{side}.{feature}" for side in ("a", "b") for feature in order]
        state = listing(request, _PATH, [*names, "q", "all"], form=form)
        first, second = (
            {feature: normalize(value) for feature, value in state.values(f"{side}.", order).items()}
            for side in ("a", "b")
        )
        q = state["q"].lower()
        all_settings = store.settings(connection) if first or second else []
        settings = {setting.declaration.name: setting for setting in all_settings
                    if q in setting.declaration.name.lower()}  # fmt: skip
        ids = [setting.id for setting in settings.values()] if q else None
        # Other rules match neither context, are not copied, and are not like a copy.
        values = {feature: {value, second.get(feature, value)} for feature, value in first.items()}
        rules = rule_search.rules_with_values(connection, values, ids) if settings else []
        compared = _compared(settings, rules, order)
        return cls(state, first, second, order, settings, {rule.id: rule for rule in rules}, compared)

    def pairs(self) -> list[ValuePair]:
        """Return all pairs of values."""
        return list(compare_contexts(self.compared, self.order, self.first, self.second))

    def plan(self) -> list[PlannedCopy]:
        """Return the plan of a copy; empty unless both contexts are given, and are different."""
        if not self.first or not self.second or self.first == self.second:
            return []
        return list(plan_copy(self.compared, self.order, self.first, self.second))

    def swapped(self) -> str:
        """Return the address of the comparison with the contexts exchanged."""
        sides = {"a": self.second, "b": self.first}
        contexts = {f"{side}.{feature}": context.get(feature, "")
                    for side, context in sides.items() for feature in self.order}  # fmt: skip
        return self.state.link(page="", **contexts)


def _compared(
    settings: Mapping[str, StoredSetting], rules: Iterable[StoredRule], order: Sequence[str]
) -> list[ComparedSetting]:
    """Return settings with their rules in the form that can be compared."""
    by_setting: dict[int, list[ComparedRule]] = {}
    for rule in rules:
        conditions = dict(rule.conditions_in(order))
        compared = ComparedRule(rule.id, conditions, rule.value, rule.period, rule.in_effect)
        by_setting.setdefault(rule.setting_id, []).append(compared)
    return [
        ComparedSetting(
            name,
            setting.declaration.default_value,
            setting.declaration.configurable_features,
            by_setting.get(setting.id, []),
        )
        for name, setting in settings.items()
    ]


@router.get("/compare")
def compare(request: Request, database: RequestDatabase, done: Revision = 0) -> Response:
    """Show the values of settings in two contexts, and the rules that can be copied from one to the other."""
    with database.read() as connection:
        comparison = _Comparison.read(connection, request)
        state = comparison.state
        pairs = comparison.pairs()
        different = [pair for pair in pairs if pair.is_different]
        shown = pairs if state["all"] else different
        pages = state.pages(len(shown))
        plan = comparison.plan()
        changes = [step for step in plan if step.is_change]
        return page(
            request,
            "compare.html",
            connection,
            listing=state,
            first=comparison.first,
            second=comparison.second,
            swapped=comparison.swapped(),
            compared=len(comparison.settings),
            different=len({pair.setting for pair in different}),
            rows=[_row(pair, comparison) for pair in shown[pages.offset : pages.offset + PAGE_SIZE]],
            pages=pages,
            copies=changes[:PAGE_SIZE],
            copies_found=len(changes),
            planned=len(plan),
            skipped=[step for step in plan if step.kind is CopyKind.SKIPPED],
            done=done,
        )


def _row(pair: ValuePair, comparison: _Comparison) -> tuple[ValuePair, str, str]:
    """Return a pair, and the addresses that explain its values."""
    return pair, _explanation(pair, comparison.first), _explanation(pair, comparison.second)


def _explanation(pair: ValuePair, context: Mapping[str, str]) -> str:
    query = urlencode({f"on.{feature}": value for feature, value in {**context, **pair.further}.items()})
    return f"console/settings/{pair.setting}?{query}#why-title"


# -- copy --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Preview:
    """The copies that an operator has selected."""

    comparison: _Comparison
    copies: Sequence[PlannedCopy]
    selection: Sequence[tuple[str, str]]
    """The fields that select them: `rule` with the id of each, or `every`."""

    @classmethod
    def read(cls, connection: Connection, request: Request, form: Fields | None = None) -> "_Preview":
        """Read the rules, and select copies.

        Args:
            connection: The connection of the transaction.
            request: The request, whose query has the selection.
            form: The submitted form, if any, which has it instead.
        """
        comparison = _Comparison.read(connection, request, form)
        changes = [step for step in comparison.plan() if step.is_change]
        query = request.query_params
        fields = {name: query.getlist(name) for name in ("rule", "every")} if form is None else form
        if fields.get("every"):
            return cls(comparison, changes, [("every", "1")])
        selected = set(fields.get("rule", []))
        changes = [step for step in changes if str(step.rule.rule_id) in selected]
        return cls(comparison, changes, [("rule", str(step.rule.rule_id)) for step in changes])

    def digest(self) -> str:
        """Return a text that changes if one of the copied rules, or one of those that they replace, changes."""
        return sha256(json_values.encode([self._etags(step) for step in self.copies])).hexdigest()

    def _etags(self, step: PlannedCopy) -> list[Any]:
        rules = [step.rule, step.existing]
        etags = [None if rule is None else rule_etag(self.comparison.rules[rule.rule_id]) for rule in rules]
        return [*etags, dict(step.conditions)]


@router.get("/compare/copy")
def preview_copy(request: Request, database: RequestDatabase) -> Response:
    """Show what the copy of rules would change."""
    with database.read() as connection:
        return _preview_page(request, connection, _Preview.read(connection, request))


def _preview_page(
    request: Request,
    connection: Connection,
    preview: _Preview,
    *,
    status: int = 200,
    form: Fields | None = None,
    errors: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return the page with the changes.

    Args:
        request: The request.
        connection: The connection of the transaction.
        preview: The changes.
        status: The status of the response.
        form: The submitted form, if the changes are no longer those that were confirmed, or if it has errors.
        errors: The errors in its comment and link.
    """
    comparison, copies = preview.comparison, preview.copies
    return page(
        request,
        "copy.html",
        connection,
        status=status,
        first=comparison.first,
        second=comparison.second,
        back=comparison.state.link(),
        copies=copies[:PAGE_SIZE],
        found=len(copies),
        added=sum(step.kind is CopyKind.ADDED for step in copies),
        hidden=[*preview.selection, ("shown", preview.digest())],
        notes={name: text(form or {}, name) for name in NOTE} | {"errors": errors},
        has_changed=form is not None and not errors,
    )


@router.post("/compare/copy")
def copy_rules(request: Request, database: RequestDatabase, form: Form) -> Response:
    """Copy rules, if the changes are those that the page has shown."""
    with database.read() as connection:  # So that nobody waits for a page.
        found = _confirmed(request, connection, form)
    if isinstance(found, Response):
        return found
    with database.write() as connection:
        preview = _confirmed(request, connection, form)
        if isinstance(preview, Response):
            return preview
        with record_together(connection):
            _copy(connection, preview.comparison, preview.copies, read_note(form, {}))
        return redirect_back(request, form, _PATH, read_state(connection).revision)


def _confirmed(request: Request, connection: Connection, form: Fields) -> _Preview | Response:
    """Return the copies that a form confirms, or the page that shows them if they are others or the form has errors."""
    preview = _Preview.read(connection, request, form)
    if not preview.copies or text(form, "shown") != preview.digest():
        return _preview_page(request, connection, preview, status=409, form=form)
    errors: dict[str, str] = {}
    read_note(form, errors)
    if errors:
        return _preview_page(request, connection, preview, status=422, form=form, errors=errors)
    return preview


def _copy(
    connection: Connection, comparison: _Comparison, copies: Iterable[PlannedCopy], notes: Mapping[str, str]
) -> None:
    """Make the changes of a plan.

    Raises:
        RequestError: A rule may not have the conditions.
    """
    for step in copies:
        setting, source = comparison.settings[step.setting], comparison.rules[step.rule.rule_id]
        try:
            conditions = _CONDITIONS.validate_python(step.conditions)
        except ValidationError as error:
            problem = ", ".join(condition_errors(error).values())
            message = f"rule {source.id} of the setting {step.setting} cannot be copied: {problem}; nothing was copied"
            raise RequestError(422, message) from None
        if step.existing is None:
            metadata = copied_metadata(source.metadata, {}, notes)
            store.add_rule(connection, setting, conditions, source.value, metadata, period=source.period)
        else:
            existing = comparison.rules[step.existing.rule_id]
            metadata = copied_metadata(source.metadata, existing.metadata, notes)
            store.change_rule(
                connection, setting, existing, value=source.value, metadata=metadata, period=source.period
            )
