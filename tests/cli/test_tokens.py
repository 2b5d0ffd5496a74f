"""The command `tokens`, which manages access tokens over HTTP."""

import pytest

from tests.support.commands import Run
from tests.support.service import CannedResponse, WatchedService


def test_tokens_are_created_listed_and_revoked(run: Run, shop: WatchedService) -> None:
    """A new token is printed once. It works at once, and not after it was revoked."""
    assert run("tokens").out == "No tokens.\n"
    token = run("tokens", "add", "ops", "--role", "admin").out.strip()
    created = run("tokens", "add", "dashboard", "--days", "7", "--json").json
    assert (created["name"], created["role"]) == ("dashboard", "declare")
    listed = run("tokens", "list", "--json").json
    assert [(each["name"], each["role"], each["expired"]) for each in listed] == [
        ("dashboard", "declare", False),
        ("ops", "admin", False),
    ]
    lines = run("tokens").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["name", "role"], ["dashboard", "declare"], ["ops", "admin"]]
    assert lines[2].rstrip().endswith("never")
    assert run("ping", HEKSHER_TOKEN=token, HEKSHER_URL=shop.url).status == 0
    assert run("tokens", "revoke", "ops").out == "Revoked token ops.\n"
    assert run("tokens", "revoke", "dashboard", "--json").json == {"name": "dashboard"}
    assert run("tokens").out == "No tokens.\n"


def test_an_expired_token_is_marked(run: Run, shop: WatchedService) -> None:
    token: dict[str, object] = {"name": "old", "role": "read", "created_at": "2020-01-01T00:00:00+00:00"}
    token |= {"expires_at": "2020-01-08T00:00:00+00:00", "expired": True}
    shop.respond_with("GET /api/v1/tokens", CannedResponse.of({"tokens": [token]}))
    assert run("tokens").out.splitlines()[1].rstrip().endswith("(expired)")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("add", ""), 2, "it is empty"),
        (("add", "a b"), 1, ""),
        (("revoke", "nobody"), 1, "Error: token nobody does not exist\n"),
        (("add", "x", "--role", "owner"), 2, "'owner' is not one of 'read', 'declare', 'admin'"),
    ],
)
def test_an_impossible_change_of_tokens_is_refused(
    run: Run, arguments: tuple[str, ...], status: int, message: str
) -> None:
    outcome = run("tokens", *arguments)
    assert (outcome.status, message in outcome.err) == (status, True), outcome.err
