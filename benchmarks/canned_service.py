"""A service that responds from memory, without work of its own, so that measurements are those of the client.

It runs in a process; `running` starts it, and `Service` controls it.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

from benchmarks import workload

_JSON = (b"content-type", b"application/json")


class Service:
    """A handle on a running service."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def fill(self, settings: int, rules: int, kind: str = "many shapes", revision: int = 0, changed: int = 0) -> int:
        """Fill the service with settings and rules.

        Args:
            settings: The number of settings.
            rules: The number of rules of all settings together.
            kind: A key of `workload.SHAPES`.
            revision: The default value, so that another revision changes the response for a setting.
            changed: The number of settings with this revision; 0 for all.

        Returns:
            The size of the response for all settings, in bytes.
        """
        query = f"settings={settings}&rules={rules}&kind={kind}&revision={revision}&changed={changed}"
        return int(self._control(query.replace(" ", "%20"))["bytes"])

    def take_counts(self) -> dict[str, int]:
        """Return the numbers of requests and of bytes received and sent since the last call."""
        return self._control("")

    def _control(self, query: str) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/control?{query}") as response:
            result: dict[str, int] = json.load(response)
            return result


@contextmanager
def running(latency: float = 0.0, *, says_revision: bool = False) -> Iterator[Service]:
    """Run a service. Each response takes `latency` seconds, and says the revision if that is wanted."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "benchmarks.canned_service",
        str(port),
        str(latency),
        *["--says-revision"] * says_revision,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # The service is listening.
            yield Service(port)
        finally:
            process.kill()


class _State:
    def __init__(self, latency: float, *, says_revision: bool) -> None:
        self.latency, self.says_revision = latency, says_revision
        self.revision = 0
        """Increased with each change."""
        self.declared: dict[str, dict[str, Any]] = {}
        self.bodies: dict[str, bytes] = {}
        self.revisions: dict[str, int] = {}
        self.key: tuple[Any, ...] = ()
        self.counts = {"requests": 0, "bytes_in": 0, "bytes_out": 0}

    def control(self, query: dict[str, list[str]]) -> dict[str, int]:
        if "settings" not in query:
            counts, self.counts = self.counts, dict.fromkeys(self.counts, 0)
            return counts
        settings, rules, revision, changed = (int(query[k][0]) for k in ("settings", "rules", "revision", "changed"))
        key = (settings, rules, query["kind"][0])
        self.revision += 1
        if key != self.key or not changed:
            self.key, self.bodies, self.revisions = key, {}, {}
        for i in range(changed or settings):
            body = workload.queried_setting(rules // settings, key[2], i, revision)
            self.bodies[workload.setting_name(i)] = body
            self.revisions[workload.setting_name(i)] = revision
        for i in range(changed or settings, settings):
            name = workload.setting_name(i)
            if name not in self.bodies:
                self.bodies[name] = workload.queried_setting(rules // settings, key[2], i)
        return {"bytes": sum(map(len, self.bodies.values()))}

    def respond(self, path: str, query: str, etag: bytes | None, content: bytes) -> tuple[int, bytes, bytes]:
        """Return status, body and ETag of the response."""
        if path == "/api/v1/settings/declare":
            declaration = json.loads(content)
            outcome = "uptodate" if declaration["name"] in self.declared else "created"
            self.declared[declaration["name"]] = {"aliases": [], **declaration}
            self.revision += outcome == "created"
            return 200, b'{"outcome": "%s"}' % outcome.encode(), b""
        if path == "/api/v1/context_features":
            return 200, json.dumps({"context_features": workload.FEATURES}).encode(), b""
        if path == "/api/v1/settings":
            return 200, json.dumps({"settings": list(self.declared.values())}).encode(), b""
        if path == "/api/health":
            return 200, b'{"version":"0.5.2"}', b""
        if path != "/api/v1/query":  # such as the stream of changes, for which a client asks if there is a revision
            return 404, b'{"detail":"Not Found"}', b""
        names = parse_qs(query)["settings"][0].split(",")
        tag = b'"%d"' % hash((self.key, *(self.revisions.get(name, 0) for name in names)))
        if etag == tag:
            return 304, b"", tag
        empty = b'{"rules":[],"default_value":10}'
        return 200, workload.payload({name: self.bodies.get(name, empty) for name in names}), tag

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        content = (await receive()).get("body", b"")
        path, query = scope["path"], scope["query_string"].decode()
        headers = dict(scope["headers"])
        if path == "/control":
            status, body, tag = 200, json.dumps(self.control(parse_qs(query))).encode(), b""
        else:
            status, body, tag = self.respond(path, query, headers.get(b"if-none-match"), content)
            self.counts["requests"] += 1
            head = sum(len(k) + len(v) + 4 for k, v in scope["headers"])
            self.counts["bytes_in"] += len(scope["method"]) + len(path) + len(query) + 12 + head + 2 + len(content)
            self.counts["bytes_out"] += len(body)
            await asyncio.sleep(self.latency)
        head_out = [_JSON, (b"content-length", b"%d" % len(body)), *([(b"etag", tag)] if tag else [])]
        if self.says_revision:
            head_out += [(b"heksher-database", b"0.1"), (b"heksher-revision", b"%d" % self.revision)]
        await send({"type": "http.response.start", "status": status, "headers": head_out})
        await send({"type": "http.response.body", "body": body})


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("latency", type=float)
    parser.add_argument("--says-revision", action="store_true")
    arguments = parser.parse_args()

    class AnnouncingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print("listening", flush=True)

    state = _State(arguments.latency, says_revision=arguments.says_revision)
    config = uvicorn.Config(state, port=arguments.port, log_level="warning", lifespan="off", timeout_keep_alive=3600)
    AnnouncingServer(config).run()


if __name__ == "__main__":
    main()
