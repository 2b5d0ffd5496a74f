"""Print the state of a client, problems of its settings, and a reason."""

from heksher_client import Setting, connect

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with connect() as client:
    status = client.status()
    print("state:", status.state)
    print("last error:", status.last_error)
    print("main client:", status.is_main)
    for name, setting in status.settings.items():
        print(name, setting.declaration, setting.problem)
        print("  rules:", setting.rules, "not used:", setting.first_rejected)
    resolution = cache_size.explain(environment="prod", user="jim")
    print("value:", resolution.value, "because of a", resolution.reason)
