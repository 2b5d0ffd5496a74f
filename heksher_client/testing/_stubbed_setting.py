"""StubbedSetting: the rules of one setting, as a test reads and assigns them."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from heksher_client._core.settings.changes import diff_rules
from heksher_client._core.settings.context import Defaults, check_known, order_with
from heksher_client._core.settings.context_values import normalized_value
from heksher_client._core.settings.cooperative import run_to_end
from heksher_client._core.settings.entry import PublishedRules
from heksher_client._core.settings.listeners import CallbackRegistry, deliver
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Rule
from heksher_client._core.settings.setting import Setting, entry_of
from heksher_client._core.settings.types import convert
from heksher_client._core.settings.user_functions import plain_result
from heksher_client._logging import logger
from heksher_client._resource import Resource

T = TypeVar("T")


class Rules(tuple[Rule[T], ...]):
    """The rules of a stubbed setting. Assigning them to `rules` restores them, even if there are none."""

    __slots__ = ()


class StubbedSetting(Resource, Generic[T]):
    """A setting whose rules a test assigns; `stub[setting]` returns it."""

    # Slots, so that an assignment to a misspelled attribute fails.
    __slots__ = ("_defaults", "_is_assigned", "_listeners", "_order", "_rules", "_setting")

    def __init__(
        self, setting: Setting[T], order: Sequence[str], defaults: Defaults, listeners: CallbackRegistry
    ) -> None:
        self._setting, self._defaults, self._listeners = setting, defaults, listeners
        self._order = order_with(order, setting.configurable_features)
        self._is_assigned = False
        self._rules = Rules(entry_of(setting).published.rule_set.rules())

    @property
    def is_assigned(self) -> bool:
        """True if the test has assigned rules."""
        return self._is_assigned

    @property
    def rules(self) -> Rules[T]:
        """The rules of the setting, in descending priority.

        Assign a value, which then applies in every context, or a list of `Rule`. `monkeypatch.setattr` and
        `unittest.mock.patch.object` can replace the rules temporarily.

        Raises:
            TypeError: A value does not have the type of the setting.
            UnknownContextError: A rule has a condition on a feature that the setting does not have.
            ValueError: Two rules have the same conditions, or a rule has a condition that no service allows.
        """
        return self._rules

    @rules.setter
    def rules(self, value: T | Sequence[Rule[T]]) -> None:
        self._is_assigned = True
        setting, entry = self._setting, entry_of(self._setting)
        former = entry.published.rule_set
        rules = _to_rules(setting, value)
        groups = group_by_features(rules)
        rule_set, duplicates = RuleSet.build(groups, self._order, former.default, former.default_reason)
        if duplicates:
            raise ValueError(f"setting {setting.name}: two rules have the same conditions as {duplicates[0]}")
        entry.publish(PublishedRules(rule_set, self._defaults))
        self._dispatch_change(former, rule_set)
        self._rules = Rules(rule_set.rules())

    @rules.deleter
    def rules(self) -> None:
        # `mock.patch.object` deletes an attribute that is not in an instance's `__dict__`, and assigns the original
        # value only if the attribute is missing afterwards. The setting keeps its rules in between.
        del self._rules

    def _dispatch_change(self, before: RuleSet[T], after: RuleSet[T]) -> None:
        """Call the callbacks that a client would call."""
        setting = self._setting
        change = run_to_end(diff_rules(setting, before, after))
        if not change:
            return
        for callback in deliver(change, (entry_of(setting).listeners, self._listeners)):
            if (function := callback.function) is None:
                continue
            try:
                plain_result(function, function(change), may_be_running=True)
            except Exception:  # Logged and not raised, as in a client.
                name = getattr(function, "__name__", repr(function))
                logger.exception("%s raised", name, extra={"hook": name})


def _to_rules(setting: Setting[T], value: Any) -> list[Rule[T]]:
    if not _are_rules(setting, value):
        return [Rule({}, _converted(setting, value))]
    for rule in value:
        check_known(rule.match_conditions, setting.configurable_features, f"setting {setting.name}")
    return [
        Rule(
            {feature: normalized_value(feature, required) for feature, required in rule.match_conditions.items()},
            _converted(setting, rule.value),
            rule.rule_id,
        )
        for rule in value
    ]


def _are_rules(setting: Setting[Any], value: Any) -> bool:
    if isinstance(value, Rules):
        return True
    if not isinstance(value, list | tuple):
        return False
    if value:
        return all(isinstance(element, Rule) for element in value)
    # An empty list is a value of a sequence setting. For any other type it means "no rules".
    try:
        setting.type.convert_to_heksher(value)
    except TypeError:
        return True
    return False


def _converted(setting: Setting[T], value: T) -> T:
    """Return a value as it would arrive from the service.

    Raises:
        TypeError: The value does not have the type of the setting.
    """
    try:
        return convert(setting.type, setting.type.convert_to_heksher(value)).value
    except TypeError as error:
        raise TypeError(f"setting {setting.name}: {error}") from None
