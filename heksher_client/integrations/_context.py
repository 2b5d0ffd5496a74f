"""Context values of one request: extracted from it, and set in context variables while it is handled.

Reads use a context variable that is the client's default for a context feature. The context managers reset every
variable that they set, also if the block raises.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, Token
from typing import Any, TypeAlias, TypeVar

from heksher_client._core.settings.context_values import type_error
from heksher_client._core.settings.snapshot import pinned
from heksher_client._core.settings.user_functions import check_function, plain_result

RequestT = TypeVar("RequestT")

Extractors: TypeAlias = Mapping[ContextVar[str], Callable[[RequestT], str | None]]
"""For each context variable, a function that returns its value for a request, or None to leave the variable
unchanged."""
Tokens: TypeAlias = list[tuple[ContextVar[str], Token[str]]]


def check_extractors(extractors: Extractors[Any]) -> Extractors[Any]:
    """Return a copy of the extractors.

    Raises:
        TypeError: The argument is not a mapping of context variables to functions.
    """
    if not isinstance(extractors, Mapping):
        raise TypeError(f"values must be a dict of functions by context variable, not {type(extractors).__name__}")
    for variable, extract in extractors.items():
        if not isinstance(variable, ContextVar):
            raise TypeError(f"the keys of values must be context variables, not {variable!r}")
        check_function(extract, f"values: the value for {variable.name}")
    return dict(extractors)


def extract_values(extractors: Extractors[RequestT], request: RequestT) -> dict[ContextVar[str], str]:
    """Return the values that a request has for context variables.

    Raises:
        TypeError: A value is not a string. It would match no rule, without a visible cause.
    """
    values: dict[ContextVar[str], str] = {}
    for variable, extract in extractors.items():
        value: object = extract(request)
        if isinstance(value, str):
            values[variable] = value
        elif plain_result(extract, value) is not None:
            raise type_error(f"the value for {variable.name}", value, "a str or None")
    return values


def set_variables(values: Mapping[ContextVar[str], str]) -> Tokens:
    """Set context variables, and return the tokens that reset them."""
    return [(variable, variable.set(value)) for variable, value in values.items()]


def reset_variables(tokens: Tokens) -> None:
    """Restore the values that context variables had before `set_variables`."""
    for variable, token in reversed(tokens):
        variable.reset(token)


@contextmanager
def variables_set(values: Mapping[ContextVar[str], str]) -> Iterator[None]:
    """Set context variables inside the block."""
    tokens = set_variables(values)
    try:
        yield
    finally:
        reset_variables(tokens)


@contextmanager
def request_context(extractors: Extractors[RequestT], request: RequestT, *, pin: bool) -> Iterator[None]:
    """Set context variables to the values of a request inside the block.

    Args:
        extractors: The functions that return the values.
        request: The argument of these functions.
        pin: If true, all reads inside the block use the same rules.
    """
    with variables_set(extract_values(extractors, request)), pinned() if pin else nullcontext():
        yield
