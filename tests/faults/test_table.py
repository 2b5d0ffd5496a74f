"""The table of faults in the documentation and the tests of this folder have the same ids."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "docs" / "reference" / "faults.md"


def test_each_row_of_the_table_has_a_test() -> None:
    """Each id in the name of a test has a row."""
    rows = re.findall(r"^\| ([NHPCD][0-9]+) \|", TABLE.read_text(), re.MULTILINE)
    functions = [
        node.name
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    prefixes = [match[1] for name in functions if (match := re.match(r"test_((?:[nhpcd][0-9]+_)+)", name))]
    tested = {name.upper() for prefix in prefixes for name in prefix.strip("_").split("_")}
    assert len(rows) == len(set(rows))
    assert set(rows) == tested
