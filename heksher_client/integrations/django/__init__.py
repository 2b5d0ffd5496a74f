"""Django: an app, a middleware, and a command.

    INSTALLED_APPS = [..., "heksher_client.integrations.django"]
    MIDDLEWARE = [..., "heksher_client.integrations.django.middleware.HeksherMiddleware"]
    HEKSHER = {
        "OPTIONS": {"service_url": "http://heksher:8080", "context_features": ["environment", "user"]},
        "DEFAULTS": {"environment": "prod"},
        "CONTEXT": {"user": "shop.context.user_of"},
    }

The keys of `HEKSHER`, of which none is needed:

- `PROFILE` and `OPTIONS`: the arguments of `heksher_client.connect`.
- `CONTEXT`: by context feature, what finds its value in a request: a function, or its dotted path. It gives text, or
  None where there is none. While a request is answered, reads take these values for what they do not give.
- `DEFAULTS`: by context feature, what reads take where there is nothing else: outside requests, say. A text, or a
  context variable of the project's own, which then holds what `CONTEXT` finds, and can be handed on to Celery's tasks.
- `PIN`: whether all reads of one request see the rules of one moment.

The client starts with the first that needs it: the middleware, when the server loads it, or a program that calls
`client()`. So commands that read no settings start none.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heksher_client import ThreadHeksherClient

__all__ = ["client"]


def client() -> "ThreadHeksherClient":
    """The client of this process, started if it does not run yet.

    Raises:
        ImproperlyConfigured: `HEKSHER` is wrong, or what it leaves to profiles and environment variables.
        AppRegistryNotReady, LookupError: The app is not installed, or Django is not set up yet.
    """
    from heksher_client.integrations.django.apps import installed

    return installed().client()
