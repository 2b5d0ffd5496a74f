"""Redaction: a secret that a server repeats is removed from errors, and nothing else."""

import json
from collections.abc import Callable
from html import escape
from itertools import product
from urllib.parse import quote, quote_plus

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from heksher_client._http.body import Body, sent_request
from heksher_client._logging import redact
from heksher_client.cli import main
from heksher_client.service import LocalService

HINT = "the request needs a token, sent as `Authorization: Bearer TOKEN`; a wrong token is refused; session, service"
ENCODINGS: dict[str, Callable[[str], str]] = {
    "text": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with characters": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "URL": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "HTML": escape,
    "JSON of Go": lambda text: encoded(json.dumps(text, ensure_ascii=False)[1:-1], "&<>", "\\u{:04x}"),
    "JSON of .NET": lambda text: encoded(json.dumps(text)[1:-1].replace('\\"', '"'), "&<>+'\"`", "\\u{:04X}"),
    "JSON of PHP": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text))[1:-1].removeprefix(r"\"").removesuffix(r"\""),
    "URL in a URL": lambda text: quote(quote(text, safe=""), safe=""),
    "HTML of Jinja": lambda text: encoded(escape(text, quote=False), "'\"", "&#{};"),
    "HTML with codes": lambda text: encoded(text, "&<>\"'/+ü", "&#x{:X};"),
    "HTML with zeros": lambda text: encoded(text, "&<>\"'/+ü", "&#{:04};"),
}


def encoded(text: str, characters: str, form: str) -> str:
    """Return a text in which some characters are encoded."""
    return "".join(form.format(ord(character)) if character in characters else character for character in text)


SURROUNDINGS = ("{}", "Bearer {} is wrong", '{{"token": "{}"}}', "?a=1&t={}&b", "%20{}%20", r"\n{}\n",
                r"\u0020{}\u0020", r"\x20{}", "<b>{}</b>", "&quot;{}&quot;", "({})", "é{}é", "{},{}")  # fmt: skip


def redacted(content: str, headers: dict[str, str], params: dict[str, str] | None = None) -> str:
    """Return a body as an error shows it, if the request had these headers and parameters."""
    request = httpx.Request("GET", "http://host/", headers=headers, params=params)
    body = Body(httpx.Response(401, request=request, content=content.encode()), 1 << 20)
    reply = body.reply()
    assert isinstance(getattr(reply, "content", None), bytes)
    return reply.redact(reply.content).decode()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "token", ["a", "no", "wrong1", "Bearer", "bearer", "TOKEN", "token", "eyJhbGciOi.eyJzdWIi.c2ln"]
)
@pytest.mark.parametrize("scheme", ["Bearer", "Token", "Basic", "Custom"])
def test_l20_the_hint_of_the_server_is_kept(token: str, scheme: str) -> None:
    """Neither the scheme nor a short or common token removes words from it."""
    assert redacted(HINT, {"Authorization": f"{scheme} {token}"}) == HINT


@pytest.mark.parametrize(
    ("headers", "shown", "expected"),
    [
        ({"Authorization": "Bearer hunter2"}, "Bearer hunter2, hunter2s, hunter2", "Bearer ***, hunter2s, ***"),
        ({"Authorization": "Bearer hunt"}, "hunter: hunt?", "hunter: ***?"),
        ({"Authorization": "Bearer abcd1234=="}, "abcd1234 or abcd1234==", "*** or ***"),
        ({"Authorization": "hunter2,hunter3"}, "hunter2 and hunter3", "*** and ***"),
        ({"Authorization": 'Digest username="jim", response="f00df00d"'}, "response f00df00d", "response ***"),
        ({"Proxy-Authorization": "Bearer hunter2"}, "hunter2", "***"),
        ({"Authorization": "Basic amltOmh1bnRlcjI="}, "jim:hunter2 amltOmh1bnRlcjI= amltOmh1bnRlcjI", "*** *** ***"),
        ({"Cookie": "session=abcdef12; theme=light"}, "session abcdef12, theme light", "session ***, theme light"),
        ({"X-Api-Key": "Bearer hunter2"}, "Bearer: hunter2", "Bearer: ***"),
        ({"X-Key": "s3cr3t"}, "xs3cr3ts s3cr3t-1 my_s3cr3t", "xs3cr3ts ***-1 my_s3cr3t"),
        ({"X-Key": "a-long-secret"}, "xa-long-secrets", "x***s"),
        ({"X-Key": "!bang!"}, "x!bang!x", "x***x"),
        ({"User-Agent": "heksher", "Accept": "application/json"}, "heksher application/json", None),
        ({"X-Request-Id": "5f0c2d7e-9b1a", "traceparent": "00-5f0c-01"}, "request 5f0c2d7e-9b1a 00-5f0c-01", None),
        ({"X-Format": "json", "X-Version": "1", "X-Env": "prod"}, 'prod {"json": 1, "a": "1"} application/json', None),
        ({"X-Tenant": "acme-7"}, "tenant acme-7", "tenant ***"),
        *(({name: "abcd"}, "abcd", "***") for name in ("X-Api-Key", "X-Auth", "X-TOKEN", "X-Passcode", "Cookie")),
    ],
)  # fmt: skip
def test_l20_only_the_secret_is_removed(headers: dict[str, str], shown: str, expected: str | None) -> None:
    """Short ones as whole words, long ones anywhere."""
    assert redacted(shown, headers) == (shown if expected is None else expected)


def test_l20_parameters_are_secrets_as_well() -> None:
    """Short ones only if their names are those of secrets. Those of the client itself are shown."""
    params = {"format": "json", "settings": "cache_size", "sig": "abcd", "tenant": "acme-7"}
    assert redacted("json cache_size abcd acme-7", {}, params) == "json cache_size *** ***"


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({"Authorization": "Bearer x"}, {"authorization": "***"}),
        ({"Authorization": "Basic amltOmh1bnRlcjI="}, {"authorization": "***"}),
        ({"Proxy-Authorization": "Bearer hunter2"}, {"proxy-authorization": "***"}),
        ({"Cookie": "a=b"}, {"cookie": "***"}),
        ({"X-Api-Key": "abcd", "X-Sig": ""}, {"x-api-key": "***", "x-sig": ""}),
        ({"X-Tenant": "acme-7"}, {"x-tenant": "***"}),
        ({"X-Format": "json", "X-Env": "prod"}, {"x-format": "json", "x-env": "prod"}),
        ({"User-Agent": "shop/1.0"}, {"user-agent": "shop/1.0"}),
        ({"X-Request-Id": "5f0c2d7e"}, {"x-request-id": "5f0c2d7e"}),
        ({"If-None-Match": '"etag-of-it"'}, {"if-none-match": '"etag-of-it"'}),
    ],
)
def test_l20_an_error_shows_the_headers_that_were_sent(headers: dict[str, str], shown: dict[str, str]) -> None:
    """Without the values that are redacted in a body."""
    sent = sent_request(httpx.Request("GET", "http://host/", headers=headers)).headers
    assert {name: sent[name] for name in shown} == shown
    assert sent["host"] == "host"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/", "http://host/"),
        ("https://jim:hunter2@host:8300/a/?#part", "https://host:8300/a/"),
        ("http://host/?settings=cache_size,b&context_filters=*", None),
        ("http://host/?settings=a&key=x&tenant=acme-7&x=1", "http://host/?settings=a&key=***&tenant=***&x=1"),
        ("http://host/?api%5Fkey=a%20b&q=a+b&sig=&flag", "http://host/?api%5Fkey=***&q=a+b&sig=&flag"),
        ("http://host/?n%C3%A4me=x%2Fy&name=%73ecret", "http://host/?n%C3%A4me=x%2Fy&name=***"),
    ],
)
def test_l20_an_error_shows_the_url_that_was_sent(url: str, shown: str | None) -> None:
    """Without user name and password; its parameters as they were encoded."""
    assert sent_request(httpx.Request("GET", url)).url == (url if shown is None else shown)


@pytest.mark.parametrize(
    "secret", ["hunter2", "pa/ss", "a b+c%d", 'q"u\\o', "<tag>", "ünïcode", "x" * 40, "p/" * 10, "it's", "100%&"]
)
def test_l20_a_secret_is_removed_in_every_encoding(secret: str) -> None:
    """Also directly after an escape, whose last character may be a letter."""
    for (name, encode), surrounding in product(ENCODINGS.items(), SURROUNDINGS):
        shown = surrounding.format(*[encode(secret)] * surrounding.count("{}"))
        expected = surrounding.format(*["***"] * surrounding.count("{}"))
        assert redact(shown.encode(), [secret]).decode() == expected, name


@given(st.text(min_size=12, max_size=20), st.text(), st.text(), st.sampled_from(sorted(ENCODINGS)))
def test_l20_a_long_secret_never_remains(secret: str, before: str, after: str, encoding: str) -> None:
    form = ENCODINGS[encoding](secret) if secret.isprintable() else secret
    shown = redact(f"{before}{form}{after}".encode(errors="replace"), [secret])
    assert form.encode(errors="replace") not in shown or form in before + after


@pytest.mark.parametrize("character", '\\"&%+ /\n')
def test_l20_a_search_takes_little_time(character: str) -> None:
    """For a text that is nearly a secret, however often a character occurs."""
    secret = character * 30 + "x"
    for encode in ENCODINGS.values():
        shown = encode(character) * 500
        assert redact(shown.encode(), [secret]).decode() == shown


@given(st.text(), st.lists(st.text(alphabet="xyz", min_size=4)))
def test_l20_a_text_without_the_secret_is_unchanged(text: str, secrets: list[str]) -> None:
    content = text.encode(errors="replace")
    if not any(secret.encode() in content for secret in secrets):
        assert redact(content, secrets) == content


def test_l20_the_command_line_says_how_to_sign_in() -> None:
    """For a wrong token, however short."""
    with LocalService(["user"], access_control=True) as service:
        for token in ("a", "wrong", "Bearer", "TOKEN", "a-wrong-token-of-some-length"):
            variables = {"HEKSHER_URL": service.url, "HEKSHER_TOKEN": token, "HEKSHER_CONFIG": ""}
            result = CliRunner().invoke(main, ["settings"], env=variables)
            assert result.exit_code == 4
            hint = "refused the token or password (401); sign in with `heksher-client login`, or set HEKSHER_TOKEN"
            assert result.output == f"Error: {service.url} {hint}\n"
