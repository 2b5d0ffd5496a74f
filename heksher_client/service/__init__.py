"""A local Heksher service: real HTTP on a real database. Needs the extra `service`.

with LocalService(["environment", "user", "theme"]) as service:
ThreadHeksherClient(service.url, ...)
"""

from heksher_client.service.app import create_app
from heksher_client.service.server import LocalService

__all__ = ["LocalService", "create_app"]
