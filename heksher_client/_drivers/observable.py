"""The part of clients and stubs that integrations observe."""

from collections.abc import Callable
from typing import Any, Protocol

from heksher_client._core.refresh.status import Refresh, RefreshCallbackT, Status
from heksher_client._core.settings.setting import Change, ChangeCallbackT


class Observable(Protocol):
    """A client, or a stub in its place."""

    def status(self) -> Status: ...  # pragma: no cover - a protocol
    def on_change(self, callback: ChangeCallbackT, /) -> ChangeCallbackT: ...  # pragma: no cover - a protocol
    def off_change(self, callback: Callable[[Change[Any]], object], /) -> None: ...  # pragma: no cover - a protocol
    def on_refresh(self, callback: RefreshCallbackT, /) -> RefreshCallbackT: ...  # pragma: no cover - a protocol
    def off_refresh(self, callback: Callable[[Refresh], object], /) -> None: ...  # pragma: no cover - a protocol


def check_observable(client: object) -> None:
    """Raise if an object is not a client or a stub.

    Raises:
        TypeError: It is not.
    """
    if isinstance(client, type) or not callable(getattr(client, "on_refresh", None)):
        raise TypeError(f"client must be a client or a stub, not {client!r}")
