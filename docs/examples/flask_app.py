"""Flask: run it with `gunicorn flask_app:app`."""

from contextvars import ContextVar

from flask import Flask

from heksher_client import Setting, connect
from heksher_client.integrations.wsgi import ContextMiddleware, header

current_user: ContextVar[str] = ContextVar("current_user", default="nobody")
cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

client = connect(defaults={"environment": "prod", "user": current_user})
app = Flask(__name__)
app.wsgi_app = ContextMiddleware(  # type: ignore[method-assign]
    app.wsgi_app, {current_user: header("x-user")}
)


@app.get("/")
def index() -> dict[str, int]:
    return {"cache_size": cache_size.get()}


@app.get("/health")
def health() -> dict[str, str]:
    return {"settings": client.status().state}
