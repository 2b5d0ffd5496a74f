"""Characters that cannot be seen, or that change the order of others: they are visible wherever a value is shown."""

import json
import logging
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from heksher_client._logging import escaped, logger, visible_json
from heksher_client.cli import main
from heksher_client.cli.errors import CommandError
from heksher_client.service import LocalService
from heksher_client.service.event_stream import logger as event_logger
from heksher_client.service.metrics import access_log
from tests.support.commands import FEATURES, Run
from tests.support.http import http_client
from tests.support.service import WatchedService

HIDDEN = (
    "\u202e\u2066\u2069\u200f\u061c"  # the direction of text
    "\u200b\u200d\ufeff\u00ad\u2060\u180e"  # without a width
    "\u2028\u2029\x85\x07\x1b\x7f"  # line breaks and controls
    "\u00a0\u3000\u2003"  # spaces
    "\u3164\u115f\uffa0\u2800\u034f\ufe0f\U000e0041\U000e0100\ue000"  # fillers, variations, tags, private use
)
VALUE = f"a{HIDDEN}b"
CONTEXT_VALUE = unicodedata.normalize("NFC", "".join(filter(lambda c: unicodedata.category(c) != "Cc", VALUE)))
"""Rules may require it: it has no control characters."""


def hidden_in(text: str) -> set[str]:
    return {character for character in text if character in HIDDEN}


@pytest.mark.slow
@pytest.mark.unmeasured
def test_l17_every_character_that_cannot_be_seen_is_escaped() -> None:
    """As by Python in text, and as by JSON in JSON."""
    assert escaped("\u202ea\u00a0\n\U000e0041") == r"\u202ea\xa0\n\U000e0041"
    assert visible_json("\u202ea\u00a0\n\U000e0041") == r'"\u202ea\u00a0\n\udb40\udc41"'
    assert hidden_in(escaped(VALUE) + visible_json(VALUE)) == set()
    assert escaped("é \N{GRINNING FACE} שלום") == "é \N{GRINNING FACE} שלום"
    unprintable = [chr(code) for code in range(sys.maxunicode + 1) if not chr(code).isprintable()]
    assert escaped("".join(unprintable)).isprintable()


@pytest.mark.slow
@pytest.mark.unmeasured
@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner)
    )
)
def test_l17_json_with_escapes_has_the_same_value(value: Any) -> None:
    """Compact, and with line breaks."""
    for text in (visible_json(value), visible_json(value, indent=2)):
        assert json.loads(text) == value
        assert hidden_in(text) == set()


@pytest.fixture
def hidden_shop(shop: WatchedService) -> WatchedService:
    shop.reset(offers_changes=True)
    shop.declare("s", "str", VALUE, list(FEATURES), metadata={"owner": VALUE})
    shop.declare("m", "Mapping<str>", {VALUE: VALUE}, ["user"])
    shop.declare("e", f"Enum[{json.dumps(VALUE)}]", VALUE, ["user"])
    shop.add_rule("s", f"{VALUE}!", user="jim")
    shop.add_rule("m", {VALUE: VALUE}, user="jim")
    shop.add_rule("s", "x", user=CONTEXT_VALUE)
    return shop


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "arguments",
    [
        ("settings",), ("get", "s"), ("get", "s", "user=jim", "--why"),
        ("get", "s", f"user={CONTEXT_VALUE}", "--why"), ("get", "s", f"user={VALUE}"),
        ("rules", "add", "s", "x", f"user={CONTEXT_VALUE}"), ("get", "m"), ("rules", "s"), ("rules", "m"),
        ("status",), ("diff", "empty.json", "shop"), ("diff", "empty.yaml", "shop"),
        ("rules", "add", "e", VALUE, "x=y"),
        ("rules", "add", "m", VALUE, "user=ann"), ("get", VALUE), ("ping", "--url", f"http://{VALUE}"), ("profiles",),
    ],
)  # fmt: skip
@pytest.mark.parametrize("option", [(), ("--json",)])
def test_l17_the_output_of_commands_has_escapes(
    run: Run, hidden_shop: WatchedService, tmp_path: Path, arguments: tuple[str, ...], option: tuple[str, ...]
) -> None:
    """For people, and in JSON, whose values are the original ones."""
    hidden_shop.offers_changes = True
    for name in ("empty.json", "empty.yaml"):
        (tmp_path / name).write_text('{"heksher": 1, "context_features": ["environment", "user"], "settings": []}')
    outcome = run(*arguments, *option)
    assert hidden_in(outcome.out + outcome.err) == set()
    if option and arguments in (("get", "s"), ("get", "m")):
        assert outcome.json == (VALUE if arguments[1] == "s" else {VALUE: VALUE})


def run_service(*arguments: str, **options: Any) -> str:
    return CliRunner().invoke(main, ["service", *arguments], **options).output


def test_l17_the_commands_of_a_service_have_escapes(tmp_path: Path) -> None:
    """The plan of an import, exports to standard output, the change log, tokens, and errors."""
    database = ("--database", str(tmp_path / "s.db"))
    rule = {"feature_values": {"user": CONTEXT_VALUE}, "value": VALUE}
    setting = {"name": "s", "type": "str", "default_value": VALUE, "configurable_features": ["user"], "rules": [rule]}
    document = {"heksher": 1, "context_features": ["user"], "settings": [setting | {"metadata": {"owner": VALUE}}]}
    (tmp_path / "file.json").write_text(json.dumps(document))
    outputs = [
        run_service("import", str(tmp_path / "file.json"), "--yes", *database),
        exported := run_service("export", "-", *database),
        changes := run_service("changes", "-", *database),
        run_service("token", "add", VALUE, *database),
        run_service("token", "list", *database),
        run_service("token", "revoke", VALUE, *database),
        run_service("token", "revoke", VALUE, *database),
        run_service("import", str(tmp_path / f"{VALUE[:8]}.json"), *database),
    ]
    assert hidden_in("".join(outputs)) == set()
    assert json.loads(exported)["settings"][0]["default_value"] == VALUE
    assert json.loads(changes.splitlines()[-1])["new"]["value"] == VALUE
    (tmp_path / "file.json").write_text(json.dumps(document | {VALUE: 1}))
    assert hidden_in(run_service("import", str(tmp_path / "file.json"), *database)) == set()
    assert hidden_in(CommandError(VALUE).message) == set()


class _Shown(HTMLParser):
    """Collects the text and attributes of a page; the content of inputs separately."""

    def __init__(self) -> None:
        super().__init__()
        self.shown, self.inputs = "", ""
        self._is_in_textarea = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_in_textarea |= tag == "textarea"
        for name, value in attrs:
            if tag in ("input", "option") and name == "value":
                self.inputs += value or ""
            else:
                self.shown += value or ""

    def handle_endtag(self, tag: str) -> None:
        self._is_in_textarea &= tag != "textarea"

    def handle_data(self, data: str) -> None:
        if self._is_in_textarea:
            self.inputs += data
        else:
            self.shown += data


def test_l17_the_console_has_escapes() -> None:
    """Except in inputs, whose content is saved. A form that is not changed saves the same value."""
    with LocalService(FEATURES) as service, http_client(service.url) as http:
        for name, kind, value in (("s", "str", VALUE), ("m", "Mapping<str>", {VALUE: VALUE}),
                                  ("e", f"Enum[{json.dumps(VALUE)}]", VALUE)):  # fmt: skip
            setting = {"name": name, "type": kind, "default_value": value, "configurable_features": ["user"],
                       "metadata": {"owner": VALUE}}  # fmt: skip
            http.post("/api/v1/settings/declare", json=setting).raise_for_status()
            rule = {"setting": name, "feature_values": {"user": "jim"}, "value": value, "metadata": {"why": VALUE}}
            http.post("/api/v1/rules", json=rule).raise_for_status()
            rule["feature_values"] = {"user": CONTEXT_VALUE}
            http.post("/api/v1/rules", json=rule).raise_for_status()
        inputs = {}
        for path in ("", "/changes", "/settings/s", "/settings/m", "/settings/e", "/nothing",
                     f"/settings/{quote(VALUE)}", "/settings/s?find=user",
                     f"/settings/s?on.user={quote(CONTEXT_VALUE)}"):  # fmt: skip
            page = http.get(f"/console{path}", params={"q": VALUE} if path == "" else None)
            parser = _Shown()
            parser.feed(page.text)
            assert hidden_in(parser.shown) == set(), path
            inputs[path] = parser.inputs
        # Forms send CRLF for line breaks, and browsers change them: those are not in this value.
        assert VALUE in inputs["/settings/s"]
        assert json.dumps(VALUE, ensure_ascii=False)[1:-1] in inputs["/settings/e"]
        assert visible_json(VALUE) in inputs["/settings/m"]


@pytest.mark.parametrize("log", [logger, access_log, event_logger])
def test_l17_logs_have_escapes(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """The arguments of records; the text is that of the package."""
    with caplog.at_level(logging.INFO, log.name):
        log.warning("a value: %s", VALUE)
    assert hidden_in(caplog.text.rstrip("\n")) == set()
    assert r"\u202e" in caplog.text
