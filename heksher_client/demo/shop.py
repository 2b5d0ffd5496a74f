"""The settings of a shop, declared as in a program. Their rules are in `shop.json`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum, IntFlag
from typing import Any, Final, NamedTuple

from heksher_client import Setting

CONTEXT_FEATURES: Final = ("environment", "user", "theme")

user: Final[ContextVar[str]] = ContextVar("user")
theme: Final[ContextVar[str]] = ContextVar("theme")


class Color(Enum):
    WHITE = "white"
    GREY = "grey"
    BLACK = "black"


class LogLevel(Enum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Payment(IntFlag):
    CARD = 1
    TRANSFER = 2
    INVOICE = 4
    VOUCHER = 8


SETTINGS: Final[Sequence[Setting[Any]]] = (
    Setting("shop.cache_size", int, ["environment", "user"], 100),
    Setting("shop.requests_per_second", float, ["environment", "user"], 5.0),
    Setting("shop.background_color", Color, ["environment", "user", "theme"], Color.WHITE),
    Setting("shop.new_checkout", bool, ["environment", "user"], False),
    Setting("shop.shipping_prices", Mapping[str, float], ["environment", "user"], {"standard": 4.9, "express": 12.9}),
    Setting("shop.payment_methods", Payment, ["environment", "user"], Payment.CARD),
    Setting("shop.page_size", int, ["user", "theme"], 20),
    Setting("shop.greeting", str, ["user", "theme"], "Welcome"),
    Setting("shop.promoted_products", Sequence[str], ["environment", "theme"], []),
    Setting("shop.log_level", LogLevel, ["environment", "user"], LogLevel.INFO),
)


class Visitor(NamedTuple):
    """A visitor of the shop."""

    user: str
    theme: str

    def __str__(self) -> str:
        return f"{self.user}, {self.theme}"


VISITORS: Final = (
    Visitor("guest", "light"),
    Visitor("jim", "dark"),
    Visitor("partner", "compact"),
)


@contextmanager
def request_of(visitor: Visitor) -> Iterator[None]:
    """Set the context variables for a visitor's request, as the middleware of a web framework does."""
    user_token, theme_token = user.set(visitor.user), theme.set(visitor.theme)
    try:
        yield
    finally:
        user.reset(user_token)
        theme.reset(theme_token)


def format_value(value: Any) -> str:
    """Format the value of a setting for people."""
    match value:
        case IntFlag():
            return " ".join(str(flag.name) for flag in value).lower() or "none"
        case Enum():
            return str(value.value)
        case Mapping():
            return ", ".join(f"{key} {format_value(element)}" for key, element in value.items())
        case tuple():
            return ", ".join(map(format_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
