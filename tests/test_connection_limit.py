"""Places of connections: who goes when another one comes."""

from __future__ import annotations

import pytest

from knative_sponge.connection_limit import ConnectionLimit, Place


class One:
    def __init__(self) -> None:
        self.gone = False

    def shed(self) -> None:
        self.gone = True


def filled(limit: ConnectionLimit, count: int) -> list[One]:
    ones = [One() for _ in range(count)]
    for one in ones:
        assert limit.enter(one) is Place.ORDINARY
    return ones


def test_the_longest_idle_one_goes() -> None:
    limit = ConnectionLimit(3)
    first, second, third = filled(limit, 3)
    limit.busy(first)
    limit.idle(first)
    assert limit.enter(One()) is Place.ORDINARY
    assert [one.gone for one in (first, second, third)] == [False, True, False]
    assert limit.open == 3


def test_where_none_is_idle_the_longest_unfinished_head_goes() -> None:
    limit = ConnectionLimit(3)
    first, second, third = filled(limit, 3)
    limit.in_head(second)
    limit.in_head(first)
    limit.in_head(second)
    limit.busy(third)
    assert limit.enter(One()) is Place.ORDINARY
    assert [one.gone for one in (first, second, third)] == [False, True, False]


def test_an_idle_one_goes_before_one_that_has_been_sending_a_head_for_longer() -> None:
    limit = ConnectionLimit(2)
    sending, idle = filled(limit, 2)
    limit.in_head(sending)
    assert limit.enter(One()) is Place.ORDINARY
    assert (sending.gone, idle.gone) == (False, True)


def test_a_connection_with_a_request_is_never_told_to_go() -> None:
    limit = ConnectionLimit(2)
    for one in filled(limit, 2):
        limit.busy(one)
    assert limit.enter(One()) is Place.NONE
    assert limit.open == 2


def test_spare_places_are_taken_when_all_others_are_busy_and_given_up_for_each_other() -> None:
    limit = ConnectionLimit(1, spare=1)
    (busy,) = filled(limit, 1)
    limit.busy(busy)
    spare, other = One(), One()
    assert limit.enter(spare) is Place.SPARE
    assert not limit.promote(spare)
    assert limit.enter(other) is Place.SPARE
    assert spare.gone
    limit.busy(other)
    assert limit.enter(One()) is Place.NONE
    limit.leave(busy)
    assert limit.promote(other)
    assert limit.open == 1


def test_who_has_left_is_forgotten() -> None:
    limit = ConnectionLimit(1)
    (one,) = filled(limit, 1)
    limit.leave(one)
    limit.leave(one)
    limit.idle(one)
    assert limit.open == 0
    (other,) = filled(limit, 1)
    assert limit.enter(One()) is Place.ORDINARY
    assert (one.gone, other.gone) == (False, True)


def test_a_port_without_places_is_none() -> None:
    with pytest.raises(ValueError, match="at least one connection"):
        ConnectionLimit(0)
