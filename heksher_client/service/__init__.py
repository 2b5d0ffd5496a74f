"""A local Heksher service: real HTTP on a real database. Needs the extra `service`.

    with LocalService(["environment", "user", "theme"]) as service:
        ThreadHeksherClient(service.url, ...)

It answers in a thread of this process. `create_app` gives the same as an ASGI application.
"""

try:
    from heksher_client.service.app import create_app
    from heksher_client.service.database import database_url
    from heksher_client.service.server import LocalService
except ModuleNotFoundError as error:  # pragma: no cover - a test runs it in another process
    raise ImportError(
        f"heksher_client.service needs {error.name}, which an extra brings: pip install 'heksher_client[service]'"
    ) from error

__all__ = ["LocalService", "create_app", "database_url"]
