"""The addresses of hosts: connections to one host that are opened within half a minute cost one name look-up.

httpx looks a name up for each connection, ten times at a start that sends ten requests at once. It has no public way to
change that, so the network backend of its connection pool is replaced. Where it is not found, nothing changes.
"""

from typing import Any, Final

from heksher_client._clock import monotonic


class ResolvedHosts:
    """The addresses that connections of one HTTP client were opened to. Safe to use from any thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[str, float]] = {}
        """The address by host and port, and the time until which it is used."""

    def address(self, host: str, port: int) -> str:
        """Return the address to connect to: that of the last connection, or the name itself."""
        address, until = self._known.get((host, port), (host, 0.0))
        return address if monotonic() < until else host

    def record(self, host: str, port: int, stream: Any) -> None:
        """Record the address of a connection that was opened by its name."""
        peer = stream.get_extra_info("server_addr")
        if isinstance(peer, tuple):
            self._known[host, port] = str(peer[0]), monotonic() + _LIFETIME

    def forget(self) -> None:
        """Look all names up again."""
        self._known.clear()

    def use_for(self, client: Any, *, is_async: bool) -> None:
        """Open the connections of an HTTP client to these addresses, also those to its proxies."""
        transports = [getattr(client, "_transport", None), *getattr(client, "_mounts", {}).values()]
        for transport in transports:
            pool = getattr(transport, "_pool", None)
            backend = getattr(pool, "_network_backend", None)
            if backend is not None:
                vars(pool)["_network_backend"] = (_AsyncBackend if is_async else _Backend)(backend, self)


class _Backend:
    """Opens connections as another network backend of httpcore does, but to known addresses.

    The first connection is opened by name, so that the backend tries all addresses. TLS checks the name in any case.
    """

    def __init__(self, backend: Any, hosts: ResolvedHosts) -> None:
        self._backend, self._hosts = backend, hosts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def connect_tcp(self, host: str, port: int, **arguments: Any) -> Any:
        if (address := self._hosts.address(host, port)) != host:
            try:
                return self._backend.connect_tcp(address, port, **arguments)
            except Exception:  # The service may have moved.
                self._hosts.forget()
        stream = self._backend.connect_tcp(host, port, **arguments)
        self._hosts.record(host, port, stream)
        return stream


class _AsyncBackend(_Backend):
    async def connect_tcp(self, host: str, port: int, **arguments: Any) -> Any:
        if (address := self._hosts.address(host, port)) != host:
            try:
                return await self._backend.connect_tcp(address, port, **arguments)
            except Exception:  # The service may have moved.
                self._hosts.forget()
        stream = await self._backend.connect_tcp(host, port, **arguments)
        self._hosts.record(host, port, stream)
        return stream


_LIFETIME: Final = 30.0
"""Seconds."""
