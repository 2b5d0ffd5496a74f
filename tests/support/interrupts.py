"""Interrupts at each step of a call, as signal handlers make them: at any line or bytecode, in the same thread.

for raised in interrupt_each_step(client.set_as_main, handler):
    assert client.closed
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from linecache import getline
from pathlib import Path
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

import heksher_client

_FOLDER = str(Path(heksher_client.__file__).parent)
_MAX_STEPS = 100_000
_TOOL_ID = 3  # any that has no standard name


class _Interrupter:
    """Calls a function before one of the steps of the code in some files."""

    def __init__(self, step: int, handler: Callable[[], object], files: tuple[str, ...]) -> None:
        self.remaining, self._handler, self._files = step, handler, files

    def is_interrupted(self, code: CodeType) -> bool:
        """Whether the code is in one of the files."""
        return code.co_filename.startswith(self._files)

    def count(self) -> None:
        """Count a step. Call the handler if it is the one to interrupt."""
        self.remaining -= 1
        if not self.remaining:
            self._handler()


@contextmanager
def _at_lines(interrupter: _Interrupter) -> Iterator[None]:
    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event != "call" or not interrupter.is_interrupted(frame.f_code):
            return None
        lines: set[int] = set()

        def trace_lines(frame: FrameType, event: str, _: Any) -> Any:
            if event == "line":
                # The interpreter calls no signal handler between the last line of a `with` block and its exit, so an
                # exception there would do what none can do: leave a lock locked.
                text = getline(frame.f_code.co_filename, frame.f_lineno)
                if frame.f_lineno not in lines or not text.lstrip().startswith("with "):
                    lines.add(frame.f_lineno)
                    interrupter.count()
            return trace_lines

        return trace_lines

    with _tracing(trace):
        yield


if sys.version_info >= (3, 12):

    @contextmanager
    def _at_opcodes(interrupter: _Interrupter) -> Iterator[None]:
        """Count opcodes. From Python 3.14 on, `sys.settrace` misses those of some calls."""
        events, thread = sys.monitoring.events, get_ident()

        def before_opcode(code: CodeType, _: int) -> None:
            if get_ident() == thread and interrupter.is_interrupted(code):
                interrupter.count()

        sys.monitoring.use_tool_id(_TOOL_ID, __name__)
        sys.monitoring.register_callback(_TOOL_ID, events.INSTRUCTION, before_opcode)
        sys.monitoring.set_events(_TOOL_ID, events.INSTRUCTION)
        try:
            yield
        finally:
            sys.monitoring.set_events(_TOOL_ID, events.NO_EVENTS)
            sys.monitoring.register_callback(_TOOL_ID, events.INSTRUCTION, None)
            sys.monitoring.free_tool_id(_TOOL_ID)

else:

    @contextmanager
    def _at_opcodes(interrupter: _Interrupter) -> Iterator[None]:
        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if not interrupter.is_interrupted(frame.f_code):
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                interrupter.count()
            return trace

        with _tracing(trace):
            yield


@contextmanager
def _tracing(trace: Callable[[FrameType, str, Any], Any]) -> Iterator[None]:
    former = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
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
        interrupter = _Interrupter(step, handler, paths)
        try:
            with _at_opcodes(interrupter) if by_opcode else _at_lines(interrupter):
                call()
        except BaseException as error:
            raised = error
        if interrupter.remaining > 0:
            return
        yield raised
