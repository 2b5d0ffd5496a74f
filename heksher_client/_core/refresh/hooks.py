"""Calls of the program's code: at the end of a refresh, and for changes of rules."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from heksher_client._core.refresh.effects import CallUserCode, Flow
from heksher_client._core.refresh.publisher import RefreshResult
from heksher_client._core.refresh.responses import identity
from heksher_client._core.refresh.status import Refresh
from heksher_client._core.refresh.work_budget import WorkBudget
from heksher_client._core.settings.changes import PendingChanges, diff_rules
from heksher_client._core.settings.listeners import CallbackRegistry, WeakCallback, deliver
from heksher_client._core.settings.user_functions import plain_result
from heksher_client._logging import logger, text_of

_HOOK_TIMEOUT: Final = 5.0
"""Seconds that a refresh waits for a hook, where it can wait."""


class Hooks(Protocol):
    """The methods that a program can override to follow the refreshes."""

    def on_update_ok(self) -> None: ...  # pragma: no cover - a protocol
    def on_update_error(self, exc: Exception, /) -> None: ...  # pragma: no cover - a protocol


class Notifier:
    """Calls the hooks and callbacks of one client, and feeds its iterators."""

    def __init__(self, hooks: Hooks, listeners: CallbackRegistry, budget: WorkBudget) -> None:
        """Create a notifier.

        Args:
            hooks: Called at the end of each refresh.
            listeners: The receivers of all changes of this client.
            budget: Limits how long rules are compared before others run.
        """
        self._hooks, self._listeners, self._budget = hooks, listeners, budget
        self.refresh_listeners = CallbackRegistry()
        """The callbacks for the end of each refresh."""
        self._reported: frozenset[str] = frozenset()
        """The failures that lasted at the end of the last refresh or retry."""
        self._pending: dict[WeakCallback, PendingChanges] = {}
        """The changes that callbacks were not called with yet."""
        self._is_hook_blocked = False
        """True if a hook has not returned, which was logged."""

    def dispatch_changes(self, result: RefreshResult) -> Flow[None]:
        """Deliver the changes of a refresh to callbacks and iterators, each once."""
        yield from self._call_callbacks()  # with changes that could not be delivered before
        for entry in list(result.replaced):
            before = result.replaced.pop(entry)
            try:
                change = yield from self._budget.cooperatively(
                    diff_rules(entry.setting, before, entry.published.rule_set)
                )
            except (GeneratorExit, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # Values may be of any type, and refuse to be compared.
                logger.exception("the changes of setting %s cannot be compared", entry.name, extra={"error": error})
                continue
            if not change:
                continue
            for callback in deliver(change, (entry.listeners, self._listeners)):
                self._pending.setdefault(callback, PendingChanges()).push(change)
        yield from self._call_callbacks()

    def _call_callbacks(self) -> Flow[None]:
        """Call the callbacks with pending changes. If one does not return, the others are called later."""
        for callback, pending in list(self._pending.items()):
            # The change is taken by the call itself, so that it stays pending if there is no call.
            while pending and (function := callback.function) is not None:
                if not (yield from self._call(function, pending)):
                    break
        self._pending = {one: pending for one, pending in self._pending.items() if pending and one.function is not None}

    def dispatch_refresh(self, refresh: Refresh, problems: Sequence[Exception], *, is_reported: bool) -> Flow[None]:
        """Call a hook, and the callbacks for the end of a refresh.

        Args:
            refresh: The refresh.
            problems: See `call_hook`.
            is_reported: See `call_hook`.
        """
        yield from self.call_hook(refresh.errors, problems, is_reported=is_reported)
        for function in self.refresh_listeners.functions():
            yield from self._call(function, refresh)

    def call_hook(self, errors: Sequence[Exception], problems: Sequence[Exception], *, is_reported: bool) -> Flow[None]:
        """Call the hook for the end of a refresh or of a retry, if there is something to report.

        A single setting may fail for weeks, while all others are refreshed: that is reported when it begins or changes.

        Args:
            errors: The failures; empty if there are none, and no problems.
            problems: The problems that last, with or without a new failure.
            is_reported: Whether to report failures that were reported before.
        """
        reported, self._reported = self._reported, frozenset(map(identity, [*errors, *problems]))
        if not errors:
            yield from self._call(self._hooks.on_update_ok)
            return
        new = [error for error in errors if is_reported or identity(error) not in reported]
        if new:
            error = new[0]
            # Replaced, as earlier refreshes may have set them.
            error.__notes__ = [f"and: {text_of(other)}" for other in errors if other is not error]
            yield from self._call(self._hooks.on_update_error, error)

    def _call(
        self, hook: Callable[..., object], argument: Exception | Refresh | PendingChanges | None = None
    ) -> Flow[bool]:
        """Call a function of the program.

        Args:
            hook: The function.
            argument: Its argument: none, an error, a refresh, or the next one of these changes.

        Returns:
            True if it was called: it may still be running.
        """
        name = getattr(hook, "__name__", repr(hook))
        begun: list[Any] = []
        ended: list[Any] = []

        def call() -> None:
            begun.append(hook)
            try:
                if argument is None:
                    result = hook()
                else:
                    result = hook(argument.take() if isinstance(argument, PendingChanges) else argument)
                plain_result(hook, result, may_be_running=True)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # The program's own errors, CancelledError included, must not end a refresh.
                logger.exception("%s raised", name, extra={"hook": name})
            finally:
                ended.append(hook)

        yield CallUserCode(call, _HOOK_TIMEOUT)
        if not (ended or self._is_hook_blocked):
            logger.error("%s does not return; no hook is called until it does", name, extra={"hook": name})
        self._is_hook_blocked = not ended
        return bool(begun)
