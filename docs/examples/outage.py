"""A client that starts without its service, from what was last received."""

import sys

from heksher_client import Setting, ThreadHeksherClient

cache_size = Setting("cache_size", type=int, configurable_features=["environment", "user"], default_value=10)


# [health]
def health(client: ThreadHeksherClient) -> tuple[dict[str, object], int]:
    status = client.status()
    return {"state": status.state, "age": status.age}, 200 if status.is_healthy else 503


# [client]
client = ThreadHeksherClient(
    sys.argv[1],
    update_interval=60,
    context_features=["environment", "user"],
    start_timeout=10,
    stale_after=600,
    last_known_good=sys.argv[2],
    max_age=24 * 3600,
)
# [end]
with client:
    print(cache_size.get(environment="prod", user="jim"), health(client)[1])
