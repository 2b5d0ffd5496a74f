"""The configuration of Sphinx. `tox run -e docs` builds the documentation."""

import builtins
import sys
from pathlib import Path
from types import MethodDescriptorType, WrapperDescriptorType
from typing import Any

from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

from heksher_client import __version__

sys.path.insert(0, str(Path(__file__).parent))  # for `http_operations`

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
    "http_operations",
]
html_theme = "furo"
html_title = f"heksher_client {__version__}"
html_static_path = ["_static"]
html_css_files = ["diagrams.css"]
exclude_patterns = ["examples"]

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3

smartquotes_action = "D"  # dashes only: quotes in unmarked code must stay straight

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
    app.connect("autodoc-process-docstring", show_colons, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", leave_out)
    app.connect("doctree-read", leave_builtins_alone)


def show_code(*event: Any) -> None:
    """Have blocks that are indented in docstrings be shown as code, which they are."""
    lines: list[str] = event[-1]
    for at in range(len(lines) - 1, 1, -1):
        before = next((line for line in reversed(lines[:at]) if line), "")
        if lines[at].startswith("    ") and not lines[at - 1] and not before.startswith((" ", "..", ":")):
            lines[at:at] = ["::", ""]


def show_colons(_app: object, what: str, _name: str, _member: object, _options: object, lines: list[str]) -> None:
    """Keep the first line of an attribute's description: napoleon takes the text before a colon for a type."""
    if lines[:1] and lines[0].startswith("Alias for field number"):
        lines.clear()  # of a named tuple: the field's name says more
    elif what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # a comment


def leave_out(_app: object, _what: str, name: str, member: object, skip: bool, _options: object) -> bool | None:
    """Leave out what classes have from Python itself, as all errors have `add_note`."""
    is_from_python = isinstance(member, MethodDescriptorType | WrapperDescriptorType)
    return True if skip or is_from_python or name == "__new__" else None


def leave_builtins_alone(_app: Sphinx, document: Any) -> None:
    """Do not take a built-in class in a signature, such as `type`, for an attribute of the same name."""
    for reference in document.findall(pending_xref):
        if reference.get("reftype") == "class" and hasattr(builtins, reference["reftarget"]):
            reference.attributes.pop("refspecific", None)  # otherwise a member of any class would be found
            reference["py:class"] = None
