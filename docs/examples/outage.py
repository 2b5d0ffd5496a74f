"""A client that starts without its service, from what was last received."""

import sys

from heksher_client import Setting, ThreadHeksherClient

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
file = sys.argv[2] if len(sys.argv) > 2 else "settings.json"


# [health]
def health(client: ThreadHeksherClient) -> tuple[dict[str, object], int]:
    status = client.status()
    body: dict[str, object] = {"state": status.state, "age": status.age}
    return body, 200 if status.is_healthy else 503


# [client]
client = ThreadHeksherClient(
    url,
    update_interval=60,
    context_features=["environment", "user"],
    start_timeout=10,
    stale_after=600,
    last_known_good=file,
    max_age=24 * 3600,
)
# [end]
with client:
    print(cache_size.get(environment="prod", user="jim"), health(client)[1])
