"""Celery: a client in each worker, and tasks that read settings in the context that they were sent from.

run_client(connect)
propagate(user=current_user)
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from celery import signals

from heksher_client._thread_client import ThreadHeksherClient
from heksher_client.integrations.binding import Held, hold, let_go

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
            headers. A variable that is not set where a task is sent is left as it is where it runs.

    Raises:
        TypeError: One of them is none.
    """
    for name, variable in features.items():
        if not isinstance(variable, ContextVar):
            raise TypeError(f"{name} must be a context variable, not {variable!r}")
    held: dict[str, Held] = {}

    def send(headers: dict[str, Any], **_: Any) -> None:
        found = {name: variable.get(None) for name, variable in features.items()}
        there = {name: value for name, value in found.items() if value is not None}
        headers[_HEADER] = {**headers.get(_HEADER, {}), **there}

    def begin(task_id: str, task: Any, **_: Any) -> None:
        sent = getattr(task.request, _HEADER, None) or {}
        held[task_id] = hold({variable: sent[name] for name, variable in features.items() if name in sent})

    def end(task_id: str, **_: Any) -> None:
        let_go(held.pop(task_id, []))

    signals.before_task_publish.connect(send, weak=False)
    signals.task_prerun.connect(begin, weak=False)
    signals.task_postrun.connect(end, weak=False)
