"""The configuration of Sphinx. `tox run -e docs` builds the documentation."""

import builtins
import dataclasses
import sys
import zlib
from enum import Enum
from pathlib import Path
from types import MethodDescriptorType, WrapperDescriptorType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

from heksher_client import Changes, Watch, __version__

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # for the extensions in this folder

project = "heksher_client"
release = version = __version__
project_copyright = "the authors of heksher_client"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "http_operations",
    "linked_names",
]
html_theme = "furo"
html_title = f"heksher_client {__version__}"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_favicon = "../heksher_client/service/console/assets/icon.svg"  # that of the console
html_css_files = ["diagrams.css", "pages.css"]
exclude_patterns = ["examples"]

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3

smartquotes = False  # quotes and dashes in unmarked code, as in `--url`, must stay as they are

default_role = "code"  # docstrings have single backticks
autodoc_member_order = "bysource"
autoclass_content = "both"  # with the arguments of `__init__`
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
toc_object_entries_show_parents = "hide"

linkcheck_anchors = False

PUBLIC_NAMES = {
    "_thread.allocate_lock": "threading.Lock",
    "_thread.lock": "threading.Lock",  # Python 3.13 and later
    "pathlib._local.Path": "pathlib.Path",
    "asyncio.locks.Lock": "asyncio.Lock",
    "sqlalchemy.engine.url.URL": "sqlalchemy.engine.URL",
    "heksher_client._auth.secret_string.SecretString": "SecretString",
    "heksher_client._drivers.observable.Observable": "Observable",
    "heksher_client.profiles._connect.AsyncConnect": "AsyncConnect",
    "heksher_client.profiles._connect.ProfileOptions": "ProfileOptions",
}
"""The documented names of classes that Python knows by a private name."""
OVERLOADED = (
    "heksher_client._core.settings.setting", "heksher_client.admin", "heksher_client.profiles._connect",
    "heksher_client.pytest_plugin",
)  # fmt: skip
"""The modules whose overloads are for type checkers: one signature says the same to readers."""
LONGEST_SIGNATURE = 4
"""The number of attributes of a dataclass above which its signature repeats the list that follows."""


def inventory(project: str) -> tuple[str, str]:
    """Return the URL of a project, and the path of an inventory with those of its names that the pages use.

    The text files in `inventories` are in the format of Sphinx, which expects them to be compressed. So the build needs
    no network, and names of projects without an inventory, such as httpx, are links as well.
    """
    title, *names = (DOCS / "inventories" / f"{project}.txt").read_text().splitlines()
    name, url = title.split()
    header = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n# Compressed with zlib:\n"
    path = DOCS.parent / ".cache" / "inventories" / f"{project}.inv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + zlib.compress("\n".join([*names, ""]).encode()))
    return url, str(path)


intersphinx_mapping = {path.stem: inventory(path.stem) for path in (DOCS / "inventories").glob("*.txt")}
nitpicky = True  # A name that is not in the inventories yet is a warning.
nitpick_ignore_regex = [
    ("py:class", r"(.+\.)?(T|T_co|V|\w+T)"),  # type variables
    ("py:obj", r"heksher_client\..+"),  # in code that is not the name of an entry
]


def setup(app: Sphinx) -> None:
    for module in OVERLOADED:
        analyzer = ModuleAnalyzer.for_module(module)
        analyzer.analyze()
        analyzer.overloads = {}
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", show_code)
    app.connect("autodoc-process-docstring", show_colons, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", leave_out)
    app.connect("doctree-read", leave_builtins_alone)
    app.connect("doctree-read", use_public_names)
    app.connect("doctree-read", show_dashes)


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


def shorten_signature(_app: object, what: str, _name: str, member: Any, *_: object) -> tuple[str, None] | None:
    """Leave out the signatures of classes that programs do not create: enums, iterators, and most dataclasses."""
    if what != "class":
        return None
    is_long = dataclasses.is_dataclass(member) and len(dataclasses.fields(member)) > LONGEST_SIGNATURE
    return ("", None) if is_long or issubclass(member, Enum | Changes | Watch) else None


def use_public_names(_app: Sphinx, document: Any) -> None:
    """Show classes by the names that their projects document."""
    for reference in document.findall(pending_xref):
        public = PUBLIC_NAMES.get(reference["reftarget"])
        if public:
            reference["reftarget"] = public
            reference[:] = [nodes.Text(public.rpartition(".")[2])]


def show_dashes(_app: Sphinx, document: Any) -> None:
    """Show a dash between an argument and its description, for which Sphinx has two hyphens."""
    for text in list(document.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))  # noqa: RUF001
