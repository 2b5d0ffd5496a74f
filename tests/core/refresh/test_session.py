"""A session from its start to its end, driven by hand."""

from heksher_client import Setting, State
from tests.support.driven import driven
from tests.support.fake_service import FakeService


def test_a_client_recovers_from_an_outage(service: FakeService) -> None:
    """The waits double until the longest one. The values stay, and are up to date a moment after the service is."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service, update_interval=60, stale_after=180) as client:
        service.add_rule("s", 2, user="jim")
        client.advance(60)
        service.is_running = False
        client.waits.clear()
        client.refresh(9)
        assert client.waits == [60, 1, 2, 4, 8, 16, 32, 60, 60]
        assert client.status().state is State.STALE
        assert setting.get(user="jim") == 2

        service.is_running = True
        service.add_rule("s", 3, user="ann")
        client.refresh()
        assert setting.get(user="ann") == 3
        assert client.status().state is State.FRESH


def test_a_change_is_loaded_at_once_while_the_stream_is_open(service: FakeService) -> None:
    """And those that were missed, when it is opened again."""
    setting = Setting("s", int, ["user"], 1)
    service.offers_changes = True
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        client.advance(0)
        assert setting.get(user="jim") == 2
        client.lose_stream()
        service.add_rule("s", 3, user="ann")
        client.advance(4)
        assert setting.get(user="ann") == 3
