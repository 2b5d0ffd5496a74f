"""Hearing of changes in a thread of its own."""

import sys
from threading import Thread

from heksher_client import Change, Changes, Setting, ThreadHeksherClient

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


# [callbacks]
@cache_size.on_change
def resize(change: Change[int]) -> None:
    print(f"{len(change.added)} rules were added")


# [iterators]
def follow(changes: Changes) -> None:
    for change in changes:  # until the client closes
        seen.append(change.setting.name)


# [end]
url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
client = ThreadHeksherClient(
    url, update_interval=60, context_features=["environment", "user"]
)
seen: list[str] = []
thread = Thread(target=follow, args=[client.changes()])
thread.start()
with client:
    client.reload()
thread.join()
print(f"the thread has seen changes of {seen}")
