"""Telling the program's own code: how refreshes end, and what they have changed."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from heksher_client._core.refresh.effects import CallUserCode, Flow
from heksher_client._core.refresh.loading import Loading
from heksher_client._core.refresh.setting_state import AnyEntry
from heksher_client._core.refresh.status import Refresh
from heksher_client._core.settings.changes import Changes, PendingChanges, diff_rules, subscribe
from heksher_client._core.settings.listeners import CallbackRegistry, WeakCallback, deliver
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._logging import logger

_HOOKS_PATIENCE: Final = 5.0
"""Seconds that a refresh waits for a hook, where hooks can be waited for."""


class Hooks(Protocol):
    """What a program can override to follow the refreshes."""

    def on_update_ok(self) -> None: ...  # pragma: no cover - a protocol
    def on_update_error(self, exc: Exception, /) -> None: ...  # pragma: no cover - a protocol


class Notifier:
    """The hooks of one client, and the callbacks and iterators that hear of its changes."""

    def __init__(self, hooks: Hooks, listeners: CallbackRegistry) -> None:
        """Make one.

        Args:
            hooks: Told how each refresh ended.
            listeners: Those who want to hear of all changes.
        """
        self._hooks, self._listeners = hooks, listeners
        self.refresh_listeners = CallbackRegistry()
        """Those who want to hear how each refresh ended, besides the hooks."""
        self._loading = Loading(keeps_answers=False)
        self._news: dict[WeakCallback, PendingChanges] = {}
        """What callbacks have not been told yet."""
        self._is_hook_lost = False
        """Whether a hook has not come back, which was logged."""

    def changes(self) -> Changes:
        """All changes from now on."""
        return subscribe(self._listeners)

    def report(self, replaced: Mapping[AnyEntry, RuleSet[Any]]) -> Flow[None]:
        """Tell whoever wants to know what a refresh has changed.

        Args:
            replaced: What was in place before, where somebody wants to know.
        """
        yield from self._call_callbacks()  # with what could not be told them before
        for setting, before in replaced.items():
            try:
                change = yield from self._loading.paced(diff_rules(setting.setting, before, setting.rule_set))
            except Exception as defect:  # Values may be of any type, and refuse to be compared.
                logger.exception("the changes of setting %s cannot be told", setting.name, extra={"error": defect})
                continue
            if not change:
                continue
            for callback in deliver(change, (setting.listeners, self._listeners)):
                self._news.setdefault(callback, PendingChanges()).push(change)
        yield from self._call_callbacks()

    def _call_callbacks(self) -> Flow[None]:
        """Call those for whom there is news. What cannot be told now, as another one does not return, is told later."""
        for callback, news in list(self._news.items()):
            # What is new is taken by the call, so that it is still there if there is none.
            while news and (function := callback.function) is not None:
                if not (yield from self._call_hook(function, news)):
                    break
        self._news = {one: news for one, news in self._news.items() if news and one.function is not None}

    def call_hooks(self, refresh: Refresh) -> Flow[None]:
        """Tell how a refresh ended."""
        if not refresh.errors:
            yield from self._call_hook(self._hooks.on_update_ok)
        else:
            error, *others = refresh.errors
            error.__notes__ = [f"and: {other}" for other in others]  # anew, as it may be an error of former refreshes
            yield from self._call_hook(self._hooks.on_update_error, error)
        for function in self.refresh_listeners.functions():
            yield from self._call_hook(function, refresh)

    def _call_hook(
        self, hook: Callable[..., object], argument: Exception | Refresh | PendingChanges | None = None
    ) -> Flow[bool]:
        """Call what is the program's own; tells whether it was called at all.

        Args:
            hook: What to call.
            argument: What with: nothing, an error, a refresh, or the next one of these changes.
        """
        name = getattr(hook, "__name__", repr(hook))
        begun: list[str] = []
        ended: list[str] = []

        def call() -> None:
            begun.append(name)
            try:
                if argument is None:
                    hook()
                else:
                    hook(argument.take() if isinstance(argument, PendingChanges) else argument)
            except (KeyboardInterrupt, SystemExit):
                raise
            except (
                BaseException
            ):  # Its errors are the program's to see, and none of ours; a CancelledError is no other.
                logger.exception("%s raised", name, extra={"hook": name})
            finally:
                ended.append(name)

        yield CallUserCode(call, _HOOKS_PATIENCE)
        if not (ended or self._is_hook_lost):
            logger.error("%s does not return; no hook is called until it does", name, extra={"hook": name})
        self._is_hook_lost = not ended
        return bool(begun)
