"""Readers in threads while rules and defaults are swapped under them, a million times: `python -m benchmarks.swaps`.

The two updates that are swapped differ in their rules, in the features of these, and in the defaults that reads are
completed with. So a read that took one half from one update and one half from the other would give what neither gives.
"""

import argparse
import platform
import threading
import time

from heksher_client import Setting
from heksher_client._core.settings.context import Defaults
from heksher_client._core.settings.entry import PublishedRules
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client._core.settings.setting import entry_of

FEATURES = ("environment", "user")
READERS = 3
BETWEEN_LOOKS = 100
"""Reads of each kind before a reader looks whether it is to end."""


def update(user: str, value: int, **more: str) -> PublishedRules[int]:
    """A rule for the user that reads have by default, and a weaker one that would win for any other."""
    defaults = Defaults()
    defaults.update({"environment": "prod", "user": user})
    rules = [Rule({"user": user, **more}, value), Rule({"environment": "prod"}, -value)]
    rule_set, _ = RuleSet.build(group_by_features(rules), FEATURES, 0, Reason.SERVER_DEFAULT)
    return PublishedRules(rule_set, defaults)


class Reader(threading.Thread):
    """Reads until it is told to end."""

    def __init__(self, setting: Setting[int], ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._setting, self._ended = setting, ended
        self.reads = 0
        self.wrong: set[int] = set()

    def run(self) -> None:
        get = self._setting.get
        while not self._ended.is_set():
            by_default = {get() for _ in range(BETWEEN_LOOKS)}
            given = {get(user="ann") for _ in range(BETWEEN_LOOKS)}
            self.wrong |= (by_default - {1, 2}) | (given - {1, -2})
            self.reads += 2 * BETWEEN_LOOKS


def main() -> None:
    parser = argparse.ArgumentParser(description="Reads while rules are swapped under them.")
    parser.add_argument("--swaps", type=int, default=1_000_000)
    swaps = parser.parse_args().swaps
    setting = Setting("swapped", int, FEATURES, 0)
    updates = [update("ann", 1), update("bob", 2, environment="prod")]
    entry_of(setting).publish(updates[0])
    ended = threading.Event()
    readers = [Reader(setting, ended) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    started = time.perf_counter()
    for number in range(swaps):
        former = updates[number % 2]
        entry_of(setting).publish(PublishedRules(former.rule_set, former.defaults))
    seconds = time.perf_counter() - started
    ended.set()
    for reader in readers:
        reader.join()
    reads = sum(reader.reads for reader in readers)
    wrong = set[int]().union(*(reader.wrong for reader in readers))
    python = platform.python_version()
    print(f"Python {python}: {swaps:,} swaps in {seconds:.1f} s, {reads:,} reads, wrong values: {wrong or 0}")
    raise SystemExit(1 if wrong or not reads else 0)


if __name__ == "__main__":
    main()
