"""React to changes in a thread."""

import os
from threading import Thread

from heksher_client import Change, Changes, Setting, ThreadHeksherClient

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


@cache_size.on_change
def resize(change: Change[int]) -> None:
    print(f"{len(change.added)} rules were added")


def follow(changes: Changes) -> None:
    for change in changes:  # until the client closes
        seen.append(change.setting.name)


client = ThreadHeksherClient(os.environ["HEKSHER_URL"], update_interval=60)
seen: list[str] = []
thread = Thread(target=follow, args=[client.changes()])
thread.start()
with client:
    client.reload()
thread.join()
print(f"the thread has seen changes of {seen}")
