"""A client that can start without the service, from its last known good file."""

from heksher_client import Setting, ThreadHeksherClient, connect

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


def health(client: ThreadHeksherClient) -> tuple[dict[str, object], int]:
    status = client.status()
    body: dict[str, object] = {"state": status.state, "age": status.age}
    return body, 200 if status.is_healthy else 503


client = connect(
    update_interval=60,
    start_timeout=10,
    stale_after=600,
    last_known_good="settings.json",
    max_age=24 * 3600,
)
with client:
    print(cache_size.get(environment="prod", user="jim"), health(client)[1])
