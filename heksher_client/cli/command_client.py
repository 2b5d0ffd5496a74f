"""The client of commands: an admin client, with the defaults of a profile and the stream of changes."""

from collections.abc import Callable, Mapping

from heksher_client._core.refresh.effects import Flow
from heksher_client._drivers.thread_client import ThreadHeksherClient, internals
from heksher_client.admin import AdminClient


class CommandClient(AdminClient):
    """An admin client with what only commands need."""

    def __init__(self, client: ThreadHeksherClient) -> None:
        """Use the URL, the credentials and the connections of a client, which is closed with this one."""
        self._client = client

    @property
    def defaults(self) -> Mapping[str, str]:
        """The default values of context features, except those from context variables and callables."""
        defaults = internals(self._client).session.defaults
        return {name: value for name, value in defaults.items() if isinstance(value, str)}

    def follow(self, flow: Callable[[], Flow[None]]) -> None:
        """Run a flow that follows the stream of changes, in a thread of its own, unless one is running."""
        internals(self._client).stream.start(lambda: self._run(flow()))

    def close(self) -> None:
        """End the change stream, and close the client."""
        internals(self._client).stream.end()
        super().close()
