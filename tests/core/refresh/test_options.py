"""The options of a client: their defaults, and the errors for those that are out of range."""

from typing import Any

import pytest
from msgspec.structs import replace

from heksher_client import UnexpectedResponseError
from heksher_client._core.refresh.options import Options

NAN, INFINITY = float("nan"), float("inf")
SECONDS = [
    "update_interval", "start_timeout", "request_timeout", "max_backoff", "stale_after", "max_age",
    "rate_limit_interval",
]  # fmt: skip
COUNTS = ["max_response_bytes"]
DEFAULTS = Options(
    update_interval=60.0,
    start_timeout=60.0,
    request_timeout=30.0,
    max_response_bytes=256 * 1024 * 1024,
    jitter=0.1,
    max_backoff=60.0,
    stale_after=180.0,
    max_age=604_800.0,
    follow_changes=True,
    rate_limit=None,
    rate_limit_interval=1.0,
    error_classes={},
)


class OverloadedError(UnexpectedResponseError):
    """A class of errors that a program has chosen for a status."""


def checked(**options: Any) -> Options:
    return Options.checked({"update_interval": 60, **options}, can_follow=True)


def refusal(error: type[Exception], **options: Any) -> str:
    """Return the text of the error for these options."""
    with pytest.raises(error) as raised:
        checked(**options)
    return str(raised.value)


def test_an_update_interval_is_enough() -> None:
    """Everything else has a default. Settings are stale after three intervals: one failure is not an alert."""
    assert checked() == DEFAULTS


def test_options_replace_the_defaults() -> None:
    """Numbers of seconds, and the jitter, may be integers."""
    seconds: dict[str, Any] = {name: 10 + number for number, name in enumerate(SECONDS)}
    others: dict[str, Any] = {"max_response_bytes": 1, "jitter": 1, "follow_changes": False, "rate_limit": 1}
    classes = {100: OverloadedError, 599: UnexpectedResponseError}
    options = checked(**seconds, **others, error_classes=classes)
    assert options == replace(DEFAULTS, **seconds, **others, error_classes=classes)
    assert all(isinstance(getattr(options, name), float) for name in [*SECONDS, "jitter"])


def test_changes_are_not_followed_if_the_http_client_cannot() -> None:
    """In spite of the option."""
    assert Options.checked({"update_interval": 60, "follow_changes": True}, can_follow=False).follow_changes is False


def test_the_least_and_the_greatest_values_are_accepted() -> None:
    """A larger limit of bytes is reduced to one that every HTTP library can count."""
    assert checked(update_interval=1e9, stale_after=0.001).update_interval == 1e9
    assert checked(jitter=0).jitter == 0
    assert checked(max_response_bytes=1 << 60).max_response_bytes == 1 << 60
    assert checked(max_response_bytes=1 << 61).max_response_bytes == 1 << 60


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("bad", [0, -1, 1.1e9, INFINITY, -INFINITY, NAN])
def test_o1_seconds_out_of_range_are_refused(name: str, bad: float) -> None:
    """They must be positive, and at most some thirty years."""
    text = f"{name} must be a positive number of seconds, at most 1,000,000,000, not {bad!r}"
    assert refusal(ValueError, **{name: bad}) == text


@pytest.mark.parametrize("name", [*SECONDS, *COUNTS, "jitter", "rate_limit"])
def test_o1_huge_numbers_are_not_written(name: str) -> None:
    """Python refuses to write them, with an error about digits."""
    huge = -(10**5000)
    text = refusal(ValueError, **{name: huge})
    assert text.startswith(f"{name} must be ")
    assert text.endswith(f"not an integer of {huge.bit_length()} bits")
    assert "error_classes: an integer of" in refusal(ValueError, error_classes={huge: OverloadedError})


@pytest.mark.parametrize("interval", [333_333_334, 1e9, 1e-300])
def test_o1_defaults_that_depend_on_the_interval_are_in_range(interval: float) -> None:
    """The error would be about an option that the program has not given."""
    assert checked(update_interval=interval).stale_after == min(3 * interval, 1e9)


@pytest.mark.parametrize("bad", ["no", 0, 1, None, []])
def test_o1_follow_changes_is_true_or_false(bad: Any) -> None:
    """A text would always be true."""
    assert refusal(TypeError, follow_changes=bad) == f"follow_changes must be True or False, not {bad!r}"


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("bad", ["60", None, True, [1]])
def test_seconds_that_are_not_numbers_are_refused(name: str, bad: Any) -> None:
    """A boolean is not accepted either."""
    assert refusal(TypeError, **{name: bad}) == f"{name} must be a number of seconds, not {bad!r}"


def test_the_update_interval_has_no_default() -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match=r"update_interval must be a positive number of seconds, at most .*, not 0$"):
        Options.checked({}, can_follow=True)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("bad", [0, -1])
def test_counts_that_are_not_positive_are_refused(name: str, bad: int) -> None:
    """The error names the option and the value."""
    assert refusal(ValueError, **{name: bad}) == f"{name} must be positive, not {bad!r}"


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("bad", [1.5, "1", None, True])
def test_counts_that_are_not_whole_numbers_are_refused(name: str, bad: Any) -> None:
    """The error names the option and the value."""
    assert refusal(TypeError, **{name: bad}) == f"{name} must be a whole number, not {bad!r}"


def test_a_rate_limit_may_be_any_positive_number() -> None:
    """A fraction as well; unless a request would wait for more than thirty years."""
    for rate in (1, 10**5000, 0.5, 2.5, 1e-9):
        assert checked(rate_limit=rate).rate_limit == rate
    assert checked(rate_limit=0.5, rate_limit_interval=5e8).rate_limit == 0.5
    for bad in (0, -1, -0.5, NAN, INFINITY):
        assert refusal(ValueError, rate_limit=bad) == f"rate_limit must be positive and finite, not {bad!r}"
    for rate, interval in ((9e-10, 1), (0.4, 5e8), (5e-324, 1)):
        text = f"rate_limit must allow a request in each 1,000,000,000 seconds, not {rate!r}"
        assert refusal(ValueError, rate_limit=rate, rate_limit_interval=interval) == text
    wrong: list[Any] = ["1", None, True, [1]]
    for bad in wrong:
        assert refusal(TypeError, rate_limit=bad) == f"rate_limit must be a number of requests, not {bad!r}"


@pytest.mark.parametrize("bad", [-0.1, 1.1, NAN])
def test_a_jitter_out_of_range_is_refused(bad: float) -> None:
    """It is a share of the interval."""
    assert refusal(ValueError, jitter=bad) == f"jitter must be from 0 to 1, not {bad!r}"


@pytest.mark.parametrize("bad", ["0", None, True])
def test_a_jitter_that_is_not_a_number_is_refused(bad: Any) -> None:
    """A boolean is not accepted either."""
    assert refusal(TypeError, jitter=bad) == f"jitter must be a number, not {bad!r}"


@pytest.mark.parametrize("bad", [99, 600, True, "503"])
def test_error_classes_are_by_status(bad: Any) -> None:
    """The error has the invalid status."""
    assert refusal(ValueError, error_classes={bad: OverloadedError}) == f"error_classes: {bad!r} is not an HTTP status"


@pytest.mark.parametrize("bad", [ValueError, "OverloadedError", None])
def test_error_classes_are_subclasses_of_the_error_for_unexpected_responses(bad: Any) -> None:
    """So that programs which catch that class still work."""
    text = f"error_classes: {bad!r} is not a subclass of UnexpectedResponseError"
    assert refusal(TypeError, error_classes={503: bad}) == text
