"""The comparison of two contexts, and the copy of rules from one to the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection

from heksher_client._core.settings.context_comparison import (
    ComparedSetting,
    CopyKind,
    PlannedCopy,
    ValuePair,
    compare_contexts,
    copied_metadata,
    plan_copy,
)
from heksher_client._core.settings.context_values import normalize
from heksher_client.service import store
from heksher_client.service.compared_rules import read_comparison
from heksher_client.service.console.forms import Form, condition_errors, text
from heksher_client.service.console.inputs import Fields
from heksher_client.service.console.listing import PAGE_SIZE, Listing, listing
from heksher_client.service.console.pages.confirmation import Plan, carry_out, preview
from heksher_client.service.console.pages.settings import Revision
from heksher_client.service.console.planned_changes import RuleChange, SettingChanges
from heksher_client.service.console.rendering import page
from heksher_client.service.console.rule_form import NOTE, read_note
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
        found = read_comparison(connection, settings.values(), order, first, second, is_selection=bool(q))
        return cls(state, first, second, order, settings, found.rules, found.settings)

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


@router.get("/compare/copy")
def preview_copy(request: Request, database: RequestDatabase) -> Response:
    """Show what the copy of rules would change."""
    query = request.query_params
    with database.read() as connection:
        comparison = _Comparison.read(connection, request)
        selection: Fields = {name: query.getlist(name) for name in ("rule", "every") if name in query}
        plan = _plan(comparison, {**selection, "back": [f"/{comparison.state.link()}"]}, {})
        return _nothing_to_copy(request, connection, comparison) if plan is None else preview(request, connection, plan)


@router.post("/compare/copy")
def copy_rules(request: Request, database: RequestDatabase, form: Form) -> Response:
    """Copy rules, if the changes are those that the page has shown."""

    def read_plan(connection: Connection) -> Plan | Response:
        comparison = _Comparison.read(connection, request, form)
        errors: dict[str, str] = {}
        plan = _plan(comparison, form, read_note(form, errors))
        if plan is None:
            return _nothing_to_copy(request, connection, comparison, status=409)
        if errors:
            shown = {**plan.shown, "notes": {**plan.shown["notes"], "errors": errors}}
            return preview(request, connection, replace(plan, shown=shown), status=422)
        return plan

    return carry_out(request, database, read_plan)


def _plan(comparison: _Comparison, form: Fields, notes: Mapping[str, str]) -> Plan | None:
    """Return the plan of the copies that a form selects; None if there is nothing to copy.

    Args:
        comparison: The contexts and the rules.
        form: The form, or the query of the page. It has `rule` with the id of each rule, or `every`.
        notes: The comment and the link.

    Raises:
        RequestError: A rule may not have the conditions.
    """
    steps = [step for step in comparison.plan() if step.is_change]
    fields = {name: values for name, values in form.items() if name not in NOTE}
    if not form.get("every"):
        steps = [step for step in steps if str(step.rule.rule_id) in form.get("rule", [])]
        fields["rule"] = [str(step.rule.rule_id) for step in steps]
    if not steps:
        return None
    changes: dict[str, list[RuleChange]] = {}
    for step in steps:
        changes.setdefault(step.setting, []).append(_change(comparison, step, notes))
    return Plan(
        fields,
        [SettingChanges(comparison.settings[name], found) for name, found in changes.items()],
        is_previewed=True,
        template="copy.html",
        shown={
            "first": comparison.first,
            "second": comparison.second,
            "notes": {name: text(form, name) for name in NOTE} | {"errors": {}},
        },
    )


def _change(comparison: _Comparison, step: PlannedCopy, notes: Mapping[str, str]) -> RuleChange:
    """Return the change that copies a rule."""
    setting, source = comparison.settings[step.setting], comparison.rules[step.rule.rule_id]
    if step.existing is not None:
        existing = comparison.rules[step.existing.rule_id]
        metadata = copied_metadata(source.metadata, existing.metadata, notes)
        return RuleChange(existing, replace(existing, value=source.value, metadata=metadata, period=source.period))
    try:
        conditions = _CONDITIONS.validate_python(step.conditions)
    except ValidationError as error:
        problem = ", ".join(condition_errors(error).values())
        message = f"rule {source.id} of the setting {step.setting} cannot be copied: {problem}; nothing was copied"
        raise RequestError(422, message) from None
    metadata = copied_metadata(source.metadata, {}, notes)
    required = tuple(sorted(conditions.items()))
    return RuleChange(None, StoredRule(0, setting.id, required, source.value, metadata, source.period))


def _nothing_to_copy(
    request: Request, connection: Connection, comparison: _Comparison, *, status: int = 200
) -> Response:
    return page(request, "nothing_to_copy.html", connection, status=status, back=comparison.state.link())
