"""The examples of the documentation, run as users run them: a request goes in, the value for its user comes out."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from celery import signals

from heksher_client import ThreadHeksherClient, connect
from heksher_client.integrations.celery import propagate, run_client
from tests.support.clients import eventually
from tests.support.commands import environment
from tests.support.service import WatchedService

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
BIN = Path(sys.executable).parent


@pytest.fixture
def shop() -> Iterator[WatchedService]:
    """A service in which jim has a cache of 200."""
    with WatchedService(("user",)) as service:
        service.offers_changes = True
        service.declare("cache_size", "int", 10, ["user"])
        service.add_rule("cache_size", 200, user="jim")
        yield service


@pytest.fixture
def surroundings(shop: WatchedService, tmp_path: Path) -> dict[str, str]:
    """Environment variables that say where the service is."""
    of_service = {"HEKSHER_URL": shop.url, "HEKSHER_CONTEXT_FEATURES": "user"}
    return environment(**of_service, HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")


@contextmanager
def serving(*command: str, port: int, env: dict[str, str]) -> Iterator[httpx.Client]:
    """A server in a process of its own, that has begun to answer."""
    process = subprocess.Popen([str(BIN / command[0]), *command[1:]], env=env, cwd=EXAMPLES)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            assert eventually(lambda: _answers(http))
            yield http
    finally:
        process.terminate()
        process.wait()


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/").status_code == 200
    except httpx.TransportError:
        return False


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def size_for(http: httpx.Client, user: str | None) -> int:
    answer = http.get("/", headers={} if user is None else {"X-User": user})
    size: int = answer.raise_for_status().json()["cache_size"]
    return size


def check(http: httpx.Client, shop: WatchedService) -> None:
    """Each request has the value of its user; a change gets there while the server runs."""
    assert [size_for(http, user) for user in ("jim", "ann", None)] == [200, 10, 10]
    shop.add_rule("cache_size", 5, user="ann")
    # Several times: there may be several workers.
    assert eventually(lambda: [size_for(http, "ann") for _ in range(6)] == [5] * 6)


def test_fastapi(shop: WatchedService, surroundings: dict[str, str]) -> None:
    """On uvicorn, with the asyncio client in the lifespan."""
    port = a_free_port()
    with serving("uvicorn", "fastapi_app:app", "--port", str(port), port=port, env=surroundings) as http:
        check(http, shop)
        assert http.get("/health").json() == {"settings": "fresh"}


def test_an_asgi_application_is_tested_with_a_stub(surroundings: dict[str, str]) -> None:
    """Without its lifespan, and so without a client of its own."""
    code = """
from fastapi.testclient import TestClient
from fastapi_app import app, cache_size, current_user
from heksher_client.testing import Rule, SyncStubHeksherClient

with SyncStubHeksherClient() as stub:
    stub.set_defaults(user=current_user)
    stub[cache_size].rules = [Rule({"user": "jim"}, 55)]
    print([TestClient(app).get("/", headers={"x-user": user}).json()["cache_size"] for user in ("jim", "ann")])
"""
    env = {name: value for name, value in surroundings.items() if name != "HEKSHER_URL"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == ("[55, 10]\n", "")


def test_flask_on_gunicorn_that_forks_workers(shop: WatchedService, surroundings: dict[str, str]) -> None:
    """The client starts before the workers are forked, and goes on in each."""
    port = a_free_port()
    command = ("gunicorn", "--config", "gunicorn.conf.py", "--bind", f"127.0.0.1:{port}", "flask_app:app")
    with serving(*command, port=port, env=surroundings) as http:
        check(http, shop)
        assert http.get("/health").json() == {"settings": "fresh"}


def test_django(shop: WatchedService, surroundings: dict[str, str]) -> None:
    """With its app, its middleware and its command."""
    port = a_free_port()
    command = ("gunicorn", "--bind", f"127.0.0.1:{port}", "django_project:application")
    with serving(*command, port=port, env=surroundings) as http:
        check(http, shop)
    manage = [sys.executable, str(EXAMPLES / "django_project.py")]
    # A command that reads no settings asks nobody.
    shop.asked.clear()
    subprocess.run([*manage, "check"], env=surroundings, capture_output=True, check=True)
    assert shop.asked == []
    told = subprocess.run([*manage, "heksher"], env=surroundings, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["fresh: 1 settings, 2 rules", "  cache_size: 2 rules, uptodate"]
    shop.stop()
    failed = subprocess.run([*manage, "heksher"], env=surroundings, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "CommandError: GET /api/v1/context_features: no answer" in failed.stderr


def test_the_command_of_django_fails_for_what_the_service_and_the_program_disagree_on(
    shop: WatchedService, surroundings: dict[str, str]
) -> None:
    """Though the service answers, and all other settings are up to date: it says what, and why."""
    shop.declare("color", "str", "red", ["user"])
    shop.add_rule("color", "blue", user="jim")
    body = """
import logging
from django.core.management import execute_from_command_line

logging.disable()
color = Setting("color", type=int, configurable_features=["user"], default_value=1)
if sys.argv[-1] == "refused":
    size = Setting("size", type=int, configurable_features=["nobody_knows"], default_value=1)
execute_from_command_line(["manage.py", "heksher"])
"""
    ran = django_project("{}", body, surroundings)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (1, "fresh: 2 settings, 1 rules")
    assert ran.stderr.splitlines() == [
        "CommandError: setting color: its declaration is in conflict with the service (mismatch)",
        "setting color: 1 rules cannot be used",
        "setting color: rule 2: 'blue' is not an int",
    ]
    ran = django_project("{}", body, surroundings, arguments=["refused"])
    assert ran.returncode == 1
    assert "the service refused the declaration of setting size" in ran.stderr.splitlines()[0]
    assert ran.stderr.count("refused") == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_celery(shop: WatchedService, surroundings: dict[str, str], tmp_path: Path, pool: str) -> None:
    """A worker in another process runs a task in the context that it was sent from."""
    folders = {name: str(tmp_path / name) for name in ("messages", "control", "results")}
    for folder in folders.values():
        Path(folder).mkdir()
    (tmp_path / "broker.py").write_text(
        "broker_url = 'filesystem://'\n"
        f"broker_transport_options = {{'data_folder_in': {folders['messages']!r}, "
        f"'data_folder_out': {folders['messages']!r}, 'control_folder': {folders['control']!r}}}\n"
        f"result_backend = 'file://{folders['results']}'\n"
    )
    env = {
        **surroundings,
        "CELERY_CONFIG_MODULE": "broker",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    worker = subprocess.Popen(
        [str(BIN / "celery"), "-A", "celery_app", "worker", "--pool", pool, "--concurrency", "2", "-l", "WARNING"],
        env=env, cwd=EXAMPLES,
    )  # fmt: skip
    send = (
        "import sys\n"
        "from celery_app import current_user, size_of_the_cache\n"
        "sent = []\n"
        "for user in ('jim', 'ann', 'jim', 'bob'):\n"
        "    current_user.set(user)\n"
        "    sent.append(size_of_the_cache.delay())\n"
        "print([task.get(timeout=20) for task in sent])\n"
    )
    try:
        sender = subprocess.run(
            [sys.executable, "-c", send], env=env, cwd=EXAMPLES, capture_output=True, text=True, check=False, timeout=40
        )
        assert (sender.stdout, sender.stderr) == ("[200, 10, 200, 10]\n", "")
    finally:
        worker.terminate()
        worker.wait()


def test_jupyter(surroundings: dict[str, str]) -> None:
    """Each cell of the notebook runs, in a kernel."""
    script = (
        "import sys, nbformat, nbclient\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, timeout=60, kernel_name='python3').execute()\n"
        "nbformat.write(notebook, sys.stdout)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(EXAMPLES / "notebook.ipynb")],
        env=surroundings, capture_output=True, text=True, check=True, timeout=90,
    )  # fmt: skip
    outputs = [
        output["data"]["text/plain"]
        for cell in json.loads(ran.stdout)["cells"] if cell["cell_type"] == "code"
        for output in cell["outputs"]
    ]  # fmt: skip
    assert "200" in outputs[0]
    assert "rule_id=1" in "".join(outputs[1])


PROJECT = """
import asyncio, sys, types
import django, httpx
from django.conf import settings
from django.http import JsonResponse
from django.urls import path
from heksher_client import Setting

cache_size = Setting("cache_size", type=int, configurable_features=["user"], default_value=10)

async def index(request):
    return JsonResponse({"cache_size": cache_size.get()})

def user_of(request):
    return request.headers.get("x-user")

urlpatterns = [path("", index)]
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, HEKSHER=HEKSHER,
    INSTALLED_APPS=["heksher_client.integrations.django"],
    MIDDLEWARE=["heksher_client.integrations.django.middleware.HeksherMiddleware"],
)
django.setup()
from heksher_client.integrations.django import client
"""


def django_project(
    heksher: str, body: str, env: dict[str, str], *, before: str = "", arguments: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    code = f"{before}HEKSHER = {heksher}\n{PROJECT}\n{body}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_django_with_asyncio(surroundings: dict[str, str]) -> None:
    """The same middleware; what finds a value may be named by its path."""
    body = """
from django.core.asgi import get_asgi_application

async def main():
    transport = httpx.ASGITransport(get_asgi_application())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answers = await asyncio.gather(*(http.get("/", headers={"x-user": user}) for user in ("jim", "ann")))
    print([answer.json()["cache_size"] for answer in answers], client() is client())

asyncio.run(main())
"""
    ran = django_project('{"CONTEXT": {"user": "__main__.user_of"}, "PIN": True}', body, surroundings)
    assert (ran.stdout, ran.stderr) == ("[200, 10] True\n", "")


STREAMS = """
from django.http import StreamingHttpResponse
from django.test import Client
from heksher_client.testing import Rule, SyncStubHeksherClient

async def later():
    for part in range(2):
        yield f"{cache_size.get()} "

def at_once():
    try:
        for part in range(2):
            yield f"{cache_size.get()} "
    finally:
        ended.append(cache_size.get())

ended = []

async def stream_later(request):
    return StreamingHttpResponse(later())

def stream(request):
    return StreamingHttpResponse(at_once())

urlpatterns += [path("stream", stream), path("later", stream_later)]
"""


def test_what_django_streams_is_made_with_the_values_of_its_request(surroundings: dict[str, str]) -> None:
    """Though it is made after the view has returned; in both worlds."""
    body = (
        STREAMS
        + """
from django.core.asgi import get_asgi_application

async def main():
    transport = httpx.ASGITransport(get_asgi_application())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        print((await http.get("/later", headers={"x-user": "jim"})).text)

print(b"".join(Client().get("/stream", headers={"x-user": "jim"})).decode())
asyncio.run(main())
response = Client().get("/stream", headers={"x-user": "jim"})
next(iter(response.streaming_content))
response.close()
print(ended)
"""
    )
    ran = django_project('{"CONTEXT": {"user": "__main__.user_of"}}', body, surroundings)
    assert (ran.stdout, ran.stderr) == ("200 200 \n200 200 \n[200, 200]\n", "")


def test_in_a_test_of_a_django_project_the_stub_is_the_client(surroundings: dict[str, str]) -> None:
    """No other client takes its place, and what a request says counts."""
    body = (
        STREAMS
        + """
import contextvars
theirs = contextvars.ContextVar("theirs", default="bob")
for said, features in (({}, []), ({"user": "ann"}, ["user"]), ({"user": theirs}, [])):
    with SyncStubHeksherClient(context_features=features) as stub:
        stub.set_defaults(**said)
        stub.calls.clear()
        stub[cache_size].rules = [Rule({"user": "jim"}, 1), Rule({"user": "ann"}, 2), Rule({"user": "bob"}, 3)]
        asked = [b"".join(Client().get("/stream", headers=headers)) for headers in ({"x-user": "jim"}, {})]
        print(*(answer.decode() for answer in asked), client() is stub, stub.calls)
"""
    )
    env = {name: value for name, value in surroundings.items() if name != "HEKSHER_URL"}
    heksher = '{"CONTEXT": {"user": "__main__.user_of"}, "DEFAULTS": {"user": "nobody", "environment": "prod"}}'
    ran = django_project(heksher, body, env)
    # Of the request; else what the test has said; else what the project says.
    assert (ran.stdout, ran.stderr) == ("1 1  10 10  True []\n1 1  2 2  True []\n3 3  3 3  True []\n", "")


def test_a_variable_of_the_project_holds_what_is_found_and_travels_with_tasks(
    surroundings: dict[str, str],
) -> None:
    """So that a view, the tasks that it sends, and all else that knows the variable are about one user."""
    body = """
from celery import Celery, signals
from django.test import Client
from heksher_client.integrations.celery import propagate, run_client

app = Celery(broker="memory://")
run_client(client)
propagate(user=current_user)

@app.task
def work():
    pass

def send(request):
    work.delay()
    return JsonResponse({"cache_size": cache_size.get(), "user": current_user.get()})

def note(headers, **_):
    sent.append(headers["heksher_context"])

urlpatterns += [path("send", send)]
signals.before_task_publish.connect(note)
sent = []
print([Client().get("/send", headers={"x-user": user}).json() for user in ("jim", "ann")], sent)
print(current_user.get(), cache_size.get(), client().closed)
signals.worker_init.send(sender=None)
signals.worker_shutdown.send(sender=None)
print(client().closed)
"""
    variable = "from contextvars import ContextVar\ncurrent_user = ContextVar('current_user', default='nobody')\n"
    heksher = '{"CONTEXT": {"user": "__main__.user_of"}, "DEFAULTS": {"user": current_user}}'
    ran = django_project(heksher, body, surroundings, before=variable)
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "[{'cache_size': 200, 'user': 'jim'}, {'cache_size': 10, 'user': 'ann'}] [{'user': 'jim'}, {'user': 'ann'}]",
        "nobody 10 False",
        "True",
    ]


def test_in_a_test_the_variable_of_the_project_holds_what_is_found_too(surroundings: dict[str, str]) -> None:
    """Whether the test hands it to the stub, or leaves that to the project."""
    body = """
from django.test import Client
from heksher_client.testing import Rule, SyncStubHeksherClient

for said in ({}, {"user": current_user}):
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(**said)
        stub[cache_size].rules = [Rule({"user": "jim"}, 1)]
        print([Client().get("/", headers=headers).json()["cache_size"] for headers in ({"x-user": "jim"}, {})])
"""
    variable = "from contextvars import ContextVar\ncurrent_user = ContextVar('current_user', default='nobody')\n"
    heksher = '{"CONTEXT": {"user": "__main__.user_of"}, "DEFAULTS": {"user": current_user}}'
    ran = django_project(heksher, body, surroundings, before=variable)
    assert (ran.stdout, ran.stderr) == ("[1, 10]\n[1, 10]\n", "")


@pytest.mark.parametrize(
    ("heksher", "words"),
    [
        (
            '{"CONTEXT": {"user": len, "team": len}, "DEFAULTS": dict.fromkeys(["user", "team"], '
            '__import__("contextvars").ContextVar("both"))}',
            "HEKSHER: the variable both is the default of two in CONTEXT",
        ),
        ('{"CONTEXTS": {}}', "HEKSHER has no key 'CONTEXTS'; it has: PROFILE, OPTIONS, DEFAULTS, CONTEXT, PIN"),
        ('{"CONTEXT": {"user": "nowhere.user_of"}}', "HEKSHER: the CONTEXT of user: No module named 'nowhere'"),
        ('{"CONTEXT": {"planet": len}}', "planet"),
        ('{"CONTEXT": {"user": "os.sep"}}', "HEKSHER: the CONTEXT of user is 'os.sep', which is no function"),
        ('{"PROFILE": "nothing"}', "there is no profile nothing"),
        ("None", "HEKSHER must be a dict, not NoneType"),
        ('{"CONTEXT": ["user"]}', "HEKSHER: CONTEXT must be a dict, not list"),
        ('{"OPTIONS": 5}', "HEKSHER: OPTIONS must be a dict, not int"),
        ('{"DEFAULTS": "jim"}', "HEKSHER: DEFAULTS must be a dict, not str"),
        (
            '{"CONTEXT": {"user": len}, "DEFAULTS": {"user": 5}}',
            "HEKSHER: the default of user must be text or a context variable, not 5",
        ),
        ('{"OPTIONS": {"defaults": {}}}', "the client's defaults go into DEFAULTS"),
    ],
)
def test_a_wrong_configuration_of_django_is_said_in_its_words(
    surroundings: dict[str, str], heksher: str, words: str
) -> None:
    """Where Django is set up, or where the client starts."""
    ran = django_project(heksher, "client()", surroundings)
    assert ran.returncode == 1
    assert "django.core.exceptions.ImproperlyConfigured" in ran.stderr
    assert words in ran.stderr


def test_celery_starts_a_client_that_does_not_run_and_leaves_variables_alone_that_are_not_set(
    shop: WatchedService,
) -> None:
    """And refuses what is no context variable."""
    user, team = ContextVar[str]("user"), ContextVar[str]("team")
    with pytest.raises(TypeError, match="user must be a context variable"):
        propagate(user="jim")  # type: ignore[arg-type]
    clients: list[ThreadHeksherClient] = []

    def make() -> ThreadHeksherClient:
        clients.append(ThreadHeksherClient(shop.url, 60, ["user"]))
        return clients[0]

    with own_receivers():
        run_client(make)
        propagate(user=user)
        propagate(team=team)
        team.set("a")
        signals.worker_init.send(sender=None)
        assert clients[0].status().is_main
        headers: dict[str, object] = {}
        signals.before_task_publish.send(sender=None, headers=headers)
        assert headers == {"heksher_context": {"team": "a"}}
        task = SimpleNamespace(request=SimpleNamespace())
        signals.task_prerun.send(sender=None, task_id="1", task=task)
        assert user.get("unset") == "unset"
        signals.task_postrun.send(sender=None, task_id="1")
        signals.worker_shutdown.send(sender=None)
        assert clients[0].closed
        run_client(lambda: connect("nothing"))
        with pytest.raises(SystemExit, match="the worker ends, as its Heksher client cannot be made: "):
            signals.worker_init.send(sender=None)


def test_what_a_task_sets_itself_is_gone_after_it() -> None:
    """Whether the message has a value, the worker, or nobody; but for a variable that nobody ever had one for."""
    sent, kept = ContextVar[str]("sent", default="nobody"), ContextVar[str]("kept")
    unset, bare = ContextVar[str]("unset", default="nobody"), ContextVar[str]("bare")
    seen: list[list[str]] = []

    def run(**context: str) -> None:
        task = SimpleNamespace(request=SimpleNamespace(heksher_context=context))
        signals.task_prerun.send(sender=None, task_id="1", task=task)
        seen.append([variable.get("none") for variable in (sent, kept, unset, bare)])
        for variable in (sent, kept, unset, bare):
            variable.set("of the task")
        signals.task_postrun.send(sender=None, task_id="1")
        seen.append([variable.get("none") for variable in (sent, kept, unset, bare)])

    def work() -> None:
        kept.set("worker")
        run(sent="jim")

    with own_receivers():
        propagate(sent=sent, kept=kept, unset=unset, bare=bare)
        signals.task_postrun.send(sender=None, task_id="one that began before")
        copy_context().run(work)
    assert seen == [["jim", "worker", "none", "none"], ["none", "worker", "nobody", "of the task"]]


@contextmanager
def own_receivers() -> Iterator[None]:
    """Signals of Celery's whose receivers from inside the block are gone after it."""
    receivers = [signal.receivers.copy() for signal in SIGNALS]
    try:
        yield
    finally:
        for signal, former in zip(SIGNALS, receivers, strict=True):
            signal.receivers[:] = former
            signal.sender_receivers_cache.clear()  # type: ignore[attr-defined]


SIGNALS = (
    signals.worker_init, signals.worker_shutdown, signals.before_task_publish, signals.task_prerun,
    signals.task_postrun,
)  # fmt: skip
