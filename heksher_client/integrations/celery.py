"""Celery: a client in each worker, and the sender's context values in each task.

    run_client(connect)
    propagate(user=current_user)

Call both once, in the module that creates the application.
"""

from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, ContextVar
from typing import Any, Final

from celery import signals

from heksher_client._core.settings.user_functions import check_function, plain_result
from heksher_client._drivers.thread_client import ThreadHeksherClient
from heksher_client.integrations._context import Tokens, reset_variables, set_variables

__all__ = ["propagate", "run_client"]

_HEADER: Final = "heksher_context"


def run_client(connect: Callable[[], ThreadHeksherClient]) -> None:
    """Run a client in each worker, from its start to its shutdown.

    The client starts before the worker creates its pool, and continues in each process of a prefork pool. A worker also
    starts if the service is unavailable; if the client cannot be created (an invalid profile, for example), the worker
    exits.

    Args:
        connect: Returns the client. If it is not running, it is started.

    Raises:
        TypeError: It is not callable, or is a coroutine function.
    """
    check_function(connect, "connect")
    clients: list[ThreadHeksherClient] = []

    def start(**_: Any) -> None:
        try:
            client = plain_result(connect, connect())
            clients.append(client)
            if not client.status().is_main:
                client.set_as_main()
        except Exception as error:  # Celery would log any exception here, and run tasks without settings.
            raise SystemExit(f"the worker exits because its Heksher client could not be created: {error}") from error

    def stop(**_: Any) -> None:
        while clients:
            clients.pop().close()

    signals.worker_init.connect(start, weak=False)
    signals.worker_shutdown.connect(stop, weak=False)


def propagate(**features: ContextVar[str]) -> None:
    """Run each task with the values that context variables had where the task was sent.

    A variable that is not set in the sender stays unchanged in the task. After the task, each variable has its former
    value, whatever the task set. Give the variables a default: a variable that has none, and was not set before the
    task, cannot be reset and keeps the value that the task set.

    Args:
        **features: The context variables by context feature. The names are used in the headers of the messages.

    Raises:
        TypeError: A value is not a context variable.
    """
    for name, variable in features.items():
        if not isinstance(variable, ContextVar):
            raise TypeError(f"{name} must be a context variable, not {variable!r}")
    running: dict[str, tuple[Tokens, list[ContextVar[str]]]] = {}

    def add_header(headers: dict[str, Any], **_: Any) -> None:
        values = {name: variable.get(None) for name, variable in features.items()}
        sent = {name: value for name, value in values.items() if value is not None}
        headers[_HEADER] = {**headers.get(_HEADER, {}), **sent}

    def before_task(task_id: str, task: Any, **_: Any) -> None:
        sent = getattr(task.request, _HEADER, None) or {}
        # A variable that the message has no value for is set to its current value, so that it can be reset to that.
        values = {variable: sent.get(name, variable.get(None)) for name, variable in features.items()}
        known = {variable: value for variable, value in values.items() if value is not None}
        running[task_id] = set_variables(known), [variable for variable in values if variable not in known]

    def after_task(task_id: str, **_: Any) -> None:
        tokens, unset = running.pop(task_id, ([], []))
        reset_variables(tokens)
        for variable in unset:
            _set_to_default(variable)

    signals.before_task_publish.connect(add_header, weak=False)
    signals.task_prerun.connect(before_task, weak=False)
    signals.task_postrun.connect(after_task, weak=False)


def _set_to_default(variable: ContextVar[str]) -> None:
    """Set a variable to its default, if it has one and the task has set the variable."""
    if variable.get(None) is not None:
        with suppress(LookupError):
            variable.set(Context().run(variable.get))
