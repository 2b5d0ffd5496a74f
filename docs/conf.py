"""How the documentation is built: `tox run -e docs`."""

from typing import Any

from sphinx.application import Sphinx

from heksher_client import __version__

project = "heksher_client"
release = version = __version__
project_copyright = "the authors of heksher_client"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
]
html_theme = "furo"
html_title = f"heksher_client {__version__}"
exclude_patterns = ["examples"]

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings have single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
toc_object_entries_show_parents = "hide"

linkcheck_anchors = False


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", show_code)


def show_code(*event: Any) -> None:
    """Have blocks that are indented in docstrings be shown as code, which they are."""
    lines: list[str] = event[-1]
    for at in range(len(lines) - 1, 1, -1):
        before = next((line for line in reversed(lines[:at]) if line), "")
        if lines[at].startswith("    ") and not lines[at - 1] and not before.startswith((" ", "..", ":")):
            lines[at:at] = ["::", ""]
