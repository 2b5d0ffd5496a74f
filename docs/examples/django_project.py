"""Django in one file: run it with `python django_project.py runserver`, or `gunicorn django_project:application`."""

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from heksher_client import Setting

cache_size = Setting("cache_size", type=int, configurable_features=["environment", "user"], default_value=10)


def user_of(request: HttpRequest) -> str | None:
    return request.headers.get("x-user")


def index(_: HttpRequest) -> JsonResponse:
    return JsonResponse({"cache_size": cache_size.get()})


settings.configure(
    SECRET_KEY="not one for production",  # noqa: S106
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["heksher_client.integrations.django"],
    MIDDLEWARE=["heksher_client.integrations.django.middleware.HeksherMiddleware"],
    HEKSHER={"CONTEXT": {"user": user_of}, "DEFAULTS": {"environment": "prod", "user": "nobody"}},
)
urlpatterns = [path("", index)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
else:  # in a server: this loads the middleware, which starts the client
    application = get_wsgi_application()
