"""The examples for web frameworks, task queues and notebooks: a request returns the value for its user."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heksher_client import ThreadHeksherClient, connect
from tests.support.clients import TIMEOUT_SECONDS, ThreadClient
from tests.support.commands import environment
from tests.support.servers import BIN, EXAMPLES, check_server, serving
from tests.support.service import WatchedService

signals: Any = pytest.importorskip("celery.signals", reason="pip install --group frameworks")
pytestmark = pytest.mark.frameworks("django", "flask", "nbclient")


def test_flask_on_gunicorn_that_forks_workers(
    example_shop: WatchedService, example_environment: dict[str, str]
) -> None:
    """The client starts before the workers are forked, and continues in each worker."""
    command = ("gunicorn", "--config", "gunicorn.conf.py", "--bind", "127.0.0.1:{port}", "flask_app:app")
    with serving(*command, env=example_environment) as http:
        check_server(http, example_shop)
        assert http.get("/health").json() == {"settings": "fresh"}


def test_django(example_shop: WatchedService, example_environment: dict[str, str]) -> None:
    """The app, the middleware and the command work together. A command that reads no settings sends no request."""
    command = ("gunicorn", "--bind", "127.0.0.1:{port}", "django_project:application")
    with serving(*command, env=example_environment) as http:
        check_server(http, example_shop)
    manage = [sys.executable, str(EXAMPLES / "django_project.py")]
    example_shop.requests.clear()
    subprocess.run([*manage, "check"], env=example_environment, capture_output=True, check=True)
    assert example_shop.requests == []
    printed = subprocess.run([*manage, "heksher"], env=example_environment, capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == ["fresh: 1 settings, 2 rules", "  cache_size: 2 rules, uptodate"]
    example_shop.stop()
    failed = subprocess.run([*manage, "heksher"], env=example_environment, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "CommandError: GET /api/v1/context_features: no response" in failed.stderr


def test_the_django_command_reports_conflicts_with_the_service(
    shop: WatchedService, service_environment: dict[str, str]
) -> None:
    """It fails, and lists each problem, even if the service responds and all other settings are up to date."""
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
    result = django_project("{}", body, service_environment)
    assert (result.returncode, result.stdout.splitlines()[0]) == (1, "fresh: 2 settings, 1 rules")
    assert result.stderr.splitlines() == [
        "CommandError: setting color: its declaration is in conflict with the service (mismatch)",
        "setting color: 1 rules cannot be used",
        "setting color: rule 2: 'blue' is not an int",
    ]
    result = django_project("{}", body, service_environment, arguments=["refused"])
    assert result.returncode == 1
    assert "the service refused the declaration of setting size" in result.stderr.splitlines()[0]
    assert result.stderr.count("refused") == 1


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param("prefork", marks=pytest.mark.slow),
        "threads",
        pytest.param("gevent", marks=(pytest.mark.frameworks("gevent"), pytest.mark.slow)),
    ],
)
def test_celery(example_shop: WatchedService, example_environment: dict[str, str], tmp_path: Path, pool: str) -> None:
    """A worker in another process runs a task with the context values of its sender, and receives changed rules."""
    directories = {name: str(tmp_path / name) for name in ("messages", "control", "results")}
    for directory in directories.values():
        Path(directory).mkdir()
    (tmp_path / "broker.py").write_text(
        "broker_url = 'filesystem://'\n"
        f"broker_transport_options = {{'data_folder_in': {directories['messages']!r}, "
        f"'data_folder_out': {directories['messages']!r}, 'control_folder': {directories['control']!r}}}\n"
        f"result_backend = 'file://{directories['results']}'\n"
    )
    env = {
        **example_environment,
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
        f"print([task.get(timeout={TIMEOUT_SECONDS}) for task in sent], flush=True)\n"
        "sys.stdin.readline()\n"
        "current_user.set('ann')\n"
        "values = []\n"
        "while values != [5] * 4:\n"
        "    sent = [size_of_the_cache.delay() for _ in range(4)]\n"
        f"    values = [task.get(timeout={TIMEOUT_SECONDS}) for task in sent]\n"
    )
    try:
        with subprocess.Popen(
            [sys.executable, "-c", send], env=env, cwd=EXAMPLES, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as sender:  # fmt: skip
            assert sender.stdout is not None
            assert sender.stdout.readline() == "[200, 10, 200, 10]\n"
            example_shop.add_rule("cache_size", 5, user="ann")
            assert sender.communicate("\n", TIMEOUT_SECONDS) == ("", "")
            assert sender.returncode == 0
    finally:
        worker.terminate()
        worker.wait()


@pytest.mark.slow
def test_jupyter(example_environment: dict[str, str]) -> None:
    """Each cell of the notebook runs in a kernel."""
    script = (
        "import sys, nbformat, nbclient\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, timeout=int(sys.argv[2]), kernel_name='python3').execute()\n"
        "nbformat.write(notebook, sys.stdout)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(EXAMPLES / "notebook.ipynb"), str(int(TIMEOUT_SECONDS))],
        env=example_environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    outputs = [
        output["data"]["text/plain"]
        for cell in json.loads(result.stdout)["cells"] if cell["cell_type"] == "code"
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


def test_django_with_asyncio(service_environment: dict[str, str]) -> None:
    """The same middleware handles async views. CONTEXT accepts the dotted path of a function."""
    body = """
from django.core.asgi import get_asgi_application

async def main():
    transport = httpx.ASGITransport(get_asgi_application())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        responses = await asyncio.gather(*(http.get("/", headers={"x-user": user}) for user in ("jim", "ann")))
    print([response.json()["cache_size"] for response in responses], client() is client())

asyncio.run(main())
"""
    result = django_project('{"CONTEXT": {"user": "__main__.user_of"}, "PIN": True}', body, service_environment)
    assert (result.stdout, result.stderr) == ("[200, 10] True\n", "")


STREAMS = """
from django.http import StreamingHttpResponse
from django.test import Client
from heksher_client.testing import Rule, SyncStubHeksherClient

async def async_content():
    for _ in range(2):
        yield f"{cache_size.get()} "

def content():
    try:
        for _ in range(2):
            yield f"{cache_size.get()} "
    finally:
        closed.append(cache_size.get())

closed = []

async def async_stream(request):
    return StreamingHttpResponse(async_content())

def stream(request):
    return StreamingHttpResponse(content())

urlpatterns += [path("stream", stream), path("async", async_stream)]
"""


def test_django_streams_content_with_the_values_of_its_request(service_environment: dict[str, str]) -> None:
    """Sync and async content is generated after the view has returned."""
    body = (
        STREAMS
        + """
from django.core.asgi import get_asgi_application

async def main():
    transport = httpx.ASGITransport(get_asgi_application())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        print((await http.get("/async", headers={"x-user": "jim"})).text)

print(b"".join(Client().get("/stream", headers={"x-user": "jim"})).decode())
asyncio.run(main())
response = Client().get("/stream", headers={"x-user": "jim"})
next(iter(response.streaming_content))
response.close()
print(closed)
"""
    )
    result = django_project('{"CONTEXT": {"user": "__main__.user_of"}}', body, service_environment)
    assert (result.stdout, result.stderr) == ("200 200 \n200 200 \n[200, 200]\n", "")


def test_in_a_test_the_stub_is_the_client_of_a_django_project(service_environment: dict[str, str]) -> None:
    """The app starts no client. Values come from the request, then from the test, then from the project."""
    body = (
        STREAMS
        + """
import contextvars
variable = contextvars.ContextVar("variable", default="bob")
for defaults, features in (({}, []), ({"user": "ann"}, ["user"]), ({"user": variable}, [])):
    with SyncStubHeksherClient(context_features=features) as stub:
        stub.set_defaults(**defaults)
        stub.calls.clear()
        stub[cache_size].rules = [Rule({"user": "jim"}, 1), Rule({"user": "ann"}, 2), Rule({"user": "bob"}, 3)]
        bodies = [b"".join(Client().get("/stream", headers=headers)) for headers in ({"x-user": "jim"}, {})]
        print(*(body.decode() for body in bodies), client() is stub, stub.calls)
"""
    )
    env = {name: value for name, value in service_environment.items() if name != "HEKSHER_URL"}
    heksher = '{"CONTEXT": {"user": "__main__.user_of"}, "DEFAULTS": {"user": "nobody", "environment": "prod"}}'
    result = django_project(heksher, body, env)
    assert (result.stdout, result.stderr) == ("1 1  10 10  True []\n1 1  2 2  True []\n3 3  3 3  True []\n", "")


def test_a_context_variable_of_the_project_is_set_and_propagated_to_tasks(
    service_environment: dict[str, str],
) -> None:
    """A view, its tasks and other code that reads the variable have the same user, even after the client has closed."""
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

def record(headers, **_):
    sent.append(headers["heksher_context"])

urlpatterns += [path("send", send)]
signals.before_task_publish.connect(record)
sent = []
print([Client().get("/send", headers={"x-user": user}).json() for user in ("jim", "ann")], sent)
print(current_user.get(), cache_size.get(), client().closed)
signals.worker_init.send(sender=None)
signals.worker_shutdown.send(sender=None)
print(client().closed, Client().get("/", headers={"x-user": "jim"}).json())
"""
    variable = "from contextvars import ContextVar\ncurrent_user = ContextVar('current_user', default='nobody')\n"
    heksher = '{"CONTEXT": {"user": "__main__.user_of"}, "DEFAULTS": {"user": current_user}}'
    result = django_project(heksher, body, service_environment, before=variable)
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "[{'cache_size': 200, 'user': 'jim'}, {'cache_size': 10, 'user': 'ann'}] [{'user': 'jim'}, {'user': 'ann'}]",
        "nobody 10 False",
        "True {'cache_size': 200}",
    ]


def test_in_a_test_the_context_variable_of_the_project_is_set_too(service_environment: dict[str, str]) -> None:
    """It is set with and without a default of the test itself."""
    body = """
from django.test import Client
from heksher_client.testing import Rule, SyncStubHeksherClient

for defaults in ({}, {"user": current_user}):
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(**defaults)
        stub[cache_size].rules = [Rule({"user": "jim"}, 1)]
        print([Client().get("/", headers=headers).json()["cache_size"] for headers in ({"x-user": "jim"}, {})])
"""
    variable = "from contextvars import ContextVar\ncurrent_user = ContextVar('current_user', default='nobody')\n"
    heksher = '{"CONTEXT": {"user": "__main__.user_of"}, "DEFAULTS": {"user": current_user}}'
    result = django_project(heksher, body, service_environment, before=variable)
    assert (result.stdout, result.stderr) == ("[1, 10]\n[1, 10]\n", "")


INVALID_CONFIGURATIONS = [
    (
        '{"CONTEXT": {"user": len, "team": len}, "DEFAULTS": dict.fromkeys(["user", "team"], '
        '__import__("contextvars").ContextVar("both"))}',
        "HEKSHER: both is the default of two features in CONTEXT; use a variable for each",
    ),
    ('{"CONTEXTS": {}}', "HEKSHER: unknown key 'CONTEXTS'; the keys are: PROFILE, OPTIONS, DEFAULTS, CONTEXT, PIN"),
    ('{"CONTEXT": {"user": "nowhere.user_of"}}', "HEKSHER: the CONTEXT of user: No module named 'nowhere'"),
    ('{"CONTEXT": {"planet": len}}', "planet"),
    ('{"CONTEXT": {"user": "os.sep"}}', "HEKSHER: the CONTEXT of user must be a function, not str"),
    (
        '{"CONTEXT": {"user": __import__("unittest.mock").mock.AsyncMock()}}',
        "HEKSHER: the CONTEXT of user must be a plain function, not a coroutine function",
    ),
    ('{"PROFILE": "nothing"}', "there is no profile nothing"),
    ("None", "HEKSHER must be a dict, not NoneType"),
    ('{"CONTEXT": ["user"]}', "HEKSHER: CONTEXT must be a dict, not list"),
    ('{"OPTIONS": 5}', "HEKSHER: OPTIONS must be a dict, not int"),
    ('{"DEFAULTS": "jim"}', "HEKSHER: DEFAULTS must be a dict, not str"),
    (
        '{"CONTEXT": {"user": len}, "DEFAULTS": {"user": 5}}',
        "HEKSHER: the default of user must be a string or a context variable, not 5",
    ),
    ('{"OPTIONS": {"defaults": {}}}', "put the client's defaults in DEFAULTS, not in OPTIONS"),
]
"""Values of `HEKSHER`, and a part of the message that each results in."""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """For each invalid configuration, the message of the error when Django is set up or the client starts."""
    body = """
import json
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

refusals = []
for configuration in json.loads(sys.argv[1]):
    try:
        settings.HEKSHER = eval(configuration)
        apps.set_installed_apps(settings.INSTALLED_APPS)
        client()
    except ImproperlyConfigured as error:
        refusals.append(str(error))
    else:
        refusals.append("none")
    apps.unset_installed_apps()
print(json.dumps(refusals))
"""
    home = str(tmp_path_factory.mktemp("home"))
    env = environment(HOME=home, HEKSHER_URL="http://127.0.0.1:9", HEKSHER_CONTEXT_FEATURES="user")
    configurations = json.dumps([configuration for configuration, _ in INVALID_CONFIGURATIONS])
    result = django_project("{}", body, env, arguments=[configurations])
    assert result.stderr == ""
    messages: list[str] = json.loads(result.stdout)
    return messages


@pytest.mark.parametrize("index", range(len(INVALID_CONFIGURATIONS)))
def test_an_invalid_django_configuration_is_refused(refusals: list[str], index: int) -> None:
    """The message names the key."""
    assert INVALID_CONFIGURATIONS[index][1] in refusals[index]


def test_an_invalid_django_configuration_is_refused_when_django_is_set_up(
    service_environment: dict[str, str],
) -> None:
    result = django_project('{"CONTEXTS": {}}', "print('set up')", service_environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert "django.core.exceptions.ImproperlyConfigured: HEKSHER: unknown key" in result.stderr


def test_celery_starts_the_client_and_ignores_unset_variables(
    shop: WatchedService,
) -> None:
    """`propagate` refuses other objects than context variables. A worker without a client exits."""
    from heksher_client.integrations.celery import propagate, run_client

    user, team = ContextVar[str]("user"), ContextVar[str]("team")
    with pytest.raises(TypeError, match="user must be a context variable"):
        propagate(user="jim")  # type: ignore[arg-type]
    clients: list[ThreadHeksherClient] = []

    def connect_to_shop() -> ThreadHeksherClient:
        clients.append(ThreadClient(shop.url, 60, ["user"]))
        return clients[0]

    with temporary_receivers():
        run_client(connect_to_shop)
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
        with pytest.raises(SystemExit, match="the worker exits because its Heksher client could not be created: "):
            signals.worker_init.send(sender=None)


def test_c20_celery_refuses_a_coroutine_function() -> None:
    """A function that returns a coroutine nevertheless ends the worker, which has no client."""
    from heksher_client.integrations.celery import run_client

    async def connect_async() -> ThreadHeksherClient:
        raise NotImplementedError

    with temporary_receivers():
        for function in (connect_async, 5):
            with pytest.raises(TypeError, match=r"^connect must be a"):
                run_client(function)  # type: ignore[arg-type]
        run_client(lambda: connect_async())  # type: ignore[arg-type,return-value]
        with pytest.raises(SystemExit, match="<lambda> returned an object of type coroutine, which is not awaited"):
            signals.worker_init.send(sender=None)


def test_variables_that_a_task_sets_are_reset_after_it() -> None:
    """They get the value of the worker or the default. A variable that has neither keeps the value of the task."""
    from heksher_client.integrations.celery import propagate

    sent, kept = ContextVar[str]("sent", default="nobody"), ContextVar[str]("kept")
    unset, bare = ContextVar[str]("unset", default="nobody"), ContextVar[str]("bare")
    seen: list[list[str]] = []

    def run(**context: str) -> None:
        task = SimpleNamespace(request=SimpleNamespace(heksher_context=context))
        signals.task_prerun.send(sender=None, task_id="1", task=task)
        seen.append([variable.get("none") for variable in (sent, kept, unset, bare)])
        for variable in (sent, kept, unset, bare):
            variable.set("task")
        signals.task_postrun.send(sender=None, task_id="1")
        seen.append([variable.get("none") for variable in (sent, kept, unset, bare)])

    def work() -> None:
        kept.set("worker")
        run(sent="jim")

    with temporary_receivers():
        propagate(sent=sent, kept=kept, unset=unset, bare=bare)
        signals.task_postrun.send(sender=None, task_id="started earlier")
        copy_context().run(work)
    assert seen == [["jim", "worker", "none", "none"], ["none", "worker", "nobody", "task"]]


@contextmanager
def temporary_receivers() -> Iterator[None]:
    """Disconnect the receivers of Celery's signals that were connected inside the block."""
    receivers = [signal.receivers.copy() for signal in SIGNALS]
    try:
        yield
    finally:
        for signal, former in zip(SIGNALS, receivers, strict=True):
            signal.receivers[:] = former
            signal.sender_receivers_cache.clear()


SIGNALS = (
    signals.worker_init, signals.worker_shutdown, signals.before_task_publish, signals.task_prerun,
    signals.task_postrun,
)  # fmt: skip
