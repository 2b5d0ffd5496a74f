"""The page on the architecture describes the present modules and layers."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "heksher_client"
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()


def first_sentence(module: Path) -> str:
    """Return the first sentence of a module's docstring, as a table writes it."""
    paragraph = " ".join((ast.get_docstring(ast.parse(module.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", paragraph)[0].replace("|", r"\|")


def test_the_page_has_one_line_for_each_module() -> None:
    """With the first sentence of the module. Packages without code, and single migrations, are left out."""
    rows = dict(re.findall(r"^\| `([\w/]+\.py)` \| (.+) \|$", PAGE.partition("## Modules")[2], re.MULTILINE))
    modules = {
        path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py") if "versions" not in path.parts
    }
    described = {
        name: first_sentence(path) for name, path in modules.items() if name in rows or path.name != "__init__.py"
    }
    assert rows == described


def test_the_page_shows_the_layers_that_are_checked() -> None:
    """From the top; the two halves of the core are layers of their own."""
    (block,) = re.findall(r"```text\n(.+?)```", PAGE, re.DOTALL)
    shown = [re.split(r"\s{2,}", line.strip())[0] for line in block.splitlines()]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {contract["name"]: contract["layers"] for contract in contracts if contract["type"] == "layers"}
    core = [f"_core/{layer}" for layer in layers["The layers of the core"]]
    expected = [name for layer in layers["The layers"] for name in (core if layer == "_core" else [layer])]
    assert shown == expected


def test_the_page_names_only_modules_that_exist() -> None:
    """In the text as well."""
    for name in re.findall(r"`([\w/]+\.py)`", PAGE.partition("## Modules")[0]):
        assert list(PACKAGE.rglob(name)), name


def test_no_module_imports_a_private_name_of_another_one() -> None:
    """Modules may be private; names in them are not, if others use them. ruff checks attributes."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for name in node.names
        if name.name.startswith("_") and not name.name.startswith("__") and not is_module(node.module, name.name)
    ]
    assert found == []


def is_module(package: str, name: str) -> bool:
    return (ROOT / package.replace(".", "/") / f"{name}.py").exists() or (
        ROOT / package.replace(".", "/") / name
    ).is_dir()


def test_only_the_runtime_starts_threads_and_registers_fork_hooks() -> None:
    """So that one place knows which threads a client has, and what is repaired in the child of a fork."""
    modules = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    found = {name for name, text in modules.items() if re.search(r"\bThread\(|register_at_fork\(", text)}
    # The service and the demo are no clients.
    assert {name for name in found if not name.startswith(("service/", "demo/"))} == {
        "_runtime/fork.py",
        "_runtime/worker_threads.py",
    }
