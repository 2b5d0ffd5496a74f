"""The reference of log records, held against the code; and what formatters make of the records."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.service import Answer, WatchedService

ROOT = Path(__file__).parents[2]
METHODS = {"exception": "ERROR", "error": "ERROR", "warning": "WARNING", "info": "INFO", "debug": "DEBUG"}


class Record(NamedTuple):
    """A record that the code can log, or that the reference tells of."""

    message: str
    levels: frozenset[str]
    extras: frozenset[str]


def in_reference() -> list[Record]:
    text = (ROOT / "docs" / "reference" / "logs.md").read_text()
    rows = re.findall(r"^\| ([A-Z, ]+) \| `(.+?)` \|(.*?)\| .+ \|$", text, re.MULTILINE)
    return [
        Record(message, frozenset(levels.split(", ")), frozenset(re.findall(r"`(\w+)`", extras)))
        for levels, message, extras in rows
    ]


def in_code() -> list[Record]:
    found: dict[str, Record] = {}
    for path in sorted((ROOT / "heksher_client").rglob("*.py")):
        if "service" in path.parts:
            continue  # it has a log of its own
        for record in _records(ast.parse(path.read_text())):
            other = found.get(record.message, record)
            found[record.message] = Record(record.message, record.levels | other.levels, record.extras | other.extras)
    return list(found.values())


def _records(tree: ast.Module) -> Iterator[Record]:
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for call in ast.walk(function):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            name = call.func.attr
            if ast.unparse(call.func.value) == "logger" and name in (*METHODS, "log"):
                at = 1 if name == "log" else 0
                levels = _levels(ast.unparse(call.args[0])) if name == "log" else {METHODS[name]}
                if isinstance(call.args[at], ast.Constant):
                    yield Record(_text(call.args[at]), frozenset(levels), frozenset(_extras(call, function)))
            elif name == "_log_problem":
                yield Record(_text(call.args[0]), frozenset({"WARNING"}), frozenset({"error"}))


def _levels(expression: str) -> set[str]:
    return set(re.findall(r"logging\.([A-Z]+)", expression)) or {"WARNING", "INFO"}


def _text(node: ast.expr) -> str:
    value = ast.literal_eval(node)
    assert isinstance(value, str)
    return value


def _extras(call: ast.Call, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg != "extra":
            continue
        extra: ast.expr = keyword.value
        if isinstance(extra, ast.Name):
            name = extra.id
            (extra,) = (
                node.value for node in ast.walk(function)
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
            )  # fmt: skip
        assert isinstance(extra, ast.Dict)
        for key in extra.keys:
            if isinstance(key, ast.Constant):
                yield str(key.value)
            else:
                assert isinstance(key, ast.JoinedStr)
                assert ast.unparse(key) == "f'{what}_rules'"
                yield from ("rejected_rules", "coerced_rules")


def test_the_reference_has_every_record_that_the_code_logs_and_no_other() -> None:
    """Message, levels and extras."""
    assert len(in_reference()) > 20
    assert set(in_code()) - set(in_reference()) == set()
    assert set(in_reference()) - set(in_code()) == set()


@pytest.mark.parametrize("example", ["logs_as_json", "logs_with_structlog"])
def test_formatters_for_json_take_the_records(example: str, service: WatchedService) -> None:
    """Objects among the extras included: each line is JSON, and has the message and its data."""
    service.declare("cache_size", "int", 10, ["user"])
    service.declare("cache_size", "int", 11, ["user"], version="2.0")
    service.answering("GET /api/v1/query", Answer(503))
    ran = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "examples" / f"{example}.py"), service.url],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    told = {str(line.get("message") or line.get("event")): line for line in lines}
    (failed,) = [line for message, line in told.items() if message.startswith("refresh failed: ")]
    assert "503" in str(failed["error"])
    (outdated,) = [line for message, line in told.items() if "is outdated" in message]
    assert (outdated["setting"], outdated["latest_version"]) == ("cache_size", "2.0")
