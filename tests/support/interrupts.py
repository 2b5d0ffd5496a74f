"""Interrupts at each step of a call, as signal handlers make them: at any line or bytecode, in the same thread.

for raised in interrupt_each_step(client.set_as_main, handler):
    assert client.closed
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from linecache import getline
from pathlib import Path
from types import FrameType
from typing import Any

import heksher_client

_FOLDER = str(Path(heksher_client.__file__).parent)
_MAX_STEPS = 100_000


class _Interrupter:
    """Calls a function before one of the steps of the code in some files."""

    def __init__(self, step: int, handler: Callable[[], object], *, files: tuple[str, ...], by_opcode: bool) -> None:
        self.remaining, self._handler, self._files, self._by_opcode = step, handler, files, by_opcode

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Trace the frames that are called from now on. See `sys.settrace`."""
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(self._files):
            return None
        frame.f_trace_opcodes = self._by_opcode
        lines: set[int] = set()

        def trace_steps(frame: FrameType, event: str, _: Any) -> Any:
            if event == ("opcode" if self._by_opcode else "line"):
                # The interpreter calls no signal handler between the last line of a `with` block and its exit, so an
                # exception there would do what none can do: leave a lock locked.
                if (
                    event == "line"
                    and frame.f_lineno in lines
                    and getline(path, frame.f_lineno).lstrip()[:5] == "with "
                ):
                    return trace_steps
                lines.add(frame.f_lineno)
                self.remaining -= 1
                if not self.remaining:
                    self._handler()
            return trace_steps

        return trace_steps


@contextmanager
def _tracing(interrupter: _Interrupter) -> Iterator[_Interrupter]:
    former = sys.gettrace()
    sys.settrace(interrupter.trace)
    try:
        yield interrupter
    finally:
        sys.settrace(former)


def interrupt_each_step(
    call: Callable[[], object], handler: Callable[[], object], *, files: Sequence[str] = ("",), by_opcode: bool = False
) -> Iterator[BaseException | None]:
    """Interrupt a call at its first step, then at its second, and so on, until it ends before it is interrupted.

    Args:
        call: Called once for each step, in the calling thread.
        handler: Called in the middle of it. It may raise.
        files: The files of the package whose code is interrupted; by default all.
        by_opcode: True if each bytecode is a step, and not each line.

    Yields:
        After each interrupted call, the exception that it raised.
    """
    paths = tuple(f"{_FOLDER}/{file}" for file in files)
    for step in range(1, _MAX_STEPS):
        raised = None
        interrupter = _Interrupter(step, handler, files=paths, by_opcode=by_opcode)
        try:
            with _tracing(interrupter):
                call()
        except BaseException as error:
            raised = error
        if interrupter.remaining > 0:
            return
        yield raised
