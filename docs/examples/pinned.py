"""One snapshot of all settings during a request."""

from heksher_client import Setting, pinned
from heksher_client.testing import SyncStubHeksherClient

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with SyncStubHeksherClient() as stub:
    with pinned():
        stub[cache_size].rules = 20  # an update, in the middle of a request
        print(cache_size.get(environment="prod", user="jim"))
    print(cache_size.get(environment="prod", user="jim"))
