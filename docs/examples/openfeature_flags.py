"""Evaluate settings as OpenFeature flags."""

from openfeature import api
from openfeature.evaluation_context import EvaluationContext

from heksher_client import Setting, connect
from heksher_client.openfeature import HeksherProvider

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

client = connect()
api.set_provider_and_wait(HeksherProvider(client, targeting_key="user"))

flags = api.get_client()
details = flags.get_integer_details(
    "cache_size", 0, EvaluationContext("jim", {"environment": "prod"})
)
print(details.value, details.reason, details.variant)

api.shutdown()
client.close()
