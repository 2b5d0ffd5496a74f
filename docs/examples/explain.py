"""Explain the value of a setting."""

from heksher_client import Setting
from heksher_client.testing import Rule, SyncStubHeksherClient

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with SyncStubHeksherClient(context_features=["environment", "user"]) as stub:
    stub.set_defaults(environment="prod")
    stub[cache_size].rules = [
        Rule({"environment": "prod", "user": "jim"}, 200, 1),
        Rule({"user": "jim"}, 100, 2),
        Rule({"environment": "prod"}, 50, 3),
    ]
    resolution = cache_size.explain(user="jim")

print(resolution.value)
print(resolution.reason)  # Reason.RULE, SERVER_DEFAULT or DECLARED_DEFAULT
print(resolution.rule)
# The other rules that match, by descending priority:
print([rule.rule_id for rule in resolution.outranked])
print(dict(resolution.context))  # with the defaults of the client
