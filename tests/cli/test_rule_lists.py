"""The command `rules list`: the rules that it selects, their order, and the columns of its table."""

import pytest

from heksher_client.service import store
from heksher_client.service.operations import require_rule
from tests.support.commands import Run
from tests.support.service import WatchedService


@pytest.fixture(autouse=True)
def _author(shop: WatchedService) -> None:
    """The token ann has changed the rule 2."""
    assert shop.database is not None
    with shop.database.begin(actor="ann") as connection:
        rule, setting = require_rule(connection, 2)
        store.change_rule(connection, setting, rule, value=101)


@pytest.mark.parametrize(
    ("options", "rule_ids"),
    [
        (["--text", "PROD"], [1, 3]),
        (["--text", "user=ji", "--value", "00"], [1]),
        (["--value", "5"], [3]),
        (["--author", "ann"], [2]),
        (["--author", "an"], []),
        (["--sort", "rule"], [1, 2, 3]),
        (["--sort", "value"], [3, 2, 1]),
        (["--sort", "value", "--reverse"], [1, 2, 3]),
        (["--sort", "changed"], [2, 3, 1]),
        (["--reverse"], [3, 2, 1]),
    ],
)
def test_rules_are_selected_and_sorted(run: Run, options: list[str], rule_ids: list[int]) -> None:
    """As in the console, in the table and as JSON."""
    assert [rule["rule_id"] for rule in run("rules", "cache_size", *options, "--json").json] == rule_ids
    table = run("rules", "cache_size", *options).out
    if rule_ids:
        assert [line.split()[0] for line in table.splitlines()[1:]] == list(map(str, rule_ids))
    else:
        assert table == "No rule meets these criteria.\n"


def test_the_table_has_the_default_value_if_it_shows_all_rules_the_strongest_first(run: Run) -> None:
    assert run("rules", "cache_size").out.splitlines()[-1].split() == ["default", "*", "*", "10"]
    assert [line.split()[0] for line in run("rules", "shop.color").out.splitlines()] == ["rule", "default"]
    assert run("rules", "shop.color", "--sort", "rule").out == "No rules.\n"


def test_the_table_has_authors_and_times_if_rules_are_selected_or_sorted_by_them(run: Run) -> None:
    assert run("rules", "cache_size").out.split("\n")[0].split() == ["rule", "environment", "user", "value"]
    for options in (["--author", "ann"], ["--sort", "changed"]):
        header, first, *_ = run("rules", "cache_size", *options).out.splitlines()
        assert header.split() == ["rule", "environment", "user", "value", "changed", "author"]
        assert first.split()[-1] == "ann"


def test_a_note_says_how_many_rules_are_left_out(run: Run) -> None:
    """They are weaker ones only if the strongest come first."""
    outcome = run("rules", "list", "cache_size", "user=jim", "--limit", "1")
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["rule", "1"]
    assert outcome.err == "Note: 1 weaker rule is not shown; use --limit 2, or conditions such as user=jim.\n"
    outcome = run("rules", "list", "cache_size", "--sort", "rule", "--limit", "1")
    assert outcome.err == "Note: 2 more rules are not shown; use --limit 3, or conditions such as user=jim.\n"
