"""What an administrator lets a namespace ask for, as people write it in a ConfigMap."""

from __future__ import annotations

import pytest

from knative_sponge.controller.cluster.limits import Limits, LimitTable, parse_limits
from knative_sponge.settings.serving import ServingSettings

TEXT = """
# models of one team
priority: 7
min-cores: 500m   # of one pod
max-cores: "4"
head-room: 0
"""


def test_an_entry_has_a_line_for_each_bound() -> None:
    assert parse_limits(TEXT) == Limits(7, 0.5, 4.0, 0.0)
    assert parse_limits("") == Limits()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("priority: 10", "priority: expected a whole number from 0 to 9"),
        ("max-cores: many", "max-cores: expected a CPU quantity from 10m to 4096, not 'many'"),
        ("max-cores: 9999", "max-cores"),
        ("head-room: -1", "head-room"),
        ("max-cores 4", "expected `name: value`"),
        ("cores: 4", "with one of priority, min-cores, max-cores, head-room"),
        ("priority: 1\npriority: 2", "priority is there twice"),
        ("max-cores: " + "1" * 4000, "max-cores"),
        ("x" * 5000, "at most 4096 characters"),
    ],
    ids=lambda text: text[:20],
)
def test_an_entry_that_cannot_be_read_says_which_line_and_what_is_allowed(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"expected|twice|characters") as refused:
        parse_limits(text)
    assert named in str(refused.value)
    assert len(str(refused.value)) <= 200


def test_a_namespace_has_of_the_default_what_its_own_entry_leaves_out() -> None:
    table = LimitTable()
    assert table.take({"default": "priority: 5\nmax-cores: 8", "team-a": "priority: 9\nhead-room: 1"})
    assert table.of("team-a") == Limits(9, None, 8.0, 1.0)
    assert table.of("team-b") == Limits(5, None, 8.0, None)
    assert not table.take({"default": "priority: 5\nmax-cores: 8", "team-a": "priority: 9\nhead-room: 1"})
    assert table.take({})
    assert table.of("team-a") == Limits()


def test_the_last_good_entry_holds_while_one_is_broken_and_no_other_is_touched() -> None:
    table = LimitTable()
    table.take({"default": "priority: 5", "team-a": "priority: 3"})
    assert table.take({"default": "priority: five", "team-a": "priority: 2", "team-b": "nonsense"})
    assert table.of("team-a").priority == 2
    assert table.of("team-b").priority == table.of("other").priority == 5
    assert table.faults.keys() == {"default", "team-b"}


def test_settings_count_no_further_than_the_limits() -> None:
    asked = ServingSettings(slo_s=1.0, priority=9, min_cores=6.0, max_cores=16.0)
    bounded = Limits(priority=5, min_cores=2.0, max_cores=8.0).bounded(asked)
    assert (bounded.priority, bounded.min_cores, bounded.max_cores) == (5, 2.0, 8.0)
    assert Limits(max_cores=4.0).bounded(asked).min_cores == 4.0
    assert Limits(priority=9, min_cores=8.0, max_cores=16.0).bounded(asked) is asked
    unbounded = ServingSettings(slo_s=1.0)
    assert Limits(max_cores=4.0).bounded(unbounded).max_cores == 4.0
    assert Limits().bounded(unbounded) is unbounded
