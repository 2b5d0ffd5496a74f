"""A local Heksher service: an HTTP server with a database. Requires the extra `service`.

    with LocalService(["environment", "user", "theme"]) as service:
        ThreadHeksherClient(service.url, ...)

`LocalService` runs in a thread of this process. `create_app` returns the service as an ASGI application.
"""

try:
    from heksher_client.service.app import create_app
    from heksher_client.service.database import database_url
    from heksher_client.service.server import LocalService
except ModuleNotFoundError as error:  # pragma: no cover - a test runs it in another process
    raise ImportError(
        f"heksher_client.service needs {error.name}; install the extra: pip install 'heksher_client[service]'"
    ) from error

__all__ = ["LocalService", "create_app", "database_url"]
