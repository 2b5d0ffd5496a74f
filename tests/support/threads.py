"""The threads of clients; and threads that cannot be started, as at the limit of the system or while the interpreter
shuts down."""

import threading

import pytest


def threads_of_clients(prefix: str = "heksher-client") -> set[threading.Thread]:
    """Return the threads of clients that run, which may be those of other tests; all, or some by their names."""
    return {thread for thread in threading.enumerate() if thread.name.startswith(prefix)}


def refuse_threads(patch: pytest.MonkeyPatch, prefix: str = "") -> list[threading.Thread]:
    """Refuse to start threads whose names begin with a prefix. Return the list that receives them."""
    refused: list[threading.Thread] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(prefix):
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    patch.setattr(threading.Thread, "start", refuse)
    return refused
