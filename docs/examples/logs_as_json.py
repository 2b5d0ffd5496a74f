"""Logs in JSON, one record per line, with python-json-logger."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from heksher_client import Setting, connect

handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s"))
logging.basicConfig(level=logging.INFO, handlers=[handler])

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

if __name__ == "__main__":
    with connect():
        cache_size.get(environment="prod", user="jim")
