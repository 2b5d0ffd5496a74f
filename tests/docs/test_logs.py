"""The reference of log records, compared with the code, and the examples that format records."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.commands import environment
from tests.support.service import CannedResponse, WatchedService

ROOT = Path(__file__).parents[2]
METHODS = {"exception": "ERROR", "error": "ERROR", "warning": "WARNING", "info": "INFO", "debug": "DEBUG"}


class Record(NamedTuple):
    """A record in the code or in the reference."""

    message: str
    levels: frozenset[str]
    extras: frozenset[str]


def records_in_reference() -> list[Record]:
    text = (ROOT / "docs" / "reference" / "logs.md").read_text()
    rows = re.findall(r"^\| ([A-Z, ]+) \| `(.+?)` \|(.*?)\| .+ \|$", text, re.MULTILINE)
    return [
        Record(message, frozenset(levels.split(", ")), frozenset(re.findall(r"`(\w+)`", extras)))
        for levels, message, extras in rows
    ]


def records_in_code() -> list[Record]:
    """Return one record for each logging call."""
    return [
        record
        for path in sorted((ROOT / "heksher_client").rglob("*.py"))
        if "service" not in path.parts  # The service has a separate log.
        for record in _records(ast.parse(path.read_text(), path.name))
    ]


def _records(tree: ast.Module) -> Iterator[Record]:
    for call, scope in _calls(tree, tree):
        name, receiver = call.func.attr, ast.unparse(call.func.value)
        if name == "_log_problem":
            yield Record(_text(call.args[0]), frozenset({"WARNING"}), frozenset({"error"}))
        elif _is_logging(receiver, name) and getattr(scope, "name", None) != "_log_problem":
            yield _record(call, receiver, scope)


def _calls(node: ast.AST, scope: ast.AST) -> Iterator[tuple[Any, ast.AST]]:
    """Yield all method calls, each with the innermost function around it, or the module."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            yield child, scope
        yield from _calls(child, child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else scope)


def _is_logging(receiver: str, name: str) -> bool:
    is_logger = re.search(r"logg(er|ing)\b", receiver, re.IGNORECASE) is not None
    return is_logger and name not in ("getLogger", "addFilter", "basicConfig")


def _record(call: Any, receiver: str, scope: ast.AST) -> Record:
    """Return the record of a logging call.

    Raises:
        AssertionError: The call is written in a way that this parser does not support.
    """
    name, location = call.func.attr, f"line {call.lineno}: {ast.unparse(call)}"
    assert receiver == "logger", location
    assert name in (*METHODS, "log"), location
    message_index = 1 if name == "log" else 0
    assert len(call.args) > message_index, location
    levels = _levels(ast.unparse(call.args[0])) if name == "log" else {METHODS[name]}
    return Record(_text(call.args[message_index]), frozenset(levels), frozenset(_extras(call, scope)))


def _levels(expression: str) -> set[str]:
    return set(re.findall(r"logging\.([A-Z]+)", expression)) or {"WARNING", "INFO"}


def _text(node: ast.expr) -> str:
    assert isinstance(node, ast.Constant), f"line {node.lineno}: the message must be a literal in the call"
    assert isinstance(node.value, str), f"line {node.lineno}"
    return node.value


def _extras(call: ast.Call, scope: ast.AST) -> Iterator[str]:
    for keyword in call.keywords:
        assert keyword.arg is not None, f"line {call.lineno}: ** is not supported"
        if keyword.arg != "extra":
            continue
        extra: ast.expr = keyword.value
        if isinstance(extra, ast.Name):
            name = extra.id
            assigned = [
                node.value for node in ast.walk(scope)
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
            ]  # fmt: skip
            assert len(assigned) == 1, f"line {call.lineno}: {name}"
            extra = assigned[0]
        assert isinstance(extra, ast.Dict), f"line {call.lineno}: extra must be a dict"
        for key in extra.keys:
            if isinstance(key, ast.Constant):
                yield str(key.value)
            else:
                assert isinstance(key, ast.JoinedStr)
                assert ast.unparse(key) == "f'{what}_rules'"
                yield from ("rejected_rules", "coerced_rules")


def test_the_reference_lists_every_record_in_the_code() -> None:
    """Messages, levels and extras are equal, and the reference lists no other record."""
    reference = {record.message: record for record in records_in_reference()}
    assert len(reference) == len(records_in_reference()) > 20
    levels: dict[str, frozenset[str]] = {}
    for record in records_in_code():
        assert record.message in reference, record
        assert record.extras == reference[record.message].extras, record
        levels[record.message] = levels.get(record.message, frozenset()) | record.levels
    assert levels == {message: record.levels for message, record in reference.items()}


@pytest.mark.parametrize(
    "call",
    [
        'logger.warning(f"setting {name} is odd")',
        "logger.warning(message)",
        'logger.warning("setting " + name)',
        "logger.warning()",
        "logger.log(logging.INFO, message)",
        'logger.warn("odd")',
        'logger.critical("odd")',
        'logging.warning("odd")',
        'logging.getLogger("heksher_client").warning("odd")',
        'self._logger.warning("odd")',
        'logger.warning("odd", extra=made(name))',
        'logger.warning("odd", extra=extra)',
        'logger.warning("odd", **more)',
    ],
)
@pytest.mark.parametrize("template", ["{}", "def f():\n    {}", "class C:\n    async def f(self):\n        {}"])
def test_an_unsupported_logging_call_is_an_error(call: str, template: str) -> None:
    """It is not skipped, at any nesting level."""
    with pytest.raises(AssertionError):
        list(_records(ast.parse(template.format(call))))


def test_logging_calls_are_found_at_any_nesting_level() -> None:
    """They are in modules and in nested functions, and their extras may be a variable."""
    code = """
logger.info("a", extra={"x": 1})
def f():
    extra = {"y": 1}
    def g():
        extra = {"z": 1}
        logger.error("a", extra=extra)
"""
    assert list(_records(ast.parse(code))) == [
        Record("a", frozenset({"INFO"}), frozenset({"x"})),
        Record("a", frozenset({"ERROR"}), frozenset({"z"})),
    ]


@pytest.mark.parametrize("example", ["logs_as_json", "logs_with_structlog"])
def test_json_formatters_accept_the_records(example: str, service: WatchedService) -> None:
    """Each line is JSON with the message and its extras, including extras that are objects."""
    service.declare("cache_size", "int", 10, ["user"])
    service.declare("cache_size", "int", 11, ["user"], version="2.0")
    service.respond_with("GET /api/v1/query", CannedResponse(503))
    result = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "examples" / f"{example}.py")],
        env=environment(HEKSHER_URL=service.url), capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    records = {str(line.get("message") or line.get("event")): line for line in lines}
    (failed,) = [line for message, line in records.items() if message.startswith("refresh failed: ")]
    assert "503" in str(failed["error"])
    (outdated,) = [line for message, line in records.items() if "is outdated" in message]
    assert (outdated["setting"], outdated["latest_version"]) == ("cache_size", "2.0")
