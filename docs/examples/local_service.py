"""A service in a thread of the program."""

from heksher_client.service import LocalService

with LocalService(["environment", "user"]) as service:
    print(service.url.startswith("http://127.0.0.1:"))
