"""Secrets are read only from private files, and are sent only to the server they belong to."""

import sys
from pathlib import Path

import httpx
import pytest

from heksher_client import ConfigError, ThreadHeksherClient, connect
from heksher_client.credentials import StaticToken
from heksher_client.profiles._config import OAuth, Profile
from heksher_client.profiles._stored_credential import StoredCredential
from tests.support.http import http_client
from tests.support.in_memory import LoopbackService
from tests.support.oauth import CLIENT, SECRET, OAuthServer, put_behind_gateway
from tests.support.profiles import MINIMAL_PROFILE, TWO_PROFILES, write_config

SECRETS = [
    'token = "t"',
    'headers = { Authorization = "t" }',
    'params = { api_key = "t" }',
    'cookies = { c = "t" }',
    'proxy = "http://jim:t@host"',
    'oauth = { client_id = "x", client_secret = "t" }',
    'headers = { X-JWT = "t" }',
    'headers = { X-Upstream = "Bearer t" }',
    'params = { sig = "t" }',
]
"""Lines of a profile, each with a secret."""


def assert_accepted() -> None:
    """Check that the secrets of the configuration are accepted. The client is not created, for another reason."""
    with pytest.raises(ConfigError, match="jitter must be"):
        connect(jitter=5)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no POSIX file modes")
@pytest.mark.parametrize("mode", [0o640, 0o604])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_file_with_a_secret_must_be_readable_by_its_owner_only(config_file: Path, secret: str, mode: int) -> None:
    """A file without secrets may have any mode."""
    write_config(config_file, f'[profiles.a]\nurl = "http://h"\n{secret}\n', mode)
    with pytest.raises(ConfigError, match=r"other users can read .*, and profile a has a secret .*\(chmod 600\)"):
        connect()
    write_config(config_file, '[profiles.a]\nurl = "http://h"\nheaders = { X-Team = "t" }\n', mode)
    assert_accepted()


@pytest.mark.parametrize("secret", [secret for secret in SECRETS if "jim:" not in secret])
def test_secrets_of_a_profile_are_not_sent_to_another_server(
    config_file: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A different path on the same server is allowed."""
    write_config(config_file, f'[profiles.a]\nurl = "https://h/path"\n{secret}\n')
    monkeypatch.setenv("HEKSHER_URL", "https://other")
    with pytest.raises(ConfigError, match="cannot be sent to https://other:443, as it belongs to https://h:443"):
        connect()
    monkeypatch.setenv("HEKSHER_URL", "https://h/other-path")
    assert_accepted()


def test_the_password_of_a_proxy_is_not_bound_to_the_service(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent to the proxy only, so another service can be used through the same proxy."""
    write_config(config_file, '[profiles.a]\nurl = "https://h"\nproxy = "http://jim:t@host"\n')
    monkeypatch.setenv("HEKSHER_URL", "https://other")
    assert_accepted()


def test_a_token_for_the_new_server_replaces_credentials_but_no_other_secrets(
    service: LoopbackService, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secret headers of the profile are still refused."""
    monkeypatch.setenv("HEKSHER_TOKEN", "another")
    monkeypatch.setenv("HEKSHER_URL", service.url)
    features = 'context_features = ["environment", "user", "theme"]\n'
    write_config(
        config_file, f'[profiles.a]\nurl = "https://h"\ntoken = "t"\nheaders = {{ X-Api-Key = "k" }}\n{features}'
    )
    with pytest.raises(ConfigError, match=r"profile a in .*: headers cannot be sent to http://127\.0\.0\.1"):
        connect()
    write_config(config_file, f'[profiles.a]\nurl = "https://h"\ntoken = "t"\n{features}')
    with connect():
        assert service.requests[-1].headers["authorization"] == "Bearer another"
    with pytest.raises(ConfigError, match=r"url: .* is not a valid URL"):
        connect(url="http://[h")


def test_a_token_belongs_to_the_url_of_its_own_or_a_lower_source(
    service: LoopbackService, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument of None is ignored."""
    write_config(config_file, '[profiles.a]\nurl = "https://h"\ntoken = "t"\ncontext_features = ["user"]\n')
    monkeypatch.setenv("HEKSHER_URL", "https://other")
    with pytest.raises(ConfigError, match=r"profile a in .*: token cannot be sent to https://other"):
        connect(url=None)
    monkeypatch.setenv("HEKSHER_TOKEN", "env")
    write_config(config_file, "")
    with pytest.raises(ConfigError, match="the environment: token cannot be sent to http://127"):
        connect(url=service.url)


def test_an_oauth_argument_replaces_tokens_of_lower_priority(
    service: LoopbackService, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens of the profile and the environment are not sent to the server of the argument."""
    write_config(config_file, '[profiles.a]\nurl = "https://h"\ntoken = "t"\ncontext_features = ["user"]\n')
    monkeypatch.setenv("HEKSHER_TOKEN", "env")
    with connect(url=service.url, oauth={"client_id": "x"}) as client:
        assert isinstance(client._endpoint.auth, StoredCredential)
        assert not service.requests
    monkeypatch.delenv("HEKSHER_CONFIG")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigError, match="the location of the token store is unknown"):
        connect(url=service.url, context_features=["user"], oauth={"client_id": "x"})


def test_secrets_of_a_client_class_are_not_sent_to_another_server(service: LoopbackService, config_file: Path) -> None:
    """A profile with another URL needs its own token; other secrets of the class are refused."""

    class WithToken(ThreadHeksherClient, service_url="https://a.example", auth=StaticToken("of-the-class")):
        pass

    class WithBasicAuth(ThreadHeksherClient, service_url="https://a.example", http_client_args={"auth": ("jim", "x")}):
        pass

    class WithHeader(
        ThreadHeksherClient, service_url="https://a.example", headers={"X-Key": "k"}, auth=StaticToken("t")
    ):
        pass

    http_client_args = {"headers": httpx.Headers({"X-Key": "k"})}

    class WithHttpxHeaders(ThreadHeksherClient, service_url="https://a.example", http_client_args=http_client_args):
        pass

    http = http_client(headers={"Authorization": "Bearer of-the-class"})

    class WithHttpClient(ThreadHeksherClient, service_url="https://a.example", http_client=http):
        pass

    write_config(config_file, TWO_PROFILES.format(url=service.url))
    classes: dict[str, type[ThreadHeksherClient]] = {
        "http_client_args": WithHttpxHeaders,
        "http_client": WithHttpClient,
    }
    for option, client_class in classes.items():
        with pytest.raises(ConfigError, match=f"the client class: {option} cannot be sent to .*: remove it"):
            connect("dev", client_class=client_class)
    http.close()
    for client_class in (WithToken, WithBasicAuth):
        with pytest.raises(ConfigError, match=r"the client class: auth cannot be sent to .*: set a token"):
            connect("dev", client_class=client_class)
    with pytest.raises(ConfigError, match=r"the client class: headers cannot be sent to .*: remove it"):
        connect("dev", client_class=WithHeader, token="another")  # noqa: S106
    with connect("dev", client_class=WithToken, token="another"):  # noqa: S106
        assert service.requests[-1].headers["authorization"] == "Bearer another"


def test_a_secret_in_any_profile_makes_the_file_private(config_file: Path) -> None:
    """Even if another profile is used, as other users can read the whole file."""
    write_config(config_file, f'{MINIMAL_PROFILE}[profiles.b]\ntoken = "t"\n', 0o644)
    with pytest.raises(ConfigError, match=r"profile b has a secret \(token\)"):
        connect("a")


def test_errors_and_reprs_contain_no_secrets(config_file: Path) -> None:
    """The causes and contexts of an error included."""
    secret = "the-secret-itself"  # noqa: S105
    write_config(
        config_file, f'[profiles.a]\nurl = 5\ntoken = "{secret}"\n[profiles.b]\nurl = "http://jim:{secret}@"\n'
    )
    for name in ("a", "b"):
        with pytest.raises(ConfigError) as raised:
            connect(name, context_features=["user"])
        error: BaseException | None = raised.value
        while error is not None:
            assert secret not in repr(error)
            error = error.__cause__ or error.__context__
    assert secret not in repr(Profile(url="u", token=secret, oauth=OAuth(client_id="x", client_secret=secret)))
    assert secret not in repr(OAuth(client_id="x", client_secret=secret))


def test_the_client_secret_can_be_an_environment_variable(
    service: LoopbackService, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is then not required to be private, and the secret is bound to the server of the profile."""
    with OAuthServer() as oauth:
        put_behind_gateway(service, oauth)
        table = f'client_id = "{CLIENT}"\ngrant = "client_credentials"\ntoken_url = "{oauth.token_url}"\n'
        features = 'context_features = ["environment", "user", "theme"]'
        write_config(
            config_file, f'[profiles.a]\nurl = "{service.url}"\n{features}\n[profiles.a.oauth]\n{table}', 0o644
        )
        monkeypatch.setenv("HEKSHER_CLIENT_SECRET", SECRET)
        with connect() as client:
            client.ping()
            assert client.credential is not None
            client.credential.force_refresh()
        monkeypatch.setenv("HEKSHER_URL", "https://other")
        with pytest.raises(ConfigError, match="cannot be sent to https://other"):
            connect()
