"""Logs of the standard library, and so of this package, written by structlog."""

import logging
import sys

import structlog

from heksher_client import Setting, ThreadHeksherClient

formatter = structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=[
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
    ],
    processors=[
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.JSONRenderer(default=str),
    ],
)
handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(formatter)
logging.basicConfig(level=logging.INFO, handlers=[handler])

cache_size = Setting(
    "cache_size", type=int, configurable_features=["user"], default_value=10
)

if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
    with ThreadHeksherClient(url, update_interval=60, context_features=["user"]):
        cache_size.get(user="jim")
