"""Options that all clients of a program share: keywords of a class."""

import sys

from heksher_client import Setting, ThreadHeksherClient, UnexpectedResponseError

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"


class Maintenance(UnexpectedResponseError): ...  # noqa: N818


class ShopClient(
    ThreadHeksherClient,
    service_url=url,
    headers={"X-Team": "shop"},
    error_classes={503: Maintenance},
): ...


client = ShopClient(
    update_interval=60,
    context_features=["environment", "user"],
    params={"region": "eu"},
    rate_limit=20,
)
with client:
    print(cache_size.get(environment="prod", user="jim"))
