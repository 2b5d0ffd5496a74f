"""`manage.py heksher`: how the client of this program fares, and what is wrong with its settings."""

from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from heksher_client._core.refresh.protocol import CONFLICT, MISMATCH, REJECTED
from heksher_client._core.refresh.status import SettingStatus, Status
from heksher_client.integrations.django import client


class Command(BaseCommand):
    """Ends with status 1 where the settings are not up to date, or something of them cannot be used."""

    help = "Ask the Heksher service for the settings of this program, and show how that went."

    def handle(self, *_: Any, **__: Any) -> None:
        """Do it."""
        status = client().status()
        self.stdout.write(f"{status.state}: {len(status.settings)} settings, {status.rules} rules")
        for name, setting in sorted(status.settings.items()):
            words = setting.problem or setting.declaration or "not declared yet"
            self.stdout.write(f"  {name}: {setting.rules} rules, {words}")
        if reasons := list(_reasons(status)):
            raise CommandError("\n".join(reasons))


def _reasons(status: Status) -> Iterator[str]:
    """Why a deployment should not go on, in words."""
    if not status.is_healthy or status.failures:
        yield status.last_error or "the service has not answered yet"
    for name, setting in sorted(status.settings.items()):
        for reason in _reasons_of(setting):
            if reason != status.last_error:
                yield f"setting {name}: {reason}"


def _reasons_of(setting: SettingStatus) -> Iterator[str]:
    if setting.problem is not None:  # as there is where the declaration was refused as such
        yield setting.problem
    if setting.declaration in (REJECTED, MISMATCH, CONFLICT):
        yield f"its declaration is in conflict with the service ({setting.declaration})"
    if setting.rejected:
        yield f"{setting.rejected} rules cannot be used"
    for rule in setting.first_rejected:
        yield f"rule {rule.rule_id}: {rule.reason}"
