"""Documents with settings, as people and their editors write them, and the places of errors in them."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from heksher_client.cli import export_file, main, yaml_text
from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_text import JSONText
from heksher_client.cli.json_values import parse_json
from heksher_client.cli.text_places import TextError
from heksher_client.cli.yaml_text import YAMLText, format_yaml
from heksher_client.profiles import _config as config
from heksher_client.service.document import DocumentError, parse

SETTING = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["country", "user"]}
DOCUMENT: dict[str, Any] = {"heksher": 1, "context_features": ["country", "user"], "settings": [SETTING]}
HEAD = "heksher: 1\ncontext_features: [country, user]\nsettings:\n"
YAML = f"{HEAD}- name: s\n  type: int\n  default_value: 1\n  configurable_features: [country, user]\n"
RULES = f"{YAML}  rules:\n  - feature_values: {{user: jim}}\n"


def text_setting(more: str) -> str:
    return f"{HEAD}- name: t\n  type: str\n  configurable_features: [user]\n{more}"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Read a document by both commands, which must agree. Returns the exit status of `import`, and its output."""

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, list(arguments))
        return result.exit_code, result.output

    def read(content: str | bytes, name: str) -> tuple[int, str]:
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        code, output = run("service", "import", str(file), "--yes", "--database", str(tmp_path / "s.db"))
        compared = run("diff", str(file), str(file))
        assert compared == ((0, "") if code == 0 else (code, output))
        return code, output.replace(f"{tmp_path}/", "")

    return read


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["file.json", "file.yaml"])
def test_l9_a_document_may_have_any_encoding_of_unicode(read: Any, encoding: str, name: str) -> None:
    """Editors on Windows write a byte order mark, and Windows PowerShell writes UTF-16."""
    text = json.dumps(DOCUMENT | {"settings": [SETTING | {"metadata": {"a": "é"}}]}, ensure_ascii=False)
    assert read(text.encode(encoding), name)[0] == 0


@pytest.mark.parametrize("name", ["file.json", "file.yaml"])
def test_l9_another_encoding_is_an_error(read: Any, name: str) -> None:
    code, output = read(json.dumps(DOCUMENT | {"é": 1}, ensure_ascii=False).encode("latin-1"), name)
    assert (code, output) == (1, f"Error: {name}, line 1: the text is not valid UTF-8\n")


def test_l9_standard_input_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """PowerShell adds it to what it pipes into a program."""
    command = ["service", "import", "-", "--dry-run", "--database", str(tmp_path / "s.db")]
    result = CliRunner().invoke(main, command, input=codecs.BOM_UTF8 + json.dumps(DOCUMENT).encode())
    assert (result.exit_code, "add setting s" in result.output) == (0, True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_l9_a_configuration_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "heksher.toml"
    path.write_bytes('[profiles.a]\nurl = "http://é"\n'.encode(encoding))
    assert config.profile_names(path) == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{YAML}  version: 1.10\n", "line 8: setting s: version: 1.1 is a number, and must be text: put it in quotes"),
        (f"{YAML}  version: 1\n", "line 8: setting s: version: 1 is a number, and must be text: put it in quotes"),
        (RULES.replace("jim", "12345"), "line 9: setting s: rules.0.feature_values.user: 12345 is a number, and must"),
        (RULES.replace("jim", "true"), "line 9: setting s: rules.0.feature_values.user: true is a boolean, and must"),
        (RULES.replace("jim", ""), "line 9: setting s: rules.0.feature_values.user: null must be text: put it"),
        (f"{RULES}    value: a\n", "line 10: setting s: rules.0.value: \"a\" is not of the type int (the rule for"),
        (RULES.replace("user:", "1:"), "line 9: setting s: rules.0.feature_values: the key `1` is not text"),
        (RULES.replace("user:", "no:"), "line 9: setting s: rules.0.feature_values: the key `no` is not text: put it"),
        (RULES.replace("user:", "[a]:"), "line 9: setting s: rules.0.feature_values: a key must be text"),
        (RULES.replace("user:", "<<:"), "line 9: setting s: rules.0.feature_values: merge keys (<<) are not supported"),
        (f"{RULES}    value: 1\n    value: 2\n", "line 11: setting s: rules.0: the key `value` is repeated"),
        (f"{RULES}    value: 1\n  rules: []\n", "line 11: setting s: the key `rules` is repeated"),
        (f"{YAML}settings: []\n", "line 8: the document: the key `settings` is repeated"),
        (f"{YAML}  default: 5\n", "line 8: setting s: default: Extra inputs are not permitted"),
        (f"{YAML}  alias: former\n", "line 8: setting s: alias: must be null, or left out"),
        (f"{YAML}- type: int\n", "line 8: settings.1.name: Field required"),
        (f"{YAML}\t- a\n", "line 8: setting s: configurable_features: while scanning for the next token, found"),
        ("heksher: true\ncontext_features: []\nsettings: []\n", "line 1: heksher: unsupported document format true"),
        ("heksher: '1'\ncontext_features: []\nsettings: []\n", "line 1: heksher: unsupported document format \"1\""),
        (f"{RULES}    value: 1\n    rule_id: true\n", "line 11: setting s: rules.0.rule_id: Input should be a valid"),
        (f"{RULES}    value: 1\n    rule_id: '7'\n", "line 11: setting s: rules.0.rule_id: Input should be a valid"),
        ("", "line 1: this is not a document of `service export`"),
        ("- a\n", "line 1: this is not a document of `service export`"),
        ("a: 1\n---\nb: 1\n", "line 2: the document: expected a single document in the stream"),
        (text_setting("  default_value: !!python/name:os.system x\n"), "line 7: setting t: default_value: `x` is not"),
        (text_setting("  default_value: !!set {a}\n"), "line 7: setting t: default_value: the type set is not"),
        (text_setting("  default_value: !own [a]\n"), "line 7: setting t: default_value: the type !own is"),
    ],
)  # fmt: skip
def test_l10_an_error_in_yaml_has_the_line_and_the_setting(read: Any, content: str, message: str) -> None:
    """Both commands report the same."""
    code, output = read(content, "file.yaml")
    assert (code, output.count("\n")) == (1, 1)
    assert output.startswith(f"Error: file.yaml, {message}"), output


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no", "a boolean: put it in quotes, or write true or false"),
        ("Yes", "a boolean: put it in quotes, or write true or false"),
        ("on", "a boolean: put it in quotes, or write true or false"),
        ("0123", "a number: put it in quotes, or write it in decimal"),
        ("1_000", "a number: put it in quotes, or write it in decimal"),
        ("0x1F", "a number: put it in quotes, or write it in decimal"),
        ("1:30", "a number: put it in quotes, or write it in decimal"),
        ("1:30.5", "a number: put it in quotes, or write it in decimal"),
        (".inf", "a number: put it in quotes, or write it in decimal"),
        (".NaN", "a number: put it in quotes, or write it in decimal"),
        ("2026-01-31", "a date: put it in quotes"),
        ("2026-01-31 10:00:00", "a date: put it in quotes"),
        ("=", "value: put it in quotes"),
        ("!!binary aGk=", "binary: put it in quotes"),
        ("1" * 5000, "1… has more than 4,300 digits"),
        ("1.0e+999", "1.0e+999 is too large a number"),
        ("y", "`y` is a boolean or text, depending on the parser: put it in quotes"),
        ("N", "`N` is a boolean or text, depending on the parser: put it in quotes"),
        ("09", "a number in YAML 1.2, and text in YAML 1.1: put it in quotes"),
        ("1e5", "a number in YAML 1.2, and text in YAML 1.1: put it in quotes"),
        ("0o17", "a number in YAML 1.2, and text in YAML 1.1: put it in quotes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["default_value: {}", "metadata: {{a: {}}}", "default_value: [{}]"])
def test_l10_a_value_that_parsers_read_differently_is_an_error(read: Any, value: str, message: str, place: str) -> None:
    """Wherever it is, also where any value is possible. The same in quotes is accepted."""
    more = "" if place.startswith("default") else "  default_value: a\n"
    code, output = read(text_setting(f"  {place.format(value)}\n{more}"), "file.yaml")
    assert (code, "line 7: setting t: " in output, output.endswith(f"{message}\n")) == (1, True, True), output


def test_l10_values_in_quotes_and_plain_values_of_json_are_accepted() -> None:
    text = "[true, False, null, ~, 5, -7, 0, 1.5, .5, 1.0e+3, 'no', \"0123\", '1e5', !!str 2026-01-31, text, a: b]"
    expected = [
        True, False, None, None, 5, -7, 0, 1.5, 0.5, 1000.0, "no", "0123", "1e5", "2026-01-31", "text", {"a": "b"}
    ]  # fmt: skip
    assert YAMLText(text).content() == expected


def test_l10_an_alias_may_be_used_but_not_to_multiply_a_document(read: Any) -> None:
    """The time and the memory are those of a small document."""
    rules = "  rules:\n  - {feature_values: &a {user: jim, country: de}, value: 2}\n"
    more = f"- name: t\n  type: int\n  default_value: 1\n  configurable_features: [user, country]\n{rules}"
    assert read(f"{YAML}{rules}{more.replace('&a {user: jim, country: de}', '*a')}", "file.yaml")[0] == 0
    levels = ["a0: &a0 [1, 1]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    bomb = "{" + ", ".join(levels) + "}"
    text = f"{{a: &a {'x' * 50_000}, b: [{', '.join(['*a'] * 300)}]}}"
    objects = (f"{YAML}  metadata: {bomb}\n", f"{YAML}x: {bomb}\n", f"{YAML}  metadata: &a {{b: [*a, *a]}}\n")
    for content in (*objects, f"{YAML}  metadata: {text}\n"):
        code, output = read(content, "file.yaml")
        assert (code, "aliases repeat more than 100,000 values" in output) == (1, True), output


@pytest.mark.unmeasured
@pytest.mark.parametrize("depth", [150, 300, 5_000, 100_000])
@pytest.mark.parametrize("text", ["[{}]", '{{"a": {}}}'])
def test_l10_nesting_is_limited(read: Any, tmp_path: Path, depth: int, text: str) -> None:
    """In values, where the error has a place, and everywhere else."""
    before, after = text.split("{}") if text[0] == "[" else ('{"a": ', "}")
    for content in (f"{HEAD}- {before * depth}1{after * depth}\n", before * depth + "1" + after * depth):
        code, output = read(content, "file.yaml")
        assert (code, output.count("\n")) == (1, 1)
    code, output = read(json.dumps(DOCUMENT)[:-1] + f', "a": {before * depth}1{after * depth}}}', "file.json")
    assert (code, output.count("\n")) == (1, 1)


def test_l10_a_large_file_is_refused(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the limit is read, which is 512 MB."""
    monkeypatch.setattr(export_file, "_MAX_BYTES", 1 << 20)
    for name in ("file.yaml", "file.json"):
        assert read("#" * ((1 << 20) + 1), name) == (1, f"Error: cannot read {name}: it is larger than 1 MB\n")
    with pytest.raises(CommandError, match="larger than 1 MB"):
        export_file.ExportFile("/dev/zero")


def test_l10_a_character_that_yaml_does_not_allow_is_an_error(read: Any) -> None:
    assert read(f"{YAML}# \x00\n", "file.yaml")[1].endswith(": write it as an escape, in double quotes\n")
    for character in "\x07\x85\u2028":
        message = f"line 7: setting t: default_value: the character U+{ord(character):04X} is not allowed"
        for value in (f"a{character}b", f"'a{character}b'"):
            assert message in read(text_setting(f"  default_value: {value}\n"), "file.yaml")[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(DOCUMENT)[:-1] + ', "settings": []}', "line 1: the document: the key `settings` is repeated"),
        (
            json.dumps(DOCUMENT, indent=1).replace('"type"', '"name": "s",\n"type"'),
            "line 10: setting s: the key `name` is repeated",
        ),
        (
            json.dumps(DOCUMENT).replace('"type"', '\n"metadata": {"a": 1,\n"a": 2}, "type"'),
            "line 3: setting s: metadata: the key `a` is repeated",
        ),
    ],
)
def test_l10_a_repeated_key_in_json_is_an_error(read: Any, content: str, message: str) -> None:
    """With the line and the setting, as in YAML."""
    assert read(content, "file.json") == (1, f"Error: file.json, {message}\n")


def test_l10_an_error_in_json_has_a_line_also_if_it_is_not_yaml(read: Any) -> None:
    """Some characters and escapes are valid in JSON only."""
    metadata = {"a": "\x7f", "b": "\U0001f600"}
    text = json.dumps(DOCUMENT | {"settings": [SETTING | {"metadata": metadata}]}, ensure_ascii=False)
    text = text.replace("\U0001f600", "\\ud83d\\ude00")
    assert read(text.replace('"s"', "\n5"), "file.json")[1] == (
        "Error: file.json, line 1: settings.0.name: 5 is a number, and must be text: put it in quotes\n"
    )
    repeated = text.replace('"type"', '\n"name": "s", "type"')
    assert read(repeated, "file.json") == (1, "Error: file.json, line 2: setting s: the key `name` is repeated\n")
    with pytest.raises(ValueError, match="the key 'a' is repeated"):
        parse_json('{"a": 1, "a": 2}')


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e999", "1e999 is too large a number"),
        ("-1e999", "-1e999 is too large a number"),
        ("NaN", "NaN is not valid JSON"),
        ("-Infinity", "-Infinity is not valid JSON"),
        ("1" * 5000, f"{'1' * 39}… has more than 4,300 digits"),
        ('"\\ud800"', "the text contains half of a surrogate pair, which is not a character"),
        ("nothing", "Expecting value (column 2)"),
        ('"\\q"', "Invalid \\\\escape (column 3)"),
        ("[" * 300 + "]" * 300, "more than 200 nested lists and objects"),
    ],
)
def test_l10_an_error_of_the_parser_of_json_has_the_line_and_the_setting(read: Any, value: str, message: str) -> None:
    """Python's parser reports no place for some of them, and accepts others."""
    setting = (
        '{"name": "s", "type": "float", "configurable_features": ["user"], "metadata": {"a":\n %s}, "default_value": 1}'
    )
    text = '{"heksher": 1, "context_features": ["user"], "settings": [' + setting % value + "]}"
    code, output = read(text, "file.json")
    assert (code, output.count("\n")) == (1, 1)
    assert re.match(r"Error: file.json, line [12]: setting s: ", output), output
    assert message.replace("\\\\", "\\") in output or message in output


@pytest.mark.parametrize("option", [r'"\ud800"', r'"\uDFFF", "a"'])
@pytest.mark.parametrize("kind", ["Enum[%s]", "Sequence<Flags[%s]>"])
@pytest.mark.parametrize("name", ["file.json", "file.yaml"])
def test_l10_an_escape_in_a_type_that_is_not_a_character_has_the_line(
    read: Any, option: str, kind: str, name: str
) -> None:
    """The service refuses it as well: no response could contain it."""
    text = json.dumps(SETTING | {"type": kind % option})
    document = '{"heksher": 1, "context_features": ["country", "user"], "settings": [\n' + text + "]}"
    message = "the text contains half of a surrogate pair, which is not a character"
    assert read(document, name) == (1, f"Error: {name}, line 2: setting s: type: {message}\n")


VALID: dict[str, Any] = {
    "heksher": 1,
    "context_features": ["country", "user"],
    "settings": [
        SETTING,
        {
            "name": "t", "type": 'Sequence<Enum["a","b"]>', "default_value": ["a", "b"], "version": "1.0",
            "configurable_features": ["user"], "metadata": {"k": ["v"]}, "aliases": ["former"],
            "rules": [{"rule_id": 1, "feature_values": {"user": "jim"}, "value": ["b"], "metadata": {"k": 1}}],
        },
    ],
}  # fmt: skip
BROKEN = [None, True, 5, 1.1, "", "a b", [], [None], {}, {"a b": None}, "\ud800"]


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a document."""
    yield path
    for step, element in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from nodes(element, (*path, step))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """Return a copy of a value after a change of the element at a path."""
    copy = json.loads(json.dumps(value))
    parent = copy
    for step in path[:-1]:
        parent = parent[step]
    change(parent, path[-1])
    return copy


def replace_element(value: Any, parent: Any, step: Any) -> None:
    parent[step] = value


def broken_documents() -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield documents that have another value at one path, or lack one, or have one more key."""
    for path in [path for path in nodes(VALID) if path]:
        for value in BROKEN:
            yield path, changed(VALID, path, partial(replace_element, value))
        if isinstance(path[-1], str):
            yield path, changed(VALID, path, lambda parent, step: parent.pop(step))
            yield path, changed(VALID, path, lambda parent, step: parent.__setitem__("x y", parent[step]))


@pytest.mark.parametrize("name", ["file.json", "file.yaml"])
def test_l10_each_error_of_a_document_has_a_line_and_the_setting(tmp_path: Path, name: str) -> None:
    """Wherever a valid document is broken. The setting is named if the error is in one that has a name."""
    file = tmp_path / name
    for path, content in broken_documents():
        file.write_text(json.dumps(content, indent=1) if name == "file.json" else format_yaml(content))
        try:
            export_file.ExportFile(str(file)).document()
        except CommandError as error:
            message = error.message
        else:
            continue
        place = message.removeprefix(f"{file}, line ")
        number, _, problem = place.partition(": ")
        lines = file.read_text().splitlines()
        assert 1 <= int(number) <= len(lines), message
        assert not re.search(r"\b(None|True|False)\b|\n", problem), message
        match path:
            case ("settings", int(index), key, *_) if key != "name":
                assert problem.startswith(f"setting {'st'[index]}: "), (path, message)
                assert int(number) > 4, message


def test_l10_keys_that_are_aliases_count(read: Any, tmp_path: Path) -> None:
    """As texts of their length."""
    key = "k" * 50_000
    content = f"{YAML}  metadata:\n    a: &k '{key}'\n    b: [{', '.join(['{*k : 1}'] * 300)}]\n"
    code, output = read(content, "file.yaml")
    assert (code, "line 10: setting s: metadata.b." in output) == (1, True), output[:300]
    assert output.endswith("aliases repeat more than 100,000 values\n")
    setting = SETTING | {"metadata": {"a": [{key: 1}] * 300}}
    (tmp_path / "file.json").write_text(json.dumps(DOCUMENT | {"settings": [setting]}))
    assert export_file.ExportFile(str(tmp_path / "file.json")).document().settings[0].metadata == setting["metadata"]


@given(st.text() | st.from_regex(r"[-+]?[0-9._:eExo]{1,8}", fullmatch=True))
def test_l10_text_is_written_so_that_every_parser_reads_it_as_text(text: str) -> None:
    """Also by YAML 1.2, which reads 09 and 1e5 as numbers."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        return
    written = format_yaml({"a": text, "b": [text, text]})
    assert YAMLText(written).content() == yaml.safe_load(written) == {"a": text, "b": [text, text]}


def test_l10_lists_that_are_used_twice_are_written_twice() -> None:
    """Without aliases, which other tools may not read."""
    shared = ["x"]
    assert format_yaml({"a": shared, "b": shared}) == "a:\n- x\nb:\n- x\n"


def test_l10_an_error_of_the_reader_tells_its_place() -> None:
    with pytest.raises(TextError) as caught:
        YAMLText("a:\n- b: no\n").content()
    assert (caught.value.path, caught.value.line) == (("a", 0, "b"), 2)
    with pytest.raises(TextError) as caught:
        JSONText('{"a":\n [1').content()
    assert (caught.value.path, caught.value.line) == (("a", 0), 2)
    assert YAMLText("").content() is None
    assert YAMLText("").text_at(("a",)) is None
    for text, expected in (("a: [b]", "b"), ("a: [5]", None)):
        parsed = YAMLText(text)
        parsed.content()
        assert parsed.text_at(("a", 0)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"version": None}, {"version": "1.2"}, {"version": "1"}, {"metadata": {}}, {"aliases": ["former"]},
        {"aliases": ["s"]}, {"rules": None}, {"configurable_features": []}, {"configurable_features": ["planet"]},
        {"type": 'Enum["b","a"]', "default_value": "a"}, {"type": "nothing"}, {"name": "ä"}, {"name": ".."},
        {"default_value": "a"}, {"default_value": 1.0}, {"unknown": 1}, {"metadata": {"a b": 1}},
        {"rules": [{"feature_values": {"user": "jim"}, "value": 2}] * 2},
        {"rules": [{"feature_values": {}, "value": 2}]},
        {"rules": [{"feature_values": {"planet": "mars"}, "value": 2}]},
        {"rules": [{"feature_values": {"user": "jim"}, "value": "2"}]},
        {"rules": [{"feature_values": {"user": "a\tb"}, "value": 2}]},
        {"rules": [{"feature_values": {"user": user}, "value": 2} for user in ("a-b", "\u00e9", "no", "1.5", "a, b")]},
        {"rules": [{"feature_values": {"user": user}, "value": 2} for user in ("\u00e9", "e\u0301")]},
        {"rules": [{"feature_values": {"user": "jim"}, "value": 2, "rule_id": 5, "metadata": {"a": 1}}]},
        {"type": "str", "default_value": "\ud800"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["file.json", "file.yaml"])
def test_l19_diff_accepts_the_documents_that_import_accepts(read: Any, changes: dict[str, Any], name: str) -> None:
    """And refuses the others with the same message: the fixture compares them. None removes a key."""
    setting = {key: value for key, value in (SETTING | changes).items() if value is not None}
    code, output = read(json.dumps(DOCUMENT | {"settings": [setting]}), name)
    assert code == 0 or "setting" in output or "found invalid Unicode" in output


def test_l19_diff_compares_what_an_import_would_store(run: Any, shop: Any, tmp_path: Path) -> None:
    """Versions that are left out, and options of a type in another order, are not differences."""
    shop.reset(offers_changes=True)
    setting = SETTING | {
        "type": 'Enum["b","a"]',
        "default_value": "a",
        "configurable_features": ["user", "environment"],
    }
    shop.declare("s", 'Enum["a","b"]', "a", ["environment", "user"])
    (tmp_path / "file.json").write_text(
        json.dumps({"heksher": 1, "context_features": ["environment", "user"], "settings": [setting]})
    )
    outcome = run("diff", "file.json", "shop")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


def test_l19_diff_of_a_file_without_the_extra_is_an_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_file, "ExportFile", lambda _: (_ for _ in ()).throw(ImportError("install it")))
    result = CliRunner().invoke(main, ["diff", "a.json", "b.json"])
    assert (result.exit_code, result.output) == (1, "Error: install it\n")


def test_l19_an_error_names_the_setting_only_if_it_has_a_name() -> None:
    with pytest.raises(DocumentError, match=r"settings\.0: must be an object"):
        parse(DOCUMENT | {"settings": [5]})
    with pytest.raises(DocumentError, match=r"settings\.0\.name: null must be text"):
        parse(DOCUMENT | {"settings": [SETTING | {"name": None}]})


@pytest.mark.parametrize(
    ("type_", "value", "problem"),
    [
        ("str", "1.10", "default_value: 1.1 is a number, and is not of the type str: put it in quotes"),
        ("str", "true", "default_value: true is a boolean, and is not of the type str: put it in quotes"),
        ("str", "", "default_value: null is not of the type str: put it in quotes"),
        ("int", "a", 'default_value: "a" is not of the type int'),
        ("Enum['a', 1]", "2", "default_value: 2 is a number, and is not of the type Enum['a',1]: put it in quotes"),
        (
            "Sequence<str>",
            "[a, 1.10]",
            "default_value.1: 1.1 is a number, and is not of the type str: put it in quotes",
        ),
        (
            "Mapping<str>",
            "{a: b, c: 5}",
            "default_value.c: 5 is a number, and is not of the type str: put it in quotes",
        ),
        ("Flags['a']", "[a, 5]", "default_value.1: 5 is a number, and is not of the type Enum['a']: put it in quotes"),
        ("Flags['a']", "[a, a]", 'default_value: ["a","a"] is not of the type Flags[\'a\']'),
    ],
)
def test_l10_a_value_of_another_type_has_its_own_line_and_a_hint(
    read: Any, type_: str, value: str, problem: str
) -> None:
    """The default value, and that of a rule. The line is that of the value."""
    type_ = type_.replace("'", '"')
    for key, place in (("default_value", ""), ("rules:\n  - feature_values: {user: a}\n    value", "rules.0.")):
        content = f"{HEAD}- name: t\n  type: '{type_}'\n  configurable_features: [user]\n  {key}: {value}\n"
        if place:
            content += f"  default_value: {DEFAULTS[type_.partition('<')[0].partition('[')[0]]}\n"
        code, output = read(content, "file.yaml")
        expected = problem.replace("'", '"').replace("default_value", f"{place}{'value' if place else 'default_value'}")
        line = 9 if place else 7
        assert output.startswith(f"Error: file.yaml, line {line}: setting t: {expected}"), output
        assert code == 1


DEFAULTS = {"str": "a", "int": "1", "Enum": "a", "Sequence": "[]", "Mapping": "{}", "Flags": "[]"}


def test_l10_keys_that_parsers_read_differently_are_errors(read: Any) -> None:
    for key in ("y", "N", "1e5", "09"):
        code, output = read(f"{YAML}  metadata: {{{key}: 1}}\n", "file.yaml")
        assert (code, f"line 8: setting s: metadata: the key `{key}` is a" in output) == (1, True)


def test_l10_a_conflict_with_the_database_has_the_line_and_the_setting(read: Any, tmp_path: Path) -> None:
    """Whether the file is JSON or YAML. `diff` does not know the database."""
    assert read(f"{YAML}  aliases: [former]\n", "first.yaml")[0] == 0
    second: Any = {"heksher": 1, "context_features": ["user"], "settings": [SETTING | {"name": "former"}]}
    second["settings"][0]["configurable_features"] = ["user"]
    for name, text in (("b.yaml", format_yaml(second)), ("b.json", json.dumps(second, indent=1))):
        (tmp_path / name).write_text(text)
        command = ["service", "import", str(tmp_path / name), "--yes", "--database", str(tmp_path / "s.db")]
        result = CliRunner().invoke(main, command)
        line = 5 if name == "b.yaml" else 7
        message = f"line {line}: setting former: former is an alias of s in the database\n"
        assert (result.exit_code, result.output) == (1, f"Error: {tmp_path / name}, {message}")


def test_l10_nesting_is_limited_by_each_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """That in Python has no limit of its own."""
    monkeypatch.setattr(yaml_text, "_Loader", yaml.SafeLoader)
    with pytest.raises(TextError, match="more than 200 nested lists and objects"):
        YAMLText("\n" + "[" * 3_000).content()
    nested: Any = 1
    for _ in range(300):
        nested = [nested]
    with pytest.raises(DocumentError, match="more than 200 nested lists and objects"):
        parse(DOCUMENT | {"a": nested})


def test_l10_a_document_that_no_parser_returns_is_an_error() -> None:
    with pytest.raises(DocumentError, match="unsupported document format nan"):
        parse(DOCUMENT | {"heksher": float("nan")})


@pytest.mark.parametrize("answer", ["", "n\n"])
def test_an_import_that_is_not_confirmed_is_aborted(tmp_path: Path, answer: str) -> None:
    """Also at the end of standard input, or by Ctrl-C."""
    (tmp_path / "a.yaml").write_text(YAML)
    command = ["service", "import", str(tmp_path / "a.yaml"), "--database", str(tmp_path / "s.db")]
    result = CliRunner().invoke(main, command, input=answer)
    assert (result.exit_code, "Aborted!" in result.output, "Error" in result.output) == (1, True, False)
    assert not (tmp_path / "s.db").exists()
