"""The table of mutation scores has the present modules of the core."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "heksher_client" / "_core"
SECTION = (ROOT / "docs" / "explanation" / "reliability.md").read_text().partition("## Mutation testing")[2]


def can_be_mutated(module: Path) -> bool:
    """Return True if there is code that mutmut changes: a function without a decorator."""
    nodes = ast.walk(ast.parse(module.read_text()))
    return any(isinstance(node, ast.FunctionDef) and not node.decorator_list for node in nodes)


def test_each_module_of_the_core_has_a_mutation_score() -> None:
    """Or is named below the table, as one that was not measured."""
    table, _, text = SECTION.partition("\n| all |")
    rows = re.findall(r"^\| `(\w+/\w+)` \|", table, re.MULTILINE)
    modules = {path.relative_to(CORE).with_suffix("").as_posix(): path for path in CORE.rglob("*.py")}
    expected = {name for name, path in modules.items() if can_be_mutated(path)}
    others = set(re.findall(r"`((?:refresh|settings)/\w+)`", text)) - set(rows)
    assert rows == sorted(expected - others)
    assert others <= expected


def test_the_sums_of_the_mutation_scores_are_correct() -> None:
    """They are of the rows above."""
    rows = re.findall(r"^\| (.+) \| ([\d,]+) \| (all|[\d,]+) \| ([\d.]+) % \|$", SECTION, re.MULTILINE)
    numbers = [(int(total.replace(",", "")), run.replace(",", ""), float(killed)) for _, total, run, killed in rows]
    *modules, total = [(total, total if run == "all" else int(run), killed) for total, run, killed in numbers]
    assert total[:2] == (sum(row[0] for row in modules), sum(row[1] for row in modules))
    assert abs(total[2] - sum(run * killed for _, run, killed in modules) / total[1]) < 0.1
