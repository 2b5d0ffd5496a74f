"""The pages that Sphinx generates from docstrings. `tox run -e docs` runs these tests with its dependencies."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from heksher_client.cli import main
from heksher_client.service import create_app

pytest.importorskip("sphinx_click")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The HTML pages of the reference, by name."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", str(out / "doctrees"), str(DOCS), str(out)]
    subprocess.run(command, check=True)
    return {page.stem: page.read_text() for page in (out / "reference").glob("*.html")}


def test_a_colon_in_the_description_of_an_attribute_does_not_create_a_type_field(reference: dict[str, str]) -> None:
    """The sentence stays complete: napoleon does not convert the part before the colon."""
    assert [name for name, page in reference.items() if re.search(r"<dt[^>]*>Type<", page)] == []
    text = re.sub(r"<[^>]+>", "", reference["clients"])
    assert "True if the client is closed: it does not refresh any settings" in text


def test_inherited_members_of_builtin_types_are_not_shown(reference: dict[str, str]) -> None:
    """Methods of `object`, `Exception` and `tuple` and the docstring of `str` are left out."""
    text = "".join(reference.values())
    for fragment in ("__new__", "add_note", "with_traceback", "first index of value", "Alias for field", "bytes_or"):
        assert fragment not in text, fragment


def test_code_in_docstrings_is_shown_as_code(reference: dict[str, str]) -> None:
    """Quotes and indentation are kept, also at the end of a module docstring."""
    code = [re.sub(r"<[^>]+>", "", block) for block in re.findall(r"<pre>.*?</pre>", reference["testing"], re.DOTALL)]
    assert any('LocalService(["environment", "user", "theme"]' in block.replace("&quot;", '"') for block in code)
    assert any("as service:\n    ThreadHeksherClient(" in block for block in code)
    assert not any("“" in page for page in reference.values())


def test_the_page_of_the_http_api_has_all_operations(reference: dict[str, str]) -> None:
    """Its sections name paths, so a new one may be missing."""
    text = re.sub(r"<[^>]+>", "", reference["http-api"])
    for path, operations in create_app("sqlite://").openapi()["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}" in text, path


def test_the_pages_of_commands_have_all_of_them(reference: dict[str, str]) -> None:
    """Each page selects commands by their names, so a new one may be missing."""
    pages = "".join(page for name, page in reference.items() if name.startswith("commands"))
    for name in main.list_commands(click.Context(main)):
        assert f'id="heksher-client-{name}"' in pages, name


def test_a_setting_has_one_signature(reference: dict[str, str]) -> None:
    """Its overloads are for type checkers."""
    signatures = re.findall(r'<dt class="sig sig-object py" id="heksher_client.Setting">', reference["settings"])
    assert len(signatures) == 1
    assert "_IntClass" not in reference["settings"]


def test_names_in_code_are_links(reference: dict[str, str]) -> None:
    """To the reference, and to the pages of other projects, which the build does not need."""
    assert 'href="clients.html#heksher_client.connect"' in reference["environment"]
    assert 'href="settings.html#heksher_client.Setting.on_change"' in reference["clients"]
    assert 'href="https://www.python-httpx.org/advanced/timeouts/"' in reference["clients"]
    assert 'href="https://docs.python.org/3/library/contextvars.html#contextvars.ContextVar"' in reference["clients"]
