"""A real nginx in front of a service. It needs no privileges."""

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.clients import eventually
from tests.support.ports import port_of, reserve_port

NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))

_CONFIGURATION = """
{user}
daemon off;
pid {directory}/pid;
error_log {directory}/errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/proxied;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    large_client_header_buffers 4 2k;
    gzip on;
    gzip_types application/json;
    gzip_min_length 1;
    {site}
}}
"""
_PLAIN_SITE = """
    upstream service {{
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_set_header Host $http_host;
            proxy_next_upstream error timeout;
        }}
    }}
"""
_USER = "user root;" if os.geteuid() == 0 else ""
"""As root, nginx would otherwise run as another user, who cannot write to the directories of the tests."""
_EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "nginx.conf"


class Nginx:
    """A server that runs inside a `with` block. It can be stopped and started inside the block on the same port."""

    def __init__(self, directory: Path, *upstreams: str, is_caching: bool = False, cached_for: str = "1s") -> None:
        """Create a proxy of a service with some instances.

        Args:
            directory: Of its configuration and its logs.
            upstreams: The URLs of the instances.
            is_caching: False for a plain proxy, True for the caching proxy of the documentation.
            cached_for: How long it caches a response. The documentation has a second.
        """
        servers = " ".join(f"server {url.removeprefix('http://')};" for url in upstreams)
        self._reservation = reserve_port()
        self._port = port_of(self._reservation)
        self.url = f"http://127.0.0.1:{self._port}"
        self._directory = directory
        (directory / "nginx.conf").write_text(
            _CONFIGURATION.format(
                directory=directory, site=self._site(servers, cached_for if is_caching else None), user=_USER
            ),
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def _site(self, servers: str, cached_for: str | None) -> str:
        if cached_for is None:
            return _PLAIN_SITE.format(port=self._port, servers=servers)
        text = re.sub(r"(\s*server settings-\d:9999;)+", f" {servers}", _EXAMPLE.read_text(encoding="utf-8"))
        text = text.replace("/var/cache/nginx/heksher", f"{self._directory}/cache")
        text = text.replace("proxy_cache_valid 200 1s;", f"proxy_cache_valid 200 {cached_for};")
        return text.replace("listen 80;", f"listen 127.0.0.1:{self._port};")

    def begin(self) -> None:
        """Start the server, and wait until it accepts connections."""
        assert NGINX is not None
        command = [NGINX, "-p", str(self._directory), "-c", "nginx.conf", "-e", str(self._directory / "errors")]
        # A new session, so that `end` can kill its workers as well.
        self._process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        assert eventually(self._accepts), (self._directory / "errors").read_text(encoding="utf-8")

    def end(self) -> None:
        """Kill the server, as a power failure does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def renew(self) -> None:
        """Replace the workers, as after a change of the configuration."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def _accepts(self) -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self._port)) == 0

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
        self._reservation.close()
