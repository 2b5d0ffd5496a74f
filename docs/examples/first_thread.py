"""A program with threads, and a setting that depends on environment and user."""

import sys
from contextvars import ContextVar

from heksher_client import Setting, ThreadHeksherClient

current_user: ContextVar[str] = ContextVar("current_user", default="nobody")
cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

url = sys.argv[1] if len(sys.argv) > 1 else "http://heksher:8080"
with ThreadHeksherClient(
    url, update_interval=60, context_features=["environment", "user"]
) as client:
    client.set_defaults(environment="prod", user=current_user)
    print(cache_size.get())  # for the user of the context
    print(cache_size.get(user="jim"))  # for a user that is given
