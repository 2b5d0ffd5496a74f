"""Logs in JSON, one record a line, by python-json-logger."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from heksher_client import Setting, ThreadHeksherClient

handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s"))
logging.basicConfig(level=logging.INFO, handlers=[handler])

cache_size = Setting(
    "cache_size", type=int, configurable_features=["user"], default_value=10
)

if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
    with ThreadHeksherClient(url, update_interval=60, context_features=["user"]):
        cache_size.get(user="jim")
