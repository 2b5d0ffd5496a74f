"""Django: an app, a middleware, and a command.

    INSTALLED_APPS = [..., "heksher_client.integrations.django"]
    MIDDLEWARE = [..., "heksher_client.integrations.django.middleware.HeksherMiddleware"]
    HEKSHER = {
        "OPTIONS": {"service_url": "http://heksher:8080", "context_features": ["environment", "user"]},
        "DEFAULTS": {"environment": "prod"},
        "CONTEXT": {"user": "shop.context.user_of"},
    }

The keys of `HEKSHER`, all of them optional:

- `PROFILE` and `OPTIONS`: the arguments of `heksher_client.connect`.
- `CONTEXT`: for each context feature, a function or its dotted path. The function receives the request and returns the
  value as a string, or None if there is no value. While a request is handled, reads use these values for the features
  that their callers leave out.
- `DEFAULTS`: for each context feature, the value outside requests, and where `CONTEXT` has none: a string, or a
  context variable of the project. `CONTEXT` sets that variable in each request, and Celery tasks can receive it.
- `PIN`: if true, all reads of one request use the same rules.

The client starts when it is first needed: when the server loads the middleware, or when the program calls `client()`.
Commands that read no settings do not start it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heksher_client import ThreadHeksherClient

__all__ = ["client"]


def client() -> "ThreadHeksherClient":
    """Return the client of this process, and start it if it is not running.

    Raises:
        ImproperlyConfigured: `HEKSHER`, or the profile or an environment variable that it relies on, is invalid.
        AppRegistryNotReady, LookupError: Django is not set up yet, or the app is not installed.
    """
    from heksher_client.integrations.django.apps import installed_app

    return installed_app().client()
