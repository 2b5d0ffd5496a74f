"""Reads in threads while rules and defaults are swapped, a million times: `python -m benchmarks.swaps`.

The two states that are swapped differ in their rules, in the features of the rules, and in the defaults of the context.
So a read that mixed the two states would return a value that neither of them has.
"""

import argparse
import platform
import threading
import time

from heksher_client import Setting
from heksher_client._core.settings import entry as entry_module
from heksher_client._core.settings.context import Defaults
from heksher_client._core.settings.entry import PublishedRules
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client._core.settings.setting import entry_of

FEATURES = ("environment", "user")
READERS = 3
READS_PER_CHECK = 100
"""Reads of each kind between two checks for the end."""


def make_state(user: str, value: int, **conditions: str) -> PublishedRules[int]:
    """Return a state with a rule for the default user, and a weaker rule that matches all users."""
    defaults = Defaults()
    defaults.update({"environment": "prod", "user": user})
    rules = [Rule({"user": user, **conditions}, value), Rule({"environment": "prod"}, -value)]
    rule_set, _ = RuleSet.build(group_by_features(rules), FEATURES, 0, Reason.SERVER_DEFAULT)
    return PublishedRules(rule_set, defaults)


class Reader(threading.Thread):
    """A thread that reads until the event `ended` is set."""

    def __init__(self, setting: Setting[int], ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._setting, self._ended = setting, ended
        self.reads = 0
        self.wrong: set[int] = set()

    def run(self) -> None:
        while not self._ended.is_set():
            get = self._setting.get
            by_default = {get() for _ in range(READS_PER_CHECK)}
            by_argument = {get(user="ann") for _ in range(READS_PER_CHECK)}
            self.wrong |= (by_default - {1, 2}) | (by_argument - {1, -2})
            self.reads += 2 * READS_PER_CHECK


def main() -> None:
    parser = argparse.ArgumentParser(description="Read in threads while rules are swapped.")
    parser.add_argument("--swaps", type=int, default=1_000_000)
    swaps = parser.parse_args().swaps
    entry_module.READS_BEFORE_COMPILATION = 0  # There are few reads between two swaps, and all kinds are to be mixed.
    setting = Setting("swapped", int, FEATURES, 0)
    states = [make_state("ann", 1), make_state("bob", 2, environment="prod")]
    entry = entry_of(setting)
    entry.publish(states[0])
    ended = threading.Event()
    readers = [Reader(setting, ended) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    started = time.perf_counter()
    for number in range(swaps):
        state = states[number % 2]
        entry.publish(PublishedRules(state.rule_set, state.defaults))
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
