"""`manage.py heksher`: how the client of this program fares, and what is wrong with its settings."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from heksher_client.integrations.django import client


class Command(BaseCommand):
    """Ends with status 1 where the settings are not up to date."""

    help = "Ask the Heksher service for the settings of this program, and show how that went."

    def handle(self, *_: Any, **__: Any) -> None:
        """Do it."""
        status = client().status()
        self.stdout.write(f"{status.state}: {len(status.settings)} settings, {status.rules} rules")
        for name, setting in sorted(status.settings.items()):
            words = setting.problem or setting.declaration or "not declared yet"
            self.stdout.write(f"  {name}: {setting.rules} rules, {words}")
        if not status.is_healthy or status.failures:
            raise CommandError(status.last_error or "the service has not answered yet")
