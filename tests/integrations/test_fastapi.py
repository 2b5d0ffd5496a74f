"""The example for FastAPI, which the service requires as well."""

import subprocess
import sys

from tests.support.servers import EXAMPLES, check_server, serving
from tests.support.service import WatchedService


def test_fastapi(example_shop: WatchedService, example_environment: dict[str, str]) -> None:
    """It runs on uvicorn, with the async client in the lifespan."""
    with serving("uvicorn", "fastapi_app:app", "--port", "{port}", env=example_environment) as http:
        check_server(http, example_shop)
        assert http.get("/health").json() == {"settings": "fresh"}


def test_an_asgi_application_is_tested_with_a_stub(example_environment: dict[str, str]) -> None:
    """The test client does not run the lifespan, so the application starts no client."""
    code = """
from fastapi.testclient import TestClient
from fastapi_app import app, cache_size, current_user
from heksher_client.testing import Rule, SyncStubHeksherClient

with SyncStubHeksherClient() as stub:
    stub.set_defaults(environment="prod", user=current_user)
    stub[cache_size].rules = [Rule({"user": "jim"}, 55)]
    print([TestClient(app).get("/", headers={"x-user": user}).json()["cache_size"] for user in ("jim", "ann")])
"""
    env = {name: value for name, value in example_environment.items() if name != "HEKSHER_URL"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("[55, 10]\n", "")
