"""A short history with real processes and a real service. Random ones are in `tests/core/refresh/test_histories.py`."""

from heksher_client import Reason, Setting, State
from tests.support.clients import Kind, eventually, running
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.service import DECLARE, CannedResponse, WatchedService


def test_a_child_continues_the_history_of_its_parent(kind: Kind, service: WatchedService) -> None:
    """Through an outage, a deletion, a new setting and a rename, as if it had been there from the beginning."""
    setting, deleted = Setting("s", int, ["user"], 7), Setting("deleted", int, ["user"], 1)
    with running(kind, service.url, 0.05, max_backoff=0.05) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        service.intercept = lambda request: CannedResponse(502)
        assert eventually(lambda: client.client.status().state is not State.FRESH)
        service.call("DELETE", "/api/v1/settings/deleted")
        service.declare("t", "int", 7, ["user"], alias="s", version="1.1")
        service.add_rule("t", 9, user="ann")

        def child() -> bool:
            has_values = (setting.get(user="jim"), setting.get(user="ann")) == (8, 7)
            late = Setting("late", int, ["user"], 3)
            return has_values and eventually(
                lambda: setting.get(user="ann") == 9 and late.explain(user="jim").reason is Reason.SERVER_DEFAULT
            )

        pid = fork_and_check(child)
        # The service is a thread of the parent, which ends the outage once the child has tried to declare its setting.
        assert eventually(lambda: "late" in [request.json["name"] for request in service.requests_to(DECLARE)])
        service.intercept = lambda request: None
        assert exited_successfully(pid)
        client.reload()
        assert (setting.get(user="jim"), setting.get(user="ann"), deleted.get(user="jim")) == (8, 9, 1)
        assert {"deleted", "late"} <= {one.name for one in client.get_settings().values()}
