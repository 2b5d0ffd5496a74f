"""Celery: a client in each worker, and tasks that read settings in the context that they were sent from.

    run_client(connect)
    propagate(user=current_user)

Both are called once, where the application is made.
"""

from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, ContextVar
from typing import Any, Final

from celery import signals

from heksher_client._drivers.thread_client import ThreadHeksherClient
from heksher_client.integrations._context import Held, hold, let_go

__all__ = ["propagate", "run_client"]

_HEADER: Final = "heksher_context"


def run_client(connect: Callable[[], ThreadHeksherClient]) -> None:
    """Have workers run a client, from their start to their end.

    It starts before the worker makes its pool; where that is made of processes, it goes on in each of them. A service
    that does not answer is no reason not to start; a client that cannot be made (a wrong profile, say) ends the worker.

    Args:
        connect: Makes the client; started or not.
    """
    held: list[ThreadHeksherClient] = []

    def start(**_: Any) -> None:
        try:
            client = connect()
            held.append(client)
            if not client.status().is_main:
                client.set_as_main()
        except Exception as error:  # Whatever it is, Celery would only log it, and run tasks without settings.
            raise SystemExit(f"the worker ends, as its Heksher client cannot be made: {error}") from error

    def end(**_: Any) -> None:
        while held:
            held.pop().close()

    signals.worker_init.connect(start, weak=False)
    signals.worker_shutdown.connect(end, weak=False)


def propagate(**features: ContextVar[str]) -> None:
    """Have tasks run with what context variables held where they were sent from.

    Args:
        **features: The context variables by the names of context features, under which they travel in the messages'
            headers. A variable that is not set where a task is sent is left as it is where it runs. After the task each
            has again what it had before, whatever the task itself has set. But give them a default: one without, that
            was not set before, cannot be unset, and keeps what a task has set.

    Raises:
        TypeError: One of them is none.
    """
    for name, variable in features.items():
        if not isinstance(variable, ContextVar):
            raise TypeError(f"{name} must be a context variable, not {variable!r}")
    held: dict[str, tuple[Held, list[ContextVar[str]]]] = {}

    def send(headers: dict[str, Any], **_: Any) -> None:
        found = {name: variable.get(None) for name, variable in features.items()}
        there = {name: value for name, value in found.items() if value is not None}
        headers[_HEADER] = {**headers.get(_HEADER, {}), **there}

    def begin(task_id: str, task: Any, **_: Any) -> None:
        sent = getattr(task.request, _HEADER, None) or {}
        # What the message has nothing for is held as it is, so that it goes back to that.
        values = {variable: sent.get(name, variable.get(None)) for name, variable in features.items()}
        there = {variable: value for variable, value in values.items() if value is not None}
        held[task_id] = hold(there), [variable for variable in values if variable not in there]

    def end(task_id: str, **_: Any) -> None:
        there, unset = held.pop(task_id, ([], []))
        let_go(there)
        for variable in unset:
            _forget(variable)

    signals.before_task_publish.connect(send, weak=False)
    signals.task_prerun.connect(begin, weak=False)
    signals.task_postrun.connect(end, weak=False)


def _forget(variable: ContextVar[str]) -> None:
    """Have a variable give its default again, if it has one."""
    if variable.get(None) is not None:
        with suppress(LookupError):
            variable.set(Context().run(variable.get))
