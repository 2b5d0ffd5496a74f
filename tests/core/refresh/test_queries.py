"""Queries for many settings: their number and size, responses that are too large, and unmodified ones."""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from heksher_client import UnexpectedResponseError
from heksher_client._core.refresh.effects import Exchange, Oversized, Pause, Reply, Request, Response
from heksher_client._core.refresh.positions import Position, Validity
from heksher_client._core.refresh.protocol import query_target
from heksher_client._core.refresh.queries import Queries, QueryResults

SETTING = b'{"default_value": 0, "rules": []}'


def names_in(request: Request) -> list[str]:
    return parse_qs(urlsplit(request.target).query)["settings"][0].split(",")


def success(names: Iterable[str], **headers: str) -> Response:
    """Return a response with all queried settings."""
    settings = b", ".join(b'"%b": %b' % (name.encode(), SETTING) for name in names)
    return Response(200, b'{"settings": {%b}}' % settings, headers)


class DrivenQueries(Queries):
    """Queries that are answered by a function, and recorded."""

    def __init__(self, respond: Callable[[list[str]], Reply] = success) -> None:
        super().__init__()
        self.respond = respond
        self.requests: list[Request] = []
        self.rounds: list[list[list[str]]] = []
        """The names in each query, by exchange."""
        self.pauses: list[Pause] = []

    def query(
        self,
        names: Iterable[str],
        *,
        context_filter: str = "*",
        current: Collection[str] = frozenset(),
        is_retry: bool = False,
        is_working: bool = False,
    ) -> QueryResults:
        """Query settings, and return the results."""
        self.rounds.clear()
        self.requests.clear()
        flow = self.run(names, context_filter, frozenset(current), is_retry=is_retry, is_working=is_working)
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, Exchange):
                    self.requests += effect.requests
                    self.rounds.append([names_in(request) for request in effect.requests])
                    effect = flow.send(tuple(self.respond(names_in(request)) for request in effect.requests))
                else:
                    assert isinstance(effect, Pause)
                    self.pauses.append(effect)
                    effect = next(flow)
        except StopIteration as end:
            results: QueryResults = end.value
            return results

    def sizes(self) -> list[list[int]]:
        """Return the number of names in each query, by exchange."""
        return [list(map(len, queries)) for queries in self.rounds]


def make_names(number: int) -> list[str]:
    return [f"setting_{i}" for i in range(number)]


# -- number and size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"), [(1, 1), (50, 1), (51, 2), (100, 2), (101, 4), (200, 4), (201, 10), (1500, 10)]
)
def test_more_than_fifty_settings_are_spread_over_several_queries(settings: int, expected: int) -> None:
    """Up to as many as are sent at once. Each setting is in one of them, and all are of about the same size."""
    queries = DrivenQueries()
    names = make_names(settings)
    assert list(queries.query(names).settings) == [name for query in queries.rounds[0] for name in query]
    (sizes,) = queries.sizes()
    assert len(sizes) == expected
    assert sorted(name for query in queries.rounds[0] for name in query) == sorted(names)
    assert max(sizes) < 2 * min(sizes)


def test_no_settings_take_no_query() -> None:
    """The result is empty."""
    queries = DrivenQueries()
    assert (queries.query([]), queries.rounds) == (QueryResults(), [])


@pytest.mark.parametrize("context_filter", ["*", "user:(jim,ann),theme:*"])
@pytest.mark.parametrize(("excess", "expected"), [(0, [[40]]), (1, [[39, 1]])])
def test_a_query_has_at_most_four_thousand_characters(
    context_filter: str, excess: int, expected: list[list[int]]
) -> None:
    """With its path, the commas and the context filter."""
    names = [f"{i:080}" for i in range(39)]
    names.append("x" * (4000 + excess - len(query_target([*names, ""], context_filter))))
    queries = DrivenQueries()
    queries.query(names, context_filter=context_filter)
    assert queries.sizes() == expected
    assert len(queries.requests[0].target) <= 4000


def test_long_names_fill_one_query_after_the_other() -> None:
    """Each has as many as fit."""
    queries = DrivenQueries()
    queries.query(f"{i:0200}" for i in range(50))
    assert queries.sizes() == [[19, 19, 12]]
    assert [len(request.target) for request in queries.requests] == [3882, 3882, 2475]


def test_a_query_has_the_path_of_the_protocol() -> None:
    """Without metadata, and with an encoded context filter."""
    queries = DrivenQueries()
    queries.query(["a", "b"], context_filter="user:(jim,ä)")
    assert queries.requests == [
        Request("GET", "/api/v1/query?settings=a,b&context_filters=user:(jim,%C3%A4)&include_metadata=false")
    ]


# -- responses that are too large --------------------------------------------------------------------------------------


def too_large_from(size: int, status: int = 500) -> Callable[[list[str]], Reply]:
    """Return a service that fails if a query has this many names, or more."""
    return lambda names: Response(status) if len(names) >= size else success(names)


@pytest.mark.parametrize("status", [413, 414, 431, 500])
def test_a_query_that_is_too_large_is_halved_until_one_succeeds(status: int) -> None:
    """One at a time, as the service may be failing. Then the others follow at once, and the size is remembered."""
    queries = DrivenQueries(too_large_from(7, status))
    results = queries.query(make_names(20))
    assert queries.sizes() == [[20], [10], [5], [5, 5, 5]]
    assert sorted(results.settings) == sorted(make_names(20))
    queries.query(make_names(20))
    assert queries.sizes() == [[5, 5, 5, 5]]


def test_a_response_with_too_many_bytes_is_a_query_that_is_too_large() -> None:
    """The status does not matter."""
    queries = DrivenQueries(lambda names: Oversized(200, 1000) if len(names) > 1 else success(names))
    assert sorted(queries.query("abcd").settings) == list("abcd")
    assert queries.sizes() == [[4], [2], [1], [1, 1, 1]]


def test_a_part_that_is_too_large_is_split_after_another_one_succeeded() -> None:
    """The settings that were received are not queried again."""
    queries = DrivenQueries(lambda names: Response(500) if len({"a", "b"} & set(names)) == 2 else success(names))
    queries.query("abcdefgh")
    assert queries.rounds == [
        [list("abcdefgh")],
        [list("abcd")],
        [["a", "b"]],
        [["a"]],
        [
            [
                "b",
            ],
            *map(list, "cdefgh"),
        ],
    ]


def test_a_single_setting_that_is_too_large_does_not_affect_the_others() -> None:
    """The error is that of its own query."""
    queries = DrivenQueries(lambda names: Response(500, b"oops") if "c" in names else success(names))
    results = queries.query("abcdefgh")
    assert sorted(results.settings) == list("abdefgh")
    assert (results.missing, list(results.failed)) == (set(), ["c"])
    error = results.failed["c"]
    assert str(error) == "GET /api/v1/query: the service responded with 500: 'oops'"
    assert isinstance(error, UnexpectedResponseError)
    assert error.status == 500


def test_two_settings_that_fail_are_enough_to_give_up() -> None:
    """Nothing was received, so the service is failing. The error of the first one is raised."""
    queries = DrivenQueries(lambda names: Response(500, names[0].encode()))
    with pytest.raises(UnexpectedResponseError, match="500: 'a'"):
        queries.query("abcdefgh")
    assert queries.sizes() == [[8], [4], [2], [1], [3], [1]]


def test_settings_that_fail_after_a_success_are_all_reported() -> None:
    """The service works, so they are queried one by one."""
    queries = DrivenQueries(lambda names: Response(500) if {"c", "d", "e"} & set(names) else success(names))
    results = queries.query("abcdefgh")
    assert sorted(results.settings) == list("abfgh")
    assert sorted(results.failed) == list("cde")


def test_twice_as_many_settings_are_queried_at_once_after_sixty_successes() -> None:
    """The service may have recovered. Sixty more are needed after a failure."""
    queries = DrivenQueries(too_large_from(7))

    def first_sizes(refreshes: int) -> list[int]:
        """Return the number of names in the first query of each refresh."""
        sizes = []
        for _ in range(refreshes):
            queries.query(make_names(20))
            sizes.append(queries.sizes()[0][0])
        return sizes

    assert first_sizes(1) == [20]
    queries.respond = success
    assert first_sizes(61) == [5] * 60 + [10]
    queries.respond = too_large_from(7)
    assert first_sizes(1) == [10]
    queries.respond = success
    assert first_sizes(122) == [5] * 60 + [10] * 60 + [20] * 2


def test_a_query_without_a_response_does_not_lower_the_number_of_names_in_one() -> None:
    """The query with an unknown name is sent again without it, and as a whole."""
    names = make_names(120)
    queries = DrivenQueries()
    queries.query(names)
    ((first, second, *_),) = queries.rounds

    def respond(names: list[str]) -> Reply:
        if first[0] in names:
            return Response(503)
        return Response(404, repr([second[0]]).encode()) if second[0] in names else success(names)

    queries.respond = respond
    queries.query(names)
    assert queries.rounds[1:] == [[second[1:]]]


# -- settings whose queries fail ---------------------------------------------------------------------------------------


def test_a_setting_whose_retry_failed_has_a_query_of_its_own_until_it_has_a_response() -> None:
    """No other one was queried then, so it may be the reason."""
    queries = DrivenQueries(lambda names: Response(503) if "a" in names else success(names))
    queries.query("a", is_retry=True)
    queries.query("abc")
    assert queries.rounds == [[["b", "c"], ["a"]]]
    queries.respond = success
    queries.query("abc")
    queries.query("abc")
    assert queries.rounds == [[["a", "b", "c"]]]


def test_the_settings_whose_queries_failed_have_their_own_after_the_others_were_given_up() -> None:
    """They come last. The others may be available."""
    queries = DrivenQueries(lambda names: Response(500))
    with pytest.raises(UnexpectedResponseError):
        queries.query("abcdefgh")
    assert queries.rounds[3:] == [[["a"]], [["b", "c", "d"]], [["b"]]]
    queries.respond = success
    queries.query("abcdefgh")
    assert queries.rounds == [[list("cdefgh"), ["a"], ["b"]]]


def test_all_settings_of_a_retry_that_is_given_up_have_the_error_of_the_first_one() -> None:
    """Those that were not queried as well: each is tried again at a time of its own."""
    queries = DrivenQueries(lambda names: Response(500, names[0].encode()))
    results = queries.query("abcdefgh", is_retry=True)
    text = "GET /api/v1/query: the service responded with 500: "
    assert {name: str(error) for name, error in results.failed.items()} == {
        **dict.fromkeys("acdefgh", f"{text}'a'"),
        "b": f"{text}'b'",
    }


def test_a_missing_setting_no_longer_has_a_query_of_its_own() -> None:
    """It is declared again, and then queried with the others."""
    queries = DrivenQueries(lambda names: Response(503))
    queries.query("a", is_retry=True)
    queries.respond = lambda names: Response(404, b"no such: ['a']") if "a" in names else success(names)
    assert queries.query("ab").missing == {"a"}
    queries.respond = success
    queries.query("ab")
    assert queries.rounds == [[["a", "b"]]]


def test_a_refused_query_of_a_single_setting_is_not_repeated() -> None:
    """It cannot be split."""
    queries = DrivenQueries(lambda names: Response(422))
    with pytest.raises(UnexpectedResponseError):
        queries.query("a", is_working=True)
    assert queries.rounds == [[["a"]]]


def test_from_the_start_queries_are_split_after_the_first_second_and_fourth_failure() -> None:
    """The service responds to other requests, so a single setting may be the reason. Or it is that of all."""
    queries = DrivenQueries(lambda names: Response(503))
    sizes = []
    for _ in range(6):
        with pytest.raises(UnexpectedResponseError):
            queries.query("abcd", is_working=True)
        sizes += queries.sizes()
    assert sizes == [[4], [1] * 4, [1] * 4, [4], [1] * 4, [4]]


# -- unmodified responses ----------------------------------------------------------------------------------------------


def test_an_etag_is_sent_with_the_same_query_if_all_of_its_settings_are_current() -> None:
    """The settings of an unmodified response are not modified, and the ETag stays."""
    queries = DrivenQueries(lambda names: success(names, etag='"1"'))
    first = queries.query(["a", "b"], current=["a", "b"])
    target = queries.requests[0].target
    assert (first.etags, first.modified, queries.requests[0].headers) == ({target: '"1"'}, ["a", "b"], {})
    queries.etags = first.etags

    for current in ([], ["a"]):
        queries.query(["a", "b"], current=current)
        assert queries.requests[0].headers == {}
    queries.query(["a", "c"], current=["a", "b", "c"])
    assert queries.requests[0].headers == {}

    queries.respond = lambda names: Response(304)
    second = queries.query(["a", "b"], current=["a", "b", "c"])
    assert queries.requests[0].headers == {"If-None-Match": '"1"'}
    assert (second.etags, second.modified, second.settings) == ({target: '"1"'}, [], {})
    assert second.has_responses


def test_a_response_without_an_etag_is_queried_in_full_the_next_time() -> None:
    """There is none to send."""
    queries = DrivenQueries()
    assert queries.query(["a"]).etags == {}


# -- missing settings and revisions ------------------------------------------------------------------------------------


def test_missing_settings_are_left_out_of_the_next_query() -> None:
    """The service rejects a query with an unknown name as a whole."""
    queries = DrivenQueries(lambda names: Response(404, b"no such: ['b', 'z']") if "b" in names else success(names))
    results = queries.query("abc")
    assert queries.rounds == [[["a", "b", "c"]], [["a", "c"]]]
    assert (results.missing, sorted(results.settings)) == ({"b"}, ["a", "c"])
    assert not results.is_open("b")


def test_several_queries_may_have_missing_settings() -> None:
    """All of them are sent again at once, without these settings."""
    missing = {"setting_0", "setting_4"}
    queries = DrivenQueries(
        lambda names: Response(404, repr(missing & {*names}).encode()) if missing & {*names} else success(names)
    )
    results = queries.query(make_names(60))
    assert (results.missing, set(results.settings)) == (missing, {*make_names(60)} - missing)
    first, second = queries.rounds
    assert [[name for name in names if name not in missing] for names in first] == second
    assert all(missing & {*names} for names in first)


def test_without_a_setting_that_the_service_has_there_is_nothing_to_query_again() -> None:
    """A 404 may mean all settings of a query."""
    queries = DrivenQueries(lambda names: Response(404))
    results = queries.query(make_names(60))
    assert (results.missing, results.has_responses) == (set(make_names(60)), False)
    assert [len(requests) for requests in queries.rounds] == [2]


def repeat(queries: Queries, results: QueryResults, reply: Reply) -> Request:
    """Send the only query again, and return its request."""
    flow = queries.repeat(results, results.parts)
    effect = next(flow)
    assert isinstance(effect, Exchange)
    with suppress(StopIteration):
        flow.send((reply,))
    (request,) = effect.requests
    return request


def test_an_unmodified_response_to_a_repeated_query_is_valid_for_a_later_position() -> None:
    """It has the ETag of the first response, whose settings are kept."""
    queries = DrivenQueries(lambda names: success(names, etag='"1"', **{"heksher-revision": "3"}))
    results = queries.query(["a"])
    request = repeat(queries, results, Response(304, b"", {"heksher-revision": "5"}))
    assert request.headers == {"If-None-Match": '"1"'}
    (part,) = results.parts.values()
    assert part.validity == Validity(Position("", 0, 3), Position("", 0, 5))
    assert (list(results.settings), results.modified, results.etags) == (["a"], ["a"], {request.target: '"1"'})


def test_a_response_to_a_repeated_query_replaces_the_settings_of_the_first_one() -> None:
    """A setting may have been renamed since."""
    queries = DrivenQueries(lambda names: success(names, **{"heksher-revision": "3"}))
    results = queries.query(["a"])
    repeat(queries, results, success(["b"], **{"heksher-revision": "5"}))
    (part,) = results.parts.values()
    assert part.validity == Validity(Position("", 0, 5), Position("", 0, 5))
    assert (list(results.settings), results.modified) == (["b"], ["a"])


def test_the_responses_to_two_repeated_queries_may_have_replaced_the_same_setting() -> None:
    """It has a name in each of them, and was renamed again since."""
    first, second = make_names(100)[:50], make_names(100)[50:]
    queries = DrivenQueries(lambda names: success(["renamed"]))
    results = queries.query(first + second)
    assert len(results.parts) == 2
    flow = queries.repeat(results, results.parts)
    next(flow)
    with suppress(StopIteration):
        flow.send((success(["again"]), success(["again"])))
    assert list(results.settings) == ["again"]


@pytest.mark.parametrize(
    ("status", "is_refused"), [(400, True), (404, True), (499, True), (429, False), (500, False), (503, False)]
)
def test_a_response_from_400_to_499_but_429_refuses_a_query(status: int, is_refused: bool) -> None:
    queries = DrivenQueries(lambda _: Response(status, b"", {}))
    assert queries.query(["a"], is_retry=True).is_refused is is_refused


@pytest.mark.parametrize(("size", "pauses"), [(1 << 20, 0), ((1 << 20) + 1, 1)])
def test_others_run_before_a_large_response_to_a_repeated_query_is_parsed(size: int, pauses: int) -> None:
    queries = DrivenQueries()
    results = queries.query(["a"])
    flow = queries.repeat(results, results.parts)
    assert isinstance(next(flow), Exchange)
    with suppress(StopIteration):
        assert isinstance(flow.send((Response(200, success(["a"]).content.ljust(size)),)), Pause)
        pauses -= 1
        next(flow)
    assert pauses == 0


@pytest.mark.parametrize(("size", "pauses"), [(1 << 20, 0), ((1 << 20) + 1, 1)])
def test_others_run_before_a_large_response_is_parsed(size: int, pauses: int) -> None:
    """Parsing cannot be interrupted."""
    padded = success(["a"]).content.ljust(size)
    queries = DrivenQueries(lambda names: Response(200, padded))
    assert queries.query(["a"]).settings == {"a": msgspec.Raw(SETTING)}
    assert queries.pauses == [Pause()] * pauses
