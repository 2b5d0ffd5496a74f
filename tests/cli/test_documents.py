"""Documents with settings, as people and their editors write them, and the places of errors in them."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from heksher_client.cli import export_file, main
from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_values import parse_json
from heksher_client.cli.yaml_text import YAMLText, YAMLTextError, format_yaml
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
    assert (code, output.startswith(f"Error: cannot read {name}: 'utf-8' codec can't decode byte")) == (1, True)


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
        (RULES.replace("jim", ""), "line 9: setting s: rules.0.feature_values.user: null is null, and must be text"),
        (f"{RULES}    value: a\n", "line 10: setting s: rules.0.value: the value of the rule for user=jim is not of"),
        (RULES.replace("user:", "1:"), "line 9: setting s: rules.0.feature_values: the key `1` is not text"),
        (RULES.replace("user:", "no:"), "line 9: setting s: rules.0.feature_values: the key `no` is not text: put it"),
        (RULES.replace("user:", "[a]:"), "line 9: setting s: rules.0.feature_values: a key must be text"),
        (RULES.replace("user:", "<<:"), "line 9: setting s: rules.0.feature_values: merge keys (<<) are not supported"),
        (f"{RULES}    value: 1\n    value: 2\n", "line 11: setting s: rules.0: the key `value` is repeated"),
        (f"{RULES}    value: 1\n  rules: []\n", "line 11: setting s: the key `rules` is repeated"),
        (f"{YAML}settings: []\n", "line 8: the document: the key `settings` is repeated"),
        (f"{YAML}  default: 5\n", "line 8: setting s: default: Extra inputs are not permitted"),
        (f"{YAML}  alias: former\n", "line 8: setting s: alias: Input should be None"),
        (f"{YAML}- type: int\n", "line 8: settings.1.name: Field required"),
        (f"{YAML}\t- a\n", "line 8: found character that cannot start any token"),
        ("heksher: true\ncontext_features: []\nsettings: []\n", "line 1: heksher: unsupported document format True"),
        ("heksher: '1'\ncontext_features: []\nsettings: []\n", "line 1: heksher: unsupported document format '1'"),
        (f"{RULES}    value: 1\n    rule_id: true\n", "line 11: setting s: rules.0.rule_id: Input should be a valid"),
        (f"{RULES}    value: 1\n    rule_id: '7'\n", "line 11: setting s: rules.0.rule_id: Input should be a valid"),
        ("", "line 1: this is not a document of `service export`"),
        ("- a\n", "line 1: this is not a document of `service export`"),
        ("a: 1\n---\nb: 1\n", "line 2: but found another document"),
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
        ("1" * 5000, "a number: put it in quotes, or write it in decimal"),
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
        export_file.read_document("/dev/zero")


def test_l10_a_character_that_yaml_does_not_allow_is_an_error(read: Any) -> None:
    assert read(f"{YAML}# \x00\n", "file.yaml")[1].startswith("Error: cannot read file.yaml: ")


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


def test_l10_an_error_in_json_that_is_not_yaml_has_no_line(read: Any) -> None:
    """Some characters are valid in JSON only."""
    text = json.dumps(DOCUMENT | {"settings": [SETTING | {"metadata": {"a": "\x7f"}}]}, ensure_ascii=False)
    assert read(text.replace('"s"', "5"), "file.json")[1] == (
        "Error: file.json: settings.0.name: 5 is a number, and must be text: put it in quotes\n"
    )
    repeated = text.replace('"type"', '"name": "s",\n"type"')
    assert read(repeated, "file.json") == (1, "Error: cannot read file.json: the key 'name' is repeated\n")
    with pytest.raises(ValueError, match="the key 'a' is repeated"):
        parse_json('{"a": 1, "a": 2}')


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
    with pytest.raises(YAMLTextError) as caught:
        YAMLText("a:\n- b: no\n").content()
    assert (caught.value.path, caught.value.line) == (("a", 0, "b"), 2)
    assert YAMLText("").content() is None
    assert YAMLText("").text_at(("a",)) is None
    assert YAMLText("a: [b]").text_at(("a", 0)) == "b"
    assert YAMLText("a: [5]").text_at(("a", 0)) is None


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
        {"rules": [{"feature_values": {"user": "a-b"}, "value": 2}]},
        {"rules": [{"feature_values": {"user": "jim"}, "value": 2, "rule_id": 5, "metadata": {"a": 1}}]},
        {"type": "str", "default_value": "\ud800"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["file.json", "file.yaml"])
def test_l19_diff_accepts_the_documents_that_import_accepts(read: Any, changes: dict[str, Any], name: str) -> None:
    """And refuses the others with the same message: the fixture compares them. None removes a key."""
    setting = {key: value for key, value in (SETTING | changes).items() if value is not None}
    code, output = read(json.dumps(DOCUMENT | {"settings": [setting]}), name)
    assert code == 0 or "setting" in output or "line 1: found invalid Unicode" in output


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
    monkeypatch.setattr(export_file, "read_document", lambda _: (_ for _ in ()).throw(ImportError("install it")))
    result = CliRunner().invoke(main, ["diff", "a.json", "b.json"])
    assert (result.exit_code, result.output) == (1, "Error: install it\n")


def test_l19_an_error_names_the_setting_only_if_it_has_a_name() -> None:
    with pytest.raises(DocumentError, match=r"settings\.0: must be an object"):
        parse(DOCUMENT | {"settings": [5]})
    with pytest.raises(DocumentError, match=r"settings\.0\.name: null is null, and must be text"):
        parse(DOCUMENT | {"settings": [SETTING | {"name": None}]})
