"""What is between the core's values and httpx's, where no server is needed."""

import httpx

from heksher_client._transport import hang_up


def test_a_transport_of_the_program_may_have_no_connection_to_hang_up() -> None:
    """Its stream ends with the next byte then."""
    hang_up(httpx.Response(200))
