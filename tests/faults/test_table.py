"""The table of faults in the documentation and the tests have the same ids."""

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "reference" / "faults.md"
NAME = r"test_((?:[nhpcdfklmotw][0-9]+_)+)"
"""The beginning of the name of a test that has ids."""

WITHOUT_KIND = {
    # Event loops and tasks, which the thread client does not have
    "C3",
    "C4",
    # Stubs and the command line, which are the same for both clients
    "T1",
    "K4",
    # Programs of their own
    "C5",
    # `close` in a signal handler, which cannot await `aclose`
    "C13",
    # Overlapping calls of `aclose`
    "C16",
    # Event loops of other libraries
    "C17",
}
"""Rows that concern only one client or none, or whose tests run whole programs: none of their tests has the fixture
`kind`. Rows of the service (`L`) do not concern the clients."""


def ids_of_rows() -> list[str]:
    """Return the ids of the rows."""
    return re.findall(r"^\| ([A-Z][0-9]+) \|", TABLE.read_text(), re.MULTILINE)


@cache
def ids_of_tests() -> list[tuple[set[str], bool]]:
    """Return the ids in the name of each test, and whether it runs with both clients, whose drivers it needs."""
    found: list[tuple[set[str], bool]] = []
    for path in TESTS.rglob("test_*.py"):
        is_driven, code = path.is_relative_to(TESTS / "core"), path.read_text()
        if not re.search(rf"def {NAME}", code):
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (match := re.match(NAME, node.name)):
                ids = set(match[1].upper().strip("_").split("_"))
                found.append((ids, not is_driven and uses_kind(node)))
    return found


def uses_kind(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return True if a test has the fixture for both clients, and uses it. Other arguments may have the same name."""
    arguments = [ast.unparse(argument) for argument in test.args.args]
    return "kind: Kind" in arguments and any(
        isinstance(node, ast.Name) and node.id == "kind" for node in ast.walk(test)
    )


def test_each_row_of_the_table_has_a_test() -> None:
    """Each id in the name of a test has a row."""
    tested = {row for ids, _ in ids_of_tests() for row in ids}
    assert len(ids_of_rows()) == len(set(ids_of_rows()))
    assert set(ids_of_rows()) == tested


def test_each_row_of_the_table_is_tested_with_both_clients() -> None:
    """The exceptions are listed above."""
    tested = {row for ids, has_both in ids_of_tests() if has_both for row in ids}
    of_clients = {row for row in ids_of_rows() if not row.startswith("L")}
    assert of_clients - tested == WITHOUT_KIND
