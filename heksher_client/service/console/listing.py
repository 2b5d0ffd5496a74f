"""The state of a page with lists: its filters, its sort and its page number, which are the query of its address."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from heksher_client._core.settings.context_values import normalize
from heksher_client.service.addresses import reference
from heksher_client.service.console.inputs import Fields

PAGE_SIZE: Final = 100
"""Rows of a page."""
_MAX_PAGE_DIGITS: Final = 9
_NOTICES: Final = ("done", "count", "unselected")
"""Parameters of an address that are about the form that led to it."""
_MAX_BACK: Final = 2_000
"""Characters of an address that links contain, so that a page with many links does not become very long."""


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of a list, and the number of the one that is shown."""

    number: int
    count: int
    size: int = PAGE_SIZE
    """Rows of a page."""
    missing: int | None = None
    """The page that the address has, if it is after the last one."""

    @property
    def offset(self) -> int:
        """The number of rows before the page."""
        return (self.number - 1) * self.size


@dataclass(frozen=True, slots=True)
class Listing:
    """The state of a page with a list."""

    path: str
    """The path of the page, such as `console/changes`."""
    parameters: Mapping[str, str]
    """The query parameters that are not empty."""
    sorts: Sequence[str] = ()
    """What the list can be sorted by, the default first."""

    def __getitem__(self, name: str) -> str:
        """Return a parameter; empty if the address does not have it."""
        return self.parameters.get(name, "")

    def values(self, prefix: str, names: Iterable[str]) -> dict[str, str]:
        """Return the parameters with a prefix, by their names without it."""
        return {name: value for name in names if (value := self[f"{prefix}{name}"])}

    def condition(self) -> tuple[str, str]:
        """Return the context feature of the parameter `feature`, and the value that a rule requires.

        The parameter is a context feature, or a condition like `environment=prod`. Otherwise, both are empty.
        """
        feature, _, required = self["feature"].partition("=")
        return feature.strip(), normalize(required.strip())

    @property
    def sort(self) -> str:
        """The name of what the list is sorted by."""
        name = self["sort"].removeprefix("-")
        return name if name in self.sorts else self.sorts[0]

    @property
    def is_descending(self) -> bool:
        """True if the sort is reversed."""
        return self["sort"] == f"-{self.sort}"

    def order(self, name: str) -> str:
        """Return the value of `aria-sort` for a column."""
        if name != self.sort:
            return "none"
        return "descending" if self.is_descending else "ascending"

    def link(self, **changes: object) -> str:
        """Return the address of the same page with other parameters, without a slash at its beginning."""
        changed = {**self.parameters, **{name: str(value) for name, value in changes.items()}}
        query = urlencode({name: value for name, value in changed.items() if value})
        return f"{self.path}?{query}" if query else self.path

    @property
    def back_query(self) -> str:
        """The query of links to pages that lead back to this one; empty if the address is too long for that."""
        query = urlencode({"back": f"/{self.link()}"})
        return query if len(query) <= _MAX_BACK else ""

    def sort_link(self, name: str) -> str:
        """Return the address of the list sorted by a column; in the other direction if it is sorted by it already."""
        is_reversed = name == self.sort and not self.is_descending
        return self.link(sort=f"-{name}" if is_reversed else name, page="")

    def pages(self, total: int, size: int = PAGE_SIZE) -> Pages:
        """Return the pages of a list with a number of rows. A page after the last one is the last one."""
        count = max(1, -(-total // size))
        text = self["page"]
        is_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_PAGE_DIGITS
        wanted = max(1, int(text)) if is_number else 1
        return Pages(min(wanted, count), count, size, wanted if wanted > count else None)


def listing(
    request: Request, path: str, names: Iterable[str], sorts: Sequence[str] = (), form: Fields | None = None
) -> Listing:
    """Return the state of a page. Its parameters have no surrounding spaces.

    Args:
        request: The request for the page, or of a form on it.
        path: The path of the page, such as `console/changes`.
        names: The names of its parameters, in addition to `sort` and `page`.
        sorts: What the list can be sorted by, the default first.
        form: The submitted form, whose field `back` is the address that the page had.
    """
    given = dict(request.query_params) if form is None else _query(address_back(form, path))
    stripped = {name: given.get(name, "").strip() for name in (*names, "sort", "page")}
    return Listing(path, {name: value for name, value in stripped.items() if value}, sorts)


def address_back(form: Fields, default: str) -> str:
    """Return the address of the page that a form leads back to, such as `console/settings/cache_size?page=2`.

    Args:
        form: The fields of the form. The field `back` is the address with a slash at its beginning.
        default: The address if the field is missing, or is not an address of the console.
    """
    (back, *_) = form.get("back", [""])
    is_page = back.partition("?")[0] == "/console" or back.startswith("/console/")
    return back.removeprefix("/") if is_page else default


def redirect_back(request: Request, form: Fields, default: str, revision: int, count: int = 1) -> Response:
    """Redirect to the page that a form was submitted from, which will show a change.

    Args:
        request: The request.
        form: The submitted form.
        default: The path of the page if the form does not have an address of the console in its field `back`.
        revision: The revision of the change, or of the last one; 0 if nothing was changed.
        count: The number of changes.
    """
    return _redirect(request, address_back(form, default), done=revision, count=count if count > 1 else 0)


def redirect_unselected(request: Request, form: Fields, default: str) -> Response:
    """Redirect to the page that a form was submitted from, which will say that nothing is selected.

    Args:
        request: The request.
        form: The submitted form.
        default: The path of the page if the form does not have an address of the console in its field `back`.
    """
    return _redirect(request, address_back(form, default), unselected=1)


def _redirect(request: Request, back: str, **notices: int) -> Response:
    """Redirect to a page that shows a notice. Its address has no other notices."""
    parameters = {name: value for name, value in _query(back).items() if name not in _NOTICES}
    parameters |= {name: str(value) for name, value in notices.items() if value}
    query = f"?{urlencode(parameters)}" if parameters else ""
    return RedirectResponse(reference(request.scope, f"{quote(urlsplit(back).path)}{query}#done"), 303)


def _query(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
