"""Addresses: the path of a request below the path prefix of the service, and references from one page to another.

References are relative, so they are right behind any proxy and for any path prefix, known to the service or not.
"""

import re
from typing import Final
from urllib.parse import quote

from starlette._utils import get_route_path  # The router uses it, so access is decided for the path that is routed.
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX: Final = re.compile(r"(/(?!\.\.?(/|$))[a-zA-Z0-9_.~-]+)*")
_COOKIE_PATH: Final = "/!$&'()*+,=:@"
"""The characters that browsers do not encode in paths, other than letters, digits, `_.~-`, and the end of a cookie's
path (`;`)."""
_ANY_PREFIX: Final = "heksher.any_prefix"
"""The key in the scope of a request whose path prefix is not known."""
_OWN_PATHS: Final = ("api", "console", "docs", "metrics", "openapi.json")


def check_root_path(root_path: str) -> str:
    """Return a path prefix without a slash at its end.

    Raises:
        ValueError: It is not a path prefix, or begins like a path of the service, so they could not be told apart.
    """
    prefix = root_path.rstrip("/")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            f"{root_path!r} is not a valid root path: begin with a slash, and use letters, digits and _.~- only"
        )
    if prefix.split("/")[1:2] and prefix.split("/")[1] in _OWN_PATHS:
        raise ValueError(f"{root_path!r} is not a valid root path: /{prefix.split('/')[1]} is a path of the service")
    return prefix


def route_path(scope: Scope) -> str:
    """Return the path of a request below the path prefix, like `/console/login`."""
    return get_route_path(scope)


def reference(scope: Scope, path: str) -> str:
    """Return the relative reference from the requested path to a path of the service.

    Args:
        scope: The request.
        path: The path below the path prefix, without a slash at its beginning.
    """
    return ("../" * (route_path(scope).count("/") - 1) or "./") + path


def cookie_path(scope: Scope) -> str:
    """Return the path of cookies for the console: below the path prefix as browsers see it, if that is known."""
    return "/" if _ANY_PREFIX in scope else quote(f"{_public_prefix(scope)}/console", safe=_COOKIE_PATH)


def _public_prefix(scope: Scope) -> str:
    """Return the path prefix as browsers see it.

    It consists of the one that a proxy reports to have removed, and the one that the application has. The header of a
    proxy must not affect which path is routed: anyone may send it, and circumvent rules of the proxy about paths.
    """
    own: str = scope.get("root_path", "").rstrip("/")
    removed = Headers(scope=scope).get("x-forwarded-prefix", "").partition(",")[0].strip().rstrip("/")
    if not _PREFIX.fullmatch(removed) or f"{own}/".startswith(f"{removed}/"):
        return own
    return removed + own


class RootPath:
    """A middleware that adds the path prefix to paths from which a proxy has removed it, as ASGI requires."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        """Use a path prefix for requests.

        Args:
            app: The application.
            root_path: The path prefix; empty for the one that the server or the outer application has.
        """
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            outer: str = scope.get("root_path", "").rstrip("/")
            path = _below(scope["path"], outer)
            if path is None:
                # A proxy has removed the path prefix of the outer application, or all of it.
                mount = outer.removeprefix(scope.get("app_root_path", "").rstrip("/"))
                path = _below(scope["path"], mount) if mount else None
            scope = {**scope, **self._add_root_path(outer, scope["path"] if path is None else path)}
        await self._app(scope, receive, send)

    def _add_root_path(self, outer: str, path: str) -> Scope:
        """Return the path and the path prefix of a request.

        Args:
            outer: The path prefix that the server or the outer application has.
            path: The path below it.
        """
        own = self._root_path
        rest = _below(path, own) if own else None
        if not own or outer.endswith(own):
            return {"root_path": outer, "path": outer + path}
        if rest is not None:
            return {"root_path": outer + own, "path": outer + own + rest}
        if own.endswith(outer):
            return {"root_path": own, "path": own + path}
        # The application is mounted at another path than the one that it was created with: browsers may see either.
        return {"root_path": outer, "path": outer + path, _ANY_PREFIX: True}


def _below(path: str, prefix: str) -> str | None:
    """Return the rest of a path below a prefix; None if it is not below it."""
    return path[len(prefix) :] if f"{path}/".startswith(f"{prefix}/") else None
