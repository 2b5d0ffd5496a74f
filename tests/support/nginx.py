"""A real nginx in front of a service, started and stopped by the tests, without privileges."""

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

NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))

_CONFIGURATION = """
{user}
daemon off;
pid {folder}/pid;
error_log {folder}/errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
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
"""Otherwise root's nginx would be somebody else, who cannot write into the tests' folders."""
_EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "nginx.conf"


class Nginx:
    """As a context manager it runs; it may be ended and begun in between. The port stays the same."""

    def __init__(self, folder: Path, *upstreams: str, is_caching: bool = False) -> None:
        """Make one that passes requests on, or (if it is caching) is as the documentation says."""
        servers = " ".join(f"server {url.removeprefix('http://')};" for url in upstreams)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        (folder / "nginx.conf").write_text(
            _CONFIGURATION.format(folder=folder, site=self._site(servers, is_caching=is_caching), user=_USER),
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def _site(self, servers: str, *, is_caching: bool) -> str:
        if not is_caching:
            return _PLAIN_SITE.format(port=self._port, servers=servers)
        text = re.sub(r"(\s*server settings-\d:9999;)+", f" {servers}", _EXAMPLE.read_text(encoding="utf-8"))
        text = text.replace("/var/cache/nginx/heksher", f"{self._folder}/cache")
        return text.replace("listen 80;", f"listen 127.0.0.1:{self._port};")

    def begin(self) -> None:
        """Start, and return when connections are accepted."""
        assert NGINX is not None
        command = [NGINX, "-p", str(self._folder), "-c", "nginx.conf", "-e", str(self._folder / "errors")]
        # A session of its own, so that its workers can be ended with it.
        self._process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        assert eventually(self._accepts), (self._folder / "errors").read_text(encoding="utf-8")

    def end(self) -> None:
        """Stop in the middle of everything, as a machine does that is switched off."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def renew(self) -> None:
        """Have new workers take over from those there are, as after a change of the configuration."""
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
