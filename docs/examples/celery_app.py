"""Celery: run a worker with `celery -A celery_app worker`."""

from contextvars import ContextVar

from celery import Celery

from heksher_client import Setting, connect
from heksher_client.integrations.celery import propagate, run_client

current_user: ContextVar[str] = ContextVar("current_user")
cache_size = Setting("cache_size", type=int, configurable_features=["environment", "user"], default_value=10)

app = Celery("celery_app")
app.config_from_envvar("CELERY_CONFIG_MODULE", silent=True)  # broker and result backend

run_client(lambda: connect(defaults={"environment": "prod", "user": current_user}))
propagate(user=current_user)


@app.task
def size_of_the_cache() -> int:
    return cache_size.get()
