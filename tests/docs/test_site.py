"""The site: what its pages show of docstrings. Needs what `tox run -e docs` installs, which runs these as well."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx_click")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of the reference, as HTML, by name."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", str(out / "doctrees"), str(DOCS), str(out)]
    subprocess.run(command, check=True)
    return {page.stem: page.read_text() for page in (out / "reference").glob("*.html")}


def test_a_colon_in_what_describes_an_attribute_makes_no_type_of_it(reference: dict[str, str]) -> None:
    """The sentence stays in one piece, and nothing before its colon becomes a field "Type:"."""
    assert [name for name, page in reference.items() if re.search(r"<dt[^>]*>Type<", page)] == []
    words = re.sub(r"<[^>]+>", "", reference["api"])
    assert "Whether the client was closed: it updates nothing any more" in words


def test_nothing_is_shown_that_classes_have_from_python_itself(reference: dict[str, str]) -> None:
    """No constructor of all objects, no method of all errors or tuples, and not the docstring of `str`."""
    text = "".join(reference.values())
    for words in ("__new__", "add_note", "with_traceback", "first index of value", "Alias for field", "encoding"):
        assert words not in text, words


def test_code_in_docstrings_is_shown_as_code(reference: dict[str, str]) -> None:
    """With its quotes and its indentation, also at the end of a module's docstring."""
    code = [re.sub(r"<[^>]+>", "", block) for block in re.findall(r"<pre>.*?</pre>", reference["api"], re.DOTALL)]
    assert any('LocalService(["environment", "user", "theme"]' in block.replace("&quot;", '"') for block in code)
    assert any("as service:\n    ThreadHeksherClient(" in block for block in code)
    assert not any("“" in page for page in reference.values())
