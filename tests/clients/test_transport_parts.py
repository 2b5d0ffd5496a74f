"""Parts of the transport that need no server: threads, the hooks of a fork, and the HTTP client of an endpoint."""

import math
import socket
import threading
from collections.abc import Callable
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from heksher_client._http.connections import Connections, shut_down_stream
from heksher_client._http.endpoint import Endpoint
from heksher_client._runtime.fork import Stage, call_in_child
from heksher_client._runtime.simple_queue import SimpleQueue
from heksher_client._runtime.wakeup import Flag
from heksher_client._runtime.worker_threads import (
    Job,
    JobBatch,
    StreamThread,
    WorkerThreads,
    join,
    join_all,
    run_in_daemon_threads,
)
from tests.support.clients import TIMEOUT_SECONDS, Gate
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.http import http_client
from tests.support.threads import refuse_threads


def test_a_transport_of_the_program_may_have_no_socket_to_shut_down() -> None:
    """A thread that waits for one of its responses ends with the next byte then."""
    for stream in (None, SimpleNamespace(get_extra_info=lambda _: None)):
        shut_down_stream(stream)
        connections = Connections()
        connections.add(stream)
        connections.shut_down()


def stream_of(opened: socket.socket) -> SimpleNamespace:
    return SimpleNamespace(get_extra_info={"socket": opened}.get)


def test_connections_are_shut_down_even_those_that_are_opened_later() -> None:
    """Those that were closed before are ignored."""
    connections = Connections()
    pairs = [socket.socketpair() for _ in range(3)]
    closed, opened, late = (pair[0] for pair in pairs)
    connections.add(stream_of(closed))
    connections.add(stream_of(opened))
    closed.close()
    connections.shut_down()
    connections.add(stream_of(late))
    assert [pair[1].recv(1) for pair in pairs] == [b""] * 3
    for one in chain(*pairs):
        one.close()


def test_connections_of_a_parent_process_are_not_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It uses them after the fork."""
    connections = Connections()
    ours, other = socket.socketpair()
    connections.add(stream_of(ours))

    def shut_down_in_child() -> bool:  # pragma: no cover - in another process
        connections.shut_down()
        return True

    with ours, other:
        assert exited_successfully(fork_and_check(shut_down_in_child))
        with monkeypatch.context() as patch:  # The child is not measured.
            patch.setattr("os.getpid", lambda: 0)
            connections.shut_down()
        ours.send(b"x")
        assert other.recv(1) == b"x"


def test_a_thread_with_a_result_does_not_hang() -> None:
    """Even before it has ended: otherwise the next requests would be refused for no reason."""
    is_read = threading.Event()

    class Delayed(SimpleQueue[Any]):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(item)
            if threading.current_thread().name == "heksher-client-request":
                is_read.wait(TIMEOUT_SECONDS)

    batch = make_batch([lambda job: "result"])
    batch._events = Delayed()
    assert (batch.run(), batch.hanging_threads()) == (("result",), [])
    is_read.set()


def test_jobs_return_their_results_in_order_with_a_limited_number_of_threads() -> None:
    """Each thread takes the next job."""
    workers = make_workers(max_threads=2)
    threads = set()

    def double(number: int) -> str:
        threads.add(threading.current_thread())
        return str(2 * number)

    jobs = [lambda job, number=number: double(number) for number in range(20)]
    assert run(workers, jobs) == tuple(str(2 * number) for number in range(20))
    assert len(threads) <= 2


def test_a_job_that_takes_too_long_abandons_the_batch() -> None:
    """No other job of it is started."""
    gate = Gate()
    workers = make_workers(max_threads=1)
    assert run(workers, [lambda job: hold(job, gate), pytest.fail], seconds=0.05) == ("timed out",) * 2
    gate.open()


def test_sleeping_does_not_count_for_the_time_limit_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waits for the rate limit has its whole time afterwards."""
    now, remaining = 0.0, []
    monkeypatch.setattr("heksher_client._runtime.worker_threads.monotonic", lambda: now)

    class Sleep(Flag):
        def wait(self, seconds: float | None = None) -> bool:
            nonlocal now
            now += seconds or 0
            remaining.append(batch._remaining(math.inf))
            return False

    def pause(job: Job) -> str:
        assert not job.sleep(10 * TIMEOUT_SECONDS, restarts_timer=True)
        return "result"

    batch = make_batch([pause], total_seconds=100 * TIMEOUT_SECONDS)
    batch.abandoned = Sleep()
    assert batch.run() == ("result",)
    assert remaining == [TIMEOUT_SECONDS]


def test_threads_that_hang_are_counted_until_they_end() -> None:
    """A whole batch of them is noticed once. If too many hang, no more are started."""
    gate = Gate()
    workers = make_workers(max_threads=3)
    for count in (1, 2, 3):
        assert not workers.has_new_hanging_batch()
        assert run(workers, [lambda job: hold(job, gate)], seconds=0.05) == ("timed out",)
        assert len(workers.hanging_threads()) == count
    assert (workers.has_new_hanging_batch(), workers.has_new_hanging_batch()) == (True, False)
    workers.max_hanging = 3
    assert run(workers, [pytest.fail]) == ("exhausted",)
    hanging = workers.hanging_threads()
    gate.open()
    for thread in hanging:
        thread.join(TIMEOUT_SECONDS)
    assert run(workers, [lambda job: "result"]) == ("result",)


def hold(job: Job, gate: Gate) -> str:
    """Return only after the batch is abandoned."""
    job.abandoned.wait(TIMEOUT_SECONDS)
    gate.hold()
    return "late"


def test_a_job_that_ends_its_thread_has_a_result_too() -> None:
    """User code can raise SystemExit."""

    def leave(job: Job) -> str:
        raise SystemExit

    assert run(make_workers(), [leave, leave]) == ("ended",) * 2


def test_no_job_starts_after_the_end() -> None:
    """The results are those of a closed client."""
    workers = make_workers()
    workers.close("closed")
    assert run(workers, [lambda job: "result"] * 2) == ("closed",) * 2


def test_without_a_thread_a_function_runs_in_the_calling_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late is better than never."""
    threads = []
    refuse_threads(monkeypatch)
    assert run_in_daemon_threads("name", lambda: threads.append(threading.current_thread()), 3) == 1
    assert threads == [threading.current_thread()]


def test_a_stream_that_opens_after_the_end_is_shut_down() -> None:
    """The thread was opening it when the client was closed."""
    shut_down: list[bool] = []
    stream = StreamThread(lambda: None, Flag())
    stream.end()
    stream.connected(lambda: shut_down.append(True))
    assert shut_down == [True]


def test_the_end_shuts_down_the_stream_that_the_thread_reads() -> None:
    """The thread then ends, even if the service sends nothing. It closes the connections, as it was using them."""
    is_reading, is_shut_down, is_closed = threading.Event(), threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def read() -> None:
        threads.append(threading.current_thread())
        stream.connected(is_shut_down.set)
        is_reading.set()
        is_shut_down.wait(TIMEOUT_SECONDS)

    stream = StreamThread(is_closed.set, Flag())
    stream.start(read)
    assert is_reading.wait(TIMEOUT_SECONDS)
    assert not is_shut_down.is_set()
    assert not is_closed.is_set()
    stream.end()
    assert is_shut_down.is_set()
    threads[0].join(TIMEOUT_SECONDS)
    assert not threads[0].is_alive()
    assert is_closed.is_set()


@pytest.mark.parametrize("replace", [Endpoint.replace_client, Endpoint.renew_client])
@pytest.mark.parametrize("is_shared", [True, False])
def test_an_endpoint_replaces_its_http_client_unless_that_is_shared(
    replace: Callable[[Endpoint], object], is_shared: bool
) -> None:
    """In the child of a fork the connections are the parent's, and after a patch by gevent sockets are of another kind.

    A shared HTTP client is the program's to replace.
    """
    with http_client() as http:
        options = {"service_url": "http://host", **({"http_client": http} if is_shared else {})}
        endpoint = Endpoint(options, httpx.Client)
        former = endpoint.client
        replace(endpoint)
        assert (endpoint.client is former) == is_shared
        assert not former.is_closed
        if not is_shared:
            former.close()
            endpoint.close()


def test_connections_are_dropped_only_if_the_http_client_can_be_replaced() -> None:
    """A shared one, and a transport of the program, are still in use."""
    with http_client() as http:
        arguments: dict[str, Any] = {"verify": True}
        transport = {"transport": httpx.MockTransport(lambda request: httpx.Response(200))}
        for options, is_replaced in (
            ({"http_client_args": arguments}, True),
            ({"http_client_args": transport}, False),
            ({"http_client": http}, False),
        ):
            endpoint = Endpoint({"service_url": "http://host", **options}, httpx.Client)
            former = endpoint.client
            endpoint.drop_connections()
            assert (endpoint.client is not former) == former.is_closed == is_replaced
            endpoint.close()


def make_batch(jobs: Any, *, total_seconds: float = TIMEOUT_SECONDS) -> JobBatch[str]:
    return JobBatch(jobs, seconds=TIMEOUT_SECONDS, total_seconds=total_seconds, max_threads=1, timed_out=str, ended="")


def make_workers(max_threads: int = 3) -> WorkerThreads[str]:
    return WorkerThreads(max_threads=max_threads, max_hanging=10, exhausted="exhausted", ended="ended")


def run(workers: WorkerThreads[str], jobs: Any, *, seconds: float = TIMEOUT_SECONDS) -> tuple[str, ...]:
    return workers.run(jobs, seconds=seconds, total_seconds=TIMEOUT_SECONDS, timed_out=lambda: "timed out")


def test_all_stages_of_the_repair_after_a_fork_are_reached_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of them raises: the interpreter reports the errors."""
    calls: list[Stage] = []
    reported: list[object] = []

    def repair(stage: Stage) -> None:
        calls.append(stage)
        raise LookupError(stage)

    monkeypatch.setattr("heksher_client._runtime.fork._callbacks", {})
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: reported.append(unraisable.exc_value.args[0]))
    for stage in reversed(Stage):
        call_in_child(stage, partial(repair, stage))
    stages = [Stage.SNAPSHOTS, Stage.CREDENTIALS, Stage.CLIENTS]
    assert exited_successfully(fork_and_check(lambda: calls == reported == stages))


def test_a_stage_of_the_repair_after_a_fork_may_have_no_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that only uses credentials does not import the clients."""
    reported: list[object] = []
    monkeypatch.setattr("heksher_client._runtime.fork._callbacks", {})
    monkeypatch.setattr("sys.unraisablehook", reported.append)
    assert exited_successfully(fork_and_check(lambda: not reported))


def test_c13_wait_for_a_thread_that_interrupts_the_same_wait() -> None:
    """It would wait for the lock of the wait that it interrupts."""

    class Interrupted(threading.Thread):
        joins = 0

        def join(self, timeout: float | None = None) -> None:
            self.joins += 1
            join(self, TIMEOUT_SECONDS)

    thread = Interrupted()
    for joins in (1, 2):
        join(thread, TIMEOUT_SECONDS)
        assert thread.joins == joins


def test_threads_of_clients_are_joined_for_a_limited_time(gate: Gate) -> None:
    """One that goes on running delays the call no longer."""
    thread = threading.Thread(target=gate.hold, name="heksher-client test", daemon=True)
    thread.start()
    join_all(0.01)
    assert thread.is_alive()
    gate.open()
    join_all(TIMEOUT_SECONDS)
    assert not thread.is_alive()
