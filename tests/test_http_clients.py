"""The HTTP clients with which tests send requests."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
CALL = r"httpx2?\.(Client|AsyncClient|request|stream|get|options|head|post|put|patch|delete)"


def test_each_http_client_has_a_timeout_of_its_own() -> None:
    """The default of httpx may be too short for a busy machine: see `tests.support.http`. A transport needs none."""
    found = []
    for path in TESTS.rglob("*.py"):
        code = path.read_text()
        for node in ast.walk(ast.parse(code)) if re.search(rf"{CALL}\(", code) else ():
            if isinstance(node, ast.Call) and re.fullmatch(CALL, ast.unparse(node.func)):
                given = {keyword.arg or "**" for keyword in node.keywords}
                if not given & {"timeout", "transport", "**"}:
                    found.append(f"{path.relative_to(TESTS)}:{node.lineno}")
    assert found == []
