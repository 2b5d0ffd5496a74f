"""Single requests of a program: to check the service, and to look at all of its settings."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import Exchange, Flow, Limits, NoResponse, Reply, Request
from heksher_client._core.refresh.options import Options
from heksher_client._core.refresh.positions import Positions, monotonic, position
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.responses import as_configured
from heksher_client.exceptions import ClientNotRunningError, HeksherError

T = TypeVar("T")


class ServiceRequests:
    """Sends requests within the limits of one client, and raises the errors that it is configured for."""

    def __init__(self, service_url: str, options: Options, positions: Positions) -> None:
        """Create it.

        Args:
            service_url: The URL of the service for errors, without user name and password.
            options: The limits, and the classes of errors.
            positions: The positions of the responses of this service.
        """
        self.service_url, self._error_classes = service_url.rstrip("/"), options.error_classes
        self.limits = Limits(options.request_timeout, max_bytes=options.max_response_bytes)
        """The limits of each request."""
        self.positions = positions
        self.is_closed = False

    def close(self) -> None:
        """Refuse all further requests."""
        self.is_closed = True

    def check_not_closed(self) -> None:
        """Raise an error if the client is closed.

        Raises:
            ClientNotRunningError: It is closed.
        """
        if self.is_closed:
            raise ClientNotRunningError("the client is closed: make a new one")

    def ping(self) -> Flow[None]:
        """Check that the service is healthy."""
        yield from self.send_once(protocol.HEALTH, protocol.parse_health)  # a replica that lags is healthy

    def get_settings(self) -> Flow[dict[str, SettingData]]:
        """Request all settings of the service."""
        return (yield from self.send(protocol.SETTINGS, protocol.parse_settings))

    def send(self, request: Request, parse: Callable[[Reply], T]) -> Flow[T]:
        """Send one request, and return what its response is parsed to. It is not older than a former one."""

        def parse_and_observe(reply: Reply) -> T:
            result = parse(reply)
            self.positions.observe(position(reply))
            return result

        return self._send(request, parse_and_observe, lambda one: monotonic(self._exchange(one), self.positions))

    def send_once(self, request: Request, parse: Callable[[Reply], T]) -> Flow[T]:
        """Send one request, and do not repeat it if its response is older than a former one: it may be a change."""
        return self._send(request, parse, self._exchange)

    def _send(
        self, request: Request, parse: Callable[[Reply], T], exchange: Callable[[Request], Flow[Reply]]
    ) -> Flow[T]:
        self.check_not_closed()
        reply = yield from exchange(request)
        if isinstance(reply, NoResponse):
            self.check_not_closed()  # which may be the reason
        try:
            return parse(reply)
        except HeksherError as error:
            (configured,) = self.configured([error])
            raise configured from error.__cause__

    def _exchange(self, request: Request) -> Flow[Reply]:
        replies: tuple[Reply, ...] = yield Exchange((request,), self.limits)
        return replies[0]

    def configured(self, errors: Iterable[Exception]) -> list[Exception]:
        """Return errors with the whole URL, and of the classes that the program has chosen."""
        return [as_configured(error, self.service_url, self._error_classes) for error in errors]
