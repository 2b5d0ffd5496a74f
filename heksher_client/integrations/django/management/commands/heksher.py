"""The command `manage.py heksher`: the client's status, and the problems of its settings."""

from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from heksher_client._core.refresh.protocol import CONFLICT, MISMATCH, REJECTED
from heksher_client._core.refresh.status import SettingStatus, Status
from heksher_client.integrations.django import client


class Command(BaseCommand):
    """A check for deployments: exits with status 1 if the settings are not up to date or have a problem."""

    help = "Refresh the settings of this program from the Heksher service, and print their status."

    def handle(self, *_: Any, **__: Any) -> None:
        """Print the status of the client and of each setting.

        Raises:
            CommandError: There is a problem.
        """
        status = client().status()
        self.stdout.write(f"{status.state}: {len(status.settings)} settings, {status.rules} rules")
        for name, setting in sorted(status.settings.items()):
            declaration = setting.problem or setting.declaration or "not declared yet"
            self.stdout.write(f"  {name}: {setting.rules} rules, {declaration}")
        if problems := list(_problems(status)):
            raise CommandError("\n".join(problems))


def _problems(status: Status) -> Iterator[str]:
    """Yield the reasons to stop a deployment."""
    if not status.is_healthy or status.failures:
        yield status.last_error or "the service has not responded yet"
    for name, setting in sorted(status.settings.items()):
        for problem in _setting_problems(setting):
            if problem != status.last_error:
                yield f"setting {name}: {problem}"


def _setting_problems(setting: SettingStatus) -> Iterator[str]:
    if setting.problem is not None:  # The service refused the declaration.
        yield setting.problem
    if setting.declaration in (REJECTED, MISMATCH, CONFLICT):
        yield f"its declaration is in conflict with the service ({setting.declaration})"
    if setting.rejected:
        yield f"{setting.rejected} rules cannot be used"
    for rule in setting.first_rejected:
        yield f"rule {rule.rule_id}: {rule.reason}"
