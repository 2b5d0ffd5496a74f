"""The commands `export` and `import`, which send and receive everything over HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from heksher_client.cli import main
from tests.support.commands import Run
from tests.support.service import CannedResponse, RecordedRequest, WatchedService

IMPORT = "POST /api/v1/import"
EXPORT = "GET /api/v1/export"


@pytest.fixture
def document(run: Run) -> dict[str, Any]:
    """The contents of the service `shop`."""
    exported: dict[str, Any] = run("export").json
    return exported


def write(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_an_export_contains_everything_as_json_or_yaml(run: Run, document: dict[str, Any], tmp_path: Path) -> None:
    """On standard output unless there is a file, whose contents are counted."""
    assert (document["context_features"], len(document["settings"])) == (["environment", "user"], 2)
    outcome = run("export", "shop.yaml")
    assert outcome.out == "Exported 2 context features, 2 settings and 3 rules to shop.yaml.\n"
    assert (tmp_path / "shop.yaml").read_text().startswith("heksher: 1\n")
    assert run("diff", "shop.yaml", "shop").status == 0
    write(tmp_path / "one.json", document | {"context_features": ["user"], "settings": []})
    assert run("export", "-p", "shop", "-").json == document


def test_an_export_of_a_service_without_the_endpoint_is_put_together(run: Run, shop: WatchedService) -> None:
    """From its settings and their rules, as with the reference implementation."""
    complete = run("export").json
    for status in (404, 405):
        shop.respond_with(EXPORT, CannedResponse(status))
        assert run("export").json == complete


@pytest.mark.parametrize("body", [{"hello": "world"}, [1]])
def test_an_export_of_another_server_is_refused(run: Run, shop: WatchedService, body: Any) -> None:
    shop.intercept = lambda _: CannedResponse.of(body)
    outcome = run("export")
    assert (outcome.status, outcome.err) == (1, f"Error: {shop.url} is not a Heksher service (200)\n")


def test_an_import_shows_the_changes_and_asks(
    run: Run, shop: WatchedService, document: dict[str, Any], tmp_path: Path
) -> None:
    """Without an answer, or with a dry run, nothing changes. `--yes` needs no answer."""
    document["settings"][0]["rules"] = [{"feature_values": {"user": "ann"}, "value": 7}]
    file = write(tmp_path / "new.json", document)
    added = "add rule to setting cache_size: user=ann is 7\nSummary: rule added (1).\n"
    assert run("import", file, "--dry-run").out == added
    outcome = run("import", file)
    assert (outcome.status, outcome.out, outcome.err.startswith("Make this change? [y/N]: ")) == (1, added, True)
    unattended = run("import", file, "--json")
    assert (unattended.status, unattended.out, "--json requires --yes" in unattended.err) == (2, "", True)
    assert run("get", "cache_size", "user=ann", "environment=dev").out == "10\n"
    assert run("import", file, "--yes").out == f"{added}Made 1 change.\n"
    assert run("get", "cache_size", "user=ann", "environment=dev").out == "7\n"
    assert run("import", file, "--yes").out == "Nothing to do: the service matches the file.\n"
    assert run("import", file).out == "Nothing to do: the service matches the file.\n"
    exact = run("import", file, "--exact", "--dry-run", "--json").json
    assert [change["action"] for change in exact["changes"]] == ["rule deleted"] * 3
    assert {change["setting"] for change in exact["changes"]} == {"cache_size"}
    assert run("import", file, "--exact", "--yes", "--json").json["revision"] == exact["revision"] + 3


def test_a_confirmed_import_is_for_the_revision_that_was_shown(
    run: Run, shop: WatchedService, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If anything has changed since the question, nothing is imported."""
    document["settings"][1]["rules"] = [{"feature_values": {"user": "ann"}, "value": "blue"}]
    file = write(tmp_path / "new.json", document)

    def answer(*_: object, **__: object) -> bool:
        if is_raced:
            shop.add_rule("shop.color", "green", user="jim")
        return True

    monkeypatch.setattr("heksher_client.cli.import_plan.click.confirm", answer)
    is_raced = True
    outcome = run("import", file)
    assert (outcome.status, outcome.out.count("\n")) == (1, 2)
    assert outcome.err == "Error: the service has changed since the confirmation; nothing was imported\n"
    is_raced = False
    assert run("import", file).out.endswith("Made 1 change.\n")


@pytest.mark.slow
def test_a_long_import_is_summarized(run: Run, document: dict[str, Any], tmp_path: Path) -> None:
    """A dry run shows each change."""
    document["settings"][1]["rules"] = [{"feature_values": {"user": f"u{i}"}, "value": "blue"} for i in range(1_000)]
    file = write(tmp_path / "new.json", document)
    assert run("import", file, "--dry-run").out.count("\n") == 1_001
    assert "... and 980 more, which --dry-run shows\n" in run("import", file).out
    lines = run("import", file, "--yes").out.splitlines()
    assert len(lines) == 23
    assert lines[-3:] == [
        "... and 980 more, which `heksher-client changes` shows",
        "Summary: rule added (1,000).",
        "Made 1,000 changes.",
    ]


SETTING = {"name": "s", "type": "int", "default_value": 1, "configurable_features": ["user"]}
VALID = {"heksher": 1, "context_features": ["user"], "settings": [SETTING]}


def test_a_document_that_is_written_by_hand_is_imported(run: Run, tmp_path: Path) -> None:
    """It may leave out ids, metadata, aliases and versions. `diff` reads the same documents."""
    text = "heksher: 1\ncontext_features: [environment, user]\nsettings:\n- name: s\n  type: int\n  default_value: 1\n"
    (tmp_path / "s.yaml").write_text(f"{text}  configurable_features: [user]\n")
    assert run("import", "s.yaml", "--yes").out.endswith("Summary: setting declared (1).\nMade 1 change.\n")
    assert "- shop.color str" in run("diff", "shop", "s.yaml").out
    result = CliRunner().invoke(
        main,
        ["import", "-", "--dry-run", "--url", run("ping", "--json").json["service"]],
        input=json.dumps(VALID | {"context_features": ["environment", "user"]}),
    )
    assert result.output == "Nothing to do: the service matches the file.\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("heksher: 1\nheksher: 2\n", "line 2: the key `heksher` is repeated"),
        ("[1]", "line 1: this is not an exported document: it does not have the key heksher"),
        ("heksher: 1\nsettings: []\n", "line 1: context_features: Field required"),
        ("a: &a {b: *a}\n", ": an alias is used within its own value, or nested too deeply"),
        (
            f"heksher: 1\ncontext_features: [user]\nsettings:\n- {json.dumps(SETTING | {'default_value': 'a'})}\n",
            'line 4: setting s: default_value: "a" is not of the type int',
        ),
        (
            f"heksher: 1\ncontext_features: [user]\nsettings:\n- {json.dumps(SETTING | {'aliases': ['cache_size']})}\n"
            f"- {json.dumps(SETTING | {'name': 'shop.color', 'aliases': ['t']})}\n",
            None,
        ),
    ],
)
def test_an_invalid_document_is_refused_with_the_line(
    run: Run, tmp_path: Path, content: str, message: str | None
) -> None:
    """The service checks it, so the extra `service` is not required."""
    (tmp_path / "s.yaml").write_text(content)
    outcome = run("import", "s.yaml", "--yes")
    if message is not None:
        assert (outcome.status, outcome.err.count("\n")) == (1, 1)
        assert message in outcome.err


def test_a_conflict_with_the_service_is_refused_with_the_line(run: Run, tmp_path: Path) -> None:
    """Two settings of the service are one in the document."""
    setting = json.dumps(SETTING | {"name": "cache_size", "aliases": ["shop.color"]})
    (tmp_path / "s.yaml").write_text(f"heksher: 1\ncontext_features: [user]\nsettings:\n- {setting}\n")
    outcome = run("import", "s.yaml", "--yes")
    assert (outcome.status, "s.yaml, line 4: setting cache_size: " in outcome.err) == (1, True)


def test_a_service_that_does_not_support_imports(run: Run, shop: WatchedService, tmp_path: Path) -> None:
    """As the reference implementation. Another server is called so."""
    file = write(tmp_path / "s.json", VALID)
    shop.respond_with(IMPORT, CannedResponse(404))
    outcome = run("import", file, "--yes")
    assert (outcome.status, f"{shop.url} does not support imports over HTTP" in outcome.err) == (1, True)
    shop.intercept = lambda _: CannedResponse(404)
    outcome = run("import", file, "--yes")
    assert (outcome.status, outcome.err) == (1, f"Error: {shop.url} is not a Heksher service (404)\n")


@pytest.mark.parametrize("status", [400, 409, 422, 500])
@pytest.mark.parametrize("body", [b"not today", b'{"detail": [1]}', b"[1]"])
def test_another_refusal_is_reported_as_it_is(
    run: Run, shop: WatchedService, tmp_path: Path, status: int, body: bytes
) -> None:
    def respond(request: RecordedRequest) -> CannedResponse:
        return CannedResponse(status, body)

    shop.respond_with(IMPORT, respond)
    outcome = run("import", write(tmp_path / "s.json", VALID), "--yes")
    assert (outcome.status, f"responded with {status}" in outcome.err) == (3 if status == 500 else 1, True)
