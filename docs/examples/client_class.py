"""Options shared by all clients of a program: keywords of a class."""

import os

from heksher_client import Setting, ThreadHeksherClient, UnexpectedResponseError

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


class Maintenance(UnexpectedResponseError): ...  # noqa: N818


class ShopClient(
    ThreadHeksherClient,
    service_url=os.environ["HEKSHER_URL"],
    headers={"X-Team": "shop"},
    error_classes={503: Maintenance},
): ...


client = ShopClient(
    update_interval=60,
    params={"region": "eu"},
    rate_limit=20,
)
with client:
    print(cache_size.get(environment="prod", user="jim"))
