"""Forms of pages, as a browser without scripts submits them."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class Button:
    """A button of a form."""

    text: str
    action: str | None
    """The address that it submits to, if that is not the one of its form."""


@dataclass
class HtmlForm:
    """A form, with what its inputs contain."""

    action: str
    method: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    buttons: list[Button] = field(default_factory=list)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[HtmlForm] = []
        self.links: dict[str, str] = {}
        self._by_id: dict[str, HtmlForm] = {}
        self._pending: list[tuple[str, dict[str, str]]] = []
        self._current: HtmlForm | None = None
        self._text: list[str] | None = None
        self._select: tuple[str, list[tuple[str, bool]]] = ("", [])
        self._attributes: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._current = HtmlForm(given.get("action", ""), given.get("method", "get"))
            self.forms.append(self._current)
            self._by_id[given.get("id", "")] = self._current
        elif tag == "input":
            self._add_input(given)
        elif tag == "select":
            self._select = (given["name"], [])
        elif tag in ("textarea", "button", "option", "a"):
            self._text, self._attributes = [], given

    def _add_input(self, given: dict[str, str]) -> None:
        if given.get("type") in ("checkbox", "radio") and "checked" not in given:
            return
        form = self._by_id[given["form"]] if "form" in given else self._current
        if form is not None and "name" in given:
            form.fields.setdefault(given["name"], []).append(given.get("value", ""))

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        text = "".join(self._text or [])
        if tag == "form":
            self._current = None
        elif tag == "a":
            self.links[text.strip()] = self._attributes.get("href", "")
        elif tag == "textarea" and self._current is not None:
            self._current.fields.setdefault(self._attributes["name"], []).append(text.removeprefix("\n"))
        elif tag == "button" and self._current is not None:
            self._current.buttons.append(Button(text.strip(), self._attributes.get("formaction")))
        elif tag == "option":
            self._select[1].append((self._attributes.get("value", text), "selected" in self._attributes))
        elif tag == "select" and self._current is not None:
            name, options = self._select
            chosen = [value for value, is_selected in options if is_selected] or [value for value, _ in options[:1]]
            self._current.fields.setdefault(name, []).extend(chosen)
        if tag in ("textarea", "button", "option", "a"):
            self._text = None


@dataclass(frozen=True)
class Submission:
    """The request of a button."""

    action: str
    method: str
    fields: dict[str, list[str]]


def submission(html: str, button: str, action: str | None = None, **changed: Any) -> Submission:
    """Return what a button submits.

    Args:
        html: The page.
        button: The text of the button.
        action: The end of the action of its form, if several forms have such a button.
        **changed: What was entered into inputs: a text, or a list of texts.
    """
    found = [
        (form, each.action or form.action)
        for form in parsed(html).forms
        for each in form.buttons
        if each.text == button and (action is None or form.action.endswith(action))
    ]
    assert len(found) == 1, (button, found)
    form, target = found[0]
    entered = {name: [value] if isinstance(value, str) else list(value) for name, value in changed.items()}
    return Submission(target, form.method, form.fields | entered)


def parsed(html: str) -> _Parser:
    """Return the forms and links of a page."""
    parser = _Parser()
    parser.feed(html)
    return parser
