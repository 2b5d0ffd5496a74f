"""Links from names in code, such as `AdminClient` or `client.status()`, to their entries in the reference."""

import importlib
import re
from typing import Any, Final

from docutils import nodes
from sphinx.addnodes import desc_signature, pending_xref
from sphinx.application import Sphinx

from heksher_client import exceptions

MODULES: Final = (
    "credentials", "admin", "profiles", "service", "telemetry", "openfeature", "testing", "pytest_plugin"
)  # fmt: skip
"""The public modules, with those whose names are imported most often first. The package itself precedes them."""
OWNERS: Final = {"client": "ThreadHeksherClient", "setting": "Setting", "cache_size": "Setting"}
"""The classes of the objects that pages call by these names."""
OTHER_MEANINGS: Final = frozenset({"login", "logout"})
"""Names that are usually those of an extra or a command, without parentheses."""
NO_LINKS_IN: Final = (nodes.title, nodes.reference, pending_xref, desc_signature)


def targets() -> dict[str, str]:
    """Return the full name for each public name of the package."""
    found = {name: f"heksher_client.exceptions.{name}" for name in vars(exceptions) if name.endswith("Error")}
    for module in ("heksher_client", *(f"heksher_client.{name}" for name in MODULES)):
        for name in getattr(importlib.import_module(module), "__all__", ()):
            found.setdefault(name, f"{module}.{name}")
    return found


def link_names(app: Sphinx, document: nodes.document) -> None:
    """Replace literals that are a public name, or a call of a method, by links."""
    known = targets()
    for literal in list(document.findall(nodes.literal)):
        target = target_of(literal.astext(), known)
        if target and not is_inside(literal, NO_LINKS_IN):
            link = pending_xref(
                "", literal.deepcopy(), refdomain="py", reftype="obj", reftarget=target, refdoc=app.env.docname
            )
            literal.replace_self(link)


def target_of(text: str, known: dict[str, str]) -> str | None:
    """Return the full name for a text in code, or None."""
    if full := re.fullmatch(r"(heksher_client\.[\w.]+)(?:\(.*\))?", text):
        return full[1]
    found = re.fullmatch(r"(?:(\w+)\.)?(\w+)(?:\(.*\))?", text)
    if not found:
        return None
    owner, name = found.groups()
    if owner:
        class_name = OWNERS.get(owner, owner)
        return f"{known[class_name]}.{name}" if class_name in known else None
    return None if text in OTHER_MEANINGS else known.get(name)


def is_inside(node: Any, kinds: tuple[type, ...]) -> bool:
    while node is not None:
        if isinstance(node, kinds):
            return True
        node = node.parent
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True}
