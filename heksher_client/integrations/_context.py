"""Values of one request in context variables, from which reads take them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, Token
from typing import Any, TypeAlias, TypeVar

from heksher_client._core.settings.snapshot import pinned

RequestT = TypeVar("RequestT")

Values: TypeAlias = Mapping[ContextVar[str], Callable[[RequestT], str | None]]
"""By context variable, what finds its value in a request; None leaves the variable as it is."""
Held: TypeAlias = list[tuple[ContextVar[str], Token[str]]]


def check(values: Values[Any]) -> Values[Any]:
    """The values, as they are.

    Raises:
        TypeError: They are no mapping, or something is no context variable, or cannot be called.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"values must be a dict of functions by context variables, not {type(values).__name__}")
    for variable, find in values.items():
        if not isinstance(variable, ContextVar):
            raise TypeError(f"values must be by context variables, not by {variable!r}")
        if not callable(find):
            raise TypeError(f"what finds the value of {variable.name} must be a function, not {find!r}")
    return dict(values)


def found(values: Values[RequestT], request: RequestT) -> dict[ContextVar[str], str]:
    """What a request has for context variables.

    Raises:
        TypeError: Something else than text is found for one of them.
    """
    there: dict[ContextVar[str], str] = {}
    for variable, find in values.items():
        value: object = find(request)
        if isinstance(value, str):
            there[variable] = value
        elif value is not None:  # Only its type is said: it may be a user with all that is known of him.
            raise TypeError(f"what is found for {variable.name} must be text or None, not {type(value).__name__}")
    return there


def hold(values: Mapping[ContextVar[str], str]) -> Held:
    """Have context variables hold values; gives what it takes to undo that."""
    return [(variable, variable.set(value)) for variable, value in values.items()]


def let_go(held: Held) -> None:
    """Have context variables hold what they did before."""
    for variable, token in reversed(held):
        variable.reset(token)


@contextmanager
def holding(values: Mapping[ContextVar[str], str]) -> Iterator[None]:
    """Have context variables hold values inside the block."""
    held = hold(values)
    try:
        yield
    finally:
        let_go(held)


@contextmanager
def bound(values: Values[RequestT], request: RequestT, *, pin: bool) -> Iterator[None]:
    """Have the context variables hold what is found in a request.

    Args:
        values: What to find.
        request: Where.
        pin: Whether all reads inside the block see the rules of one moment.
    """
    with holding(found(values, request)), pinned() if pin else nullcontext():
        yield
