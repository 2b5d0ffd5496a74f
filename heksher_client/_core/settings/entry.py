"""The package's side of one setting: its declaration, its validators, the published rules, and how they are read.

What reads see changes by one assignment, of `Entry.state`. A state is never changed in what it returns: other rules,
other defaults or other observers make a new one. Whatever assigns it holds `snapshot.update_lock`; reads never wait
for that lock.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from inspect import Signature, signature
from typing import Any, Generic, TypeVar

import msgspec

from heksher_client._core.settings.context import Defaults, check_known, complete
from heksher_client._core.settings.declaration import Declaration
from heksher_client._core.settings.frozen_dict import EMPTY_SET
from heksher_client._core.settings.getter import Form, getter_factory
from heksher_client._core.settings.listeners import CallbackRegistry, WeakRefs
from heksher_client._core.settings.lookup_tree import LookupTree
from heksher_client._core.settings.observers import read_observers
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT, Reason, Resolution, Rule
from heksher_client._core.settings.snapshot import SCOPE, Snapshot, publish, update_lock
from heksher_client._core.settings.streams import WatchedValue
from heksher_client._core.settings.types import Conversion, convert, convert_many
from heksher_client._core.settings.user_functions import plain_result

T = TypeVar("T")

DefaultValues = Mapping[str, str | ContextVar[str]]

READS_BEFORE_COMPILATION = 10
"""How many reads of a state do without a compiled getter: compiling one takes as long as ten of them, and more
memory than the rest of a setting with few rules. Most settings are read seldom."""


class PublishedRules(msgspec.Struct, Generic[T], frozen=True):
    """The rules and defaults that reads use. Replaced as a whole, so that a read never combines the rules of one update
    with the defaults of another."""

    rule_set: RuleSet[T]
    defaults: Defaults | None = None
    """None until a client is the main one: then a context is neither completed nor resolved."""


class Entry(Generic[T]):
    """One setting, as the rest of the package uses it. `Setting` is the handle for programs."""

    __slots__ = (
        "__weakref__",
        "_installed",
        "_method",
        "_retained_by",
        "declaration",
        "given_features",
        "listeners",
        "name",
        "on_coerce",
        "published",
        "setting",
        "state",
        "validators",
        "watched_values",
    )

    def __init__(
        self,
        setting: Any,
        declaration: Declaration[T],
        on_coerce: Callable[..., T] | None,
        get: Callable[..., T] | None,
    ) -> None:
        """Create the entry of a setting, which returns the declared default until rules are published.

        Args:
            setting: The handle, which is passed to the program's own functions, and lives as long as its getter.
            declaration: What the program declares.
            on_coerce: As in `Setting`.
            get: The method of the handle, which a compiled getter, as an attribute, takes precedence over. None to
                leave the handle as it is.
        """
        self.setting = setting
        self.name = declaration.name
        self.declaration = declaration
        self.on_coerce = on_coerce
        self.validators: tuple[Callable[..., T], ...] = ()
        """Replaced as a whole when one is added, so that a client notices that it has to convert again."""
        self.listeners: CallbackRegistry | None = None
        self.watched_values: WeakRefs[WatchedValue[T]] | None = None
        self.given_features: frozenset[str] = EMPTY_SET
        """The features that callers have passed."""
        self.published = PublishedRules(RuleSet(declaration.default_value, Reason.DECLARED_DEFAULT))
        self._retained_by: frozenset[Snapshot] = EMPTY_SET
        self.state = GetterState(self)
        self._method = get
        self._installed: Callable[..., T] | None = None
        """The attribute of the handle, if it has one."""

    # -- reads ---------------------------------------------------------------------------------------------------------

    def get(self, given: Mapping[str, str]) -> T:
        """Read the value, by the fastest getter that there is."""
        state = self.state
        compiled = state.compiled
        return state.get_first(given) if compiled is None else compiled.getter(**given)

    def explain(self, given: Mapping[str, str]) -> Resolution[T]:
        """Read the value, with the reason for it."""
        state = self.retained_state() or self.state
        return state.published.rule_set.explain(state.complete(given))

    def retained_state(self) -> "GetterState[T] | None":
        """Return the state that the snapshot of the current context retains, if that was replaced."""
        scope = SCOPE.get()
        published = None if scope is None else scope.retained.get(self)
        return None if published is None else GetterState(self, published)

    # -- updates -------------------------------------------------------------------------------------------------------

    def publish(self, published: PublishedRules[T]) -> None:
        """Replace the published rules, for all reads that begin after this."""
        publish({self: published})

    def replace_published(self, published: PublishedRules[T]) -> None:
        """Replace the published rules. Called by `snapshot.publish`, which retains the former ones first."""
        self.published = published
        self._renew_state()

    def retain(self, snapshot: Snapshot) -> None:
        self._retained_by |= {snapshot}

    def release(self, snapshot: Snapshot) -> None:
        self._retained_by -= {snapshot}
        if not self._retained_by:
            self._renew_state()

    def renew_state(self) -> None:
        """Read with the published rules, the defaults, the snapshots and the observers that there are now."""
        with update_lock():
            self._renew_state()

    def _renew_state(self) -> None:
        former, state = self.state, GetterState(self, is_retained=bool(self._retained_by))
        former.retire()
        self.install(None)
        if self.state is former:  # Otherwise a signal handler or a finalizer has renewed it.
            self.state = state  # From here on, reads see what is new: getters of the former state find it here.
        for value in self.watched_values or ():
            value.notify()

    def install(self, getter: Callable[..., T] | None) -> None:
        """Set the attribute that shadows `Setting.get`, or remove it, unless the program has put something else there:
        a test may patch it, and later put back what it found. The caller holds the update lock."""
        if self._method is None:
            return
        present = self.setting.get
        is_own = present is self._installed
        if not is_own and getattr(present, "__func__", None) is not self._method:
            return
        # Not by `vars`: the interpreter would create a dict for the handle, and each read would take longer.
        self._installed = getter
        if getter is not None:
            object.__setattr__(self.setting, "get", _imitate(getter, self._method))
        elif is_own:
            object.__delattr__(self.setting, "get")

    # -- listeners and watches -----------------------------------------------------------------------------------------

    def get_listeners(self) -> CallbackRegistry:
        """Return the receivers of this setting's changes."""
        with update_lock():
            if self.listeners is None:
                self.listeners = CallbackRegistry()
            return self.listeners

    def watch(self, value: WatchedValue[T]) -> None:
        """Wake a watched value up after each update, for as long as something refers to it."""
        with update_lock():
            if self.watched_values is None:
                self.watched_values = WeakRefs()
            self.watched_values.add(value)

    def end_watches(self) -> None:
        """Close all watched values."""
        for value in self.watched_values or ():
            value.close()

    # -- values from the service ---------------------------------------------------------------------------------------

    def convert_many(self, raws: Sequence[Any]) -> Sequence[T] | None:
        """Do what `convert` does for many values at once; return None if each has to be looked at."""
        return None if self.validators else convert_many(self.declaration.type, raws)

    def convert(self, raw: Any, get_rule: Callable[[], Rule[Any] | None]) -> Conversion[T]:
        """Convert a JSON value of the service: coerce it, and validate it.

        Args:
            raw: The JSON value.
            get_rule: Returns the rule that the value belongs to; called only if it is needed.

        Raises:
            Exception: The error of the conversion, of `on_coerce` or of a validator that rejects the value.
        """
        conversion = convert(self.declaration.type, raw)
        value = conversion.value
        rule = get_rule() if conversion.coercions or self.validators else None
        if conversion.coercions:
            if self.on_coerce is None:
                raise TypeError(f"coercions are disabled for this setting: {'; '.join(conversion.coercions)}")
            coerced = self.on_coerce(value, raw, conversion.coercions, rule, self.setting)
            value = plain_result(self.on_coerce, coerced)
        for validator in self.validators:
            value = plain_result(validator, validator(value, rule, self.setting))
        return Conversion(value, conversion.coercions)


class CompiledGetter(msgspec.Struct, Generic[T], eq=False):
    """A getter of one state, and the data that its code uses."""

    getter: Callable[..., T]
    plan: list[tuple[Any, ...]]
    """See `GetterFactory`."""

    tree: LookupTree
    root: Any
    """The node at which a read begins that overrides constants."""
    condition_values: Mapping[str, frozenset[str]]
    defaults: DefaultValues
    form: Form

    def fits(self, given: Mapping[str, str]) -> bool:
        """True if the form has parameters for these features, and the branches of the tree as it is now."""
        return given.keys() <= self.form.given and self.form.overflow_levels == self.tree.overflow_levels


class GetterState(Generic[T]):
    """The source of reads, until the published rules, their defaults, the snapshots or the observers change."""

    __slots__ = (
        "_defaults",
        "_is_retained",
        "_is_retired",
        "_observer",
        "_reads_left",
        "compiled",
        "entry",
        "published",
    )

    def __init__(
        self, entry: Entry[T], published: PublishedRules[T] | None = None, *, is_retained: bool = False
    ) -> None:
        """Create a state of an entry.

        Args:
            entry: The entry.
            published: The rules to read; the entry's own unless given.
            is_retained: True if snapshots retain former rules of the entry.
        """
        self.entry = entry
        self.published = entry.published if published is None else published
        self.compiled: CompiledGetter[T] | None = None
        """The getter, after the first reads. Assigned when it is complete: it is read without the lock, and while a
        signal handler or a finalizer has interrupted whatever holds the lock."""
        defaults = self.published.defaults
        self._defaults: DefaultValues | None = None if defaults is None else defaults.values
        self._is_retained = is_retained
        self._observer = read_observers.most_frequent
        self._is_retired = False
        self._reads_left = READS_BEFORE_COMPILATION

    def retire(self) -> None:
        """Empty the plan, so that the getter of this state takes the slow path to the state that replaced it.

        The references are dropped so that the tree is freed at once, and not by the garbage collector.
        """
        self._is_retired = True
        self._use(None)

    def _use(self, compiled: CompiledGetter[T] | None) -> None:
        """Read by another getter, or by none. The former one, which somebody may have kept, finds an empty plan."""
        former = self.compiled
        self.compiled = compiled
        if former is not None:
            former.plan.clear()

    def get_first(self, given: Mapping[str, str]) -> T:
        """Read without a compiled getter."""
        if (observer := self._observer) is not None and observer.random() < observer.sample_rate:
            read_observers.notify(self.entry.setting, given, observer.sample_rate)
        return self._resolve(given)

    def get_slow_path(self, values: Mapping[str, Any], plan: Sequence[object]) -> T:
        """Read in a context that a getter has no branch for, or after the getter was replaced.

        Args:
            values: The arguments of the getter; `ABSENT` for those that were not passed.
            plan: The plan of the getter. If it is empty, the getter was replaced, perhaps with its state.
        """
        if plan:
            return self._resolve(self.given(values))
        # This is a function that somebody kept (`get = setting.get`). A later getter has all of its parameters, so
        # absent values can be passed on.
        state = self.entry.state
        compiled = state.compiled
        return state.get_first(self.given(values)) if compiled is None else compiled.getter(**values)

    def get_with_other_features(self, values: Mapping[str, Any]) -> T:
        """Read with features that a getter has no parameters for. A getter that was compiled later may have them."""
        compiled, given = self.compiled, self.given(values)
        if compiled is not None and given.keys() <= compiled.form.given:
            return compiled.getter(**given)
        return self.get_first(given) if self.entry.state is self else self.entry.get(given)

    def given(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Return the arguments that were passed."""
        return {name: value for name, value in values.items() if value is not ABSENT}

    def complete(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """Return the complete context of a read.

        Raises:
            UnknownContextError, MissingContextError, TypeError: As `Setting.get`.
        """
        declaration = self.entry.declaration
        whose = f"setting {declaration.name}"
        check_known(given, declaration.configurable_features, whose)
        if self._defaults is None:
            return given
        return complete(declaration.configurable_features, given, self._defaults, whose)

    def _resolve(self, given: Mapping[str, str]) -> T:
        """Read as `RuleSet.resolve` specifies, and prepare fast reads if there were several."""
        if self._is_retained and (retained := self.entry.retained_state()) is not None:
            return retained.published.rule_set.resolve(retained.complete(given))
        context = self.complete(given)
        if self._reads_left > 0:
            self._reads_left -= 1
        elif self._defaults is not None:
            self._prepare(self._defaults, given, context)
        return self.published.rule_set.resolve(context)

    def _prepare(self, defaults: DefaultValues, given: Mapping[str, str], context: Mapping[str, str]) -> None:
        """Grow the tree for a context, and compile a getter for the features that callers pass."""
        compiled = self.compiled
        if compiled is None or not compiled.fits(given):
            # If another thread holds the lock, a later read compiles: reads never wait.
            if not (lock := update_lock()).acquire(blocking=False):
                return
            try:
                if self._is_retired:
                    return
                compiled = self._compile(defaults, given)
            finally:
                lock.release()
        if compiled.tree.can_grow:
            compiled.tree.grow(context)

    def _compile(self, defaults: DefaultValues, given: Mapping[str, str]) -> CompiledGetter[T]:
        entry, rule_set = self.entry, self.published.rule_set
        features = entry.declaration.configurable_features
        entry.given_features = entry.given_features.union(given)
        levels = list(rule_set.condition_values)
        # Constants come first: a read that overrides none of them begins below them. But never the last feature, which
        # belongs to the leaves.
        constants = {level: defaults[level] for level in levels[:-1] if isinstance(defaults.get(level), str)}
        inner = sorted(levels[:-1], key=lambda level: level not in constants)
        tree = LookupTree(rule_set, inner) if self.compiled is None else self.compiled.tree
        form = Form(
            features,
            given=entry.given_features,
            sources=tuple(type(defaults.get(feature)) for feature in features),
            levels=(*inner, *levels[-1:]),
            constants=len(constants),
            overflow_levels=tree.overflow_levels,
            shares_last_feature=rule_set.shares_last_feature,
            is_retained=self._is_retained,
            is_observed=self._observer is not None,
        )
        random, sample_rate = (
            (None, 0.0) if self._observer is None else (self._observer.random, self._observer.sample_rate)
        )
        plan: list[tuple[Any, ...]] = []
        getter = getter_factory(form)(self, plan, random, sample_rate)
        compiled = CompiledGetter(getter, plan, tree, tree.root, rule_set.condition_values, defaults, form)
        last_values = [rule_set.last_feature_values] if rule_set.shares_last_feature else []
        last = [default for default in map(defaults.get, levels[-1:]) if isinstance(default, str)]
        variables = [default.get for default in map(defaults.get, features) if isinstance(default, ContextVar)]
        plan.append((compiled, tree.grow(constants), *last_values, *last, *variables))
        self._use(compiled)
        if self._is_retired:  # by a signal handler or a finalizer
            self._use(None)
        else:
            entry.install(getter)
        return compiled


def _imitate(getter: Callable[..., T], method: Callable[..., T]) -> Callable[..., T]:
    """Give a getter the documentation and the signature of the method that it takes the place of."""
    getter.__doc__, getter.__module__, getter.__qualname__ = method.__doc__, method.__module__, method.__qualname__
    getter.__signature__ = _signature(method)  # type: ignore[attr-defined]
    return getter


@lru_cache(maxsize=1)
def _signature(method: Callable[..., Any]) -> Signature:
    """Return the signature of a method that is bound."""
    whole = signature(method)
    return whole.replace(parameters=[p for p in whole.parameters.values() if p.kind is p.VAR_KEYWORD])
