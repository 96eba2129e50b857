"""Which mutants are tried, and which of them are left alive on purpose."""

from __future__ import annotations

import pytest

from tests.mutants import left
from tests.mutants.__main__ import main, sample
from tests.mutants.mutation import mutations
from tests.mutants.rooms import PRODUCT, ROOT, rooms

SOURCES = {"knative_sponge/core/a.py": "a = 1\nb = a < 2\n", "knative_sponge/codec/b/c.py": "for d in e: f(3)\n"}


def test_a_sample_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    source = {"a.py": "\n".join(f"a = {n}" for n in range(100))}
    first = sample(source, [], 20, seed=1)
    assert len(set(first)) == 20
    assert sample(source, [], 20, seed=1) == first
    assert set(sample(source, [], 20, seed=2)) != set(first)


def test_all_that_compile_are_tried_when_there_are_less_than_asked_for() -> None:
    assert sorted(m.mutant for m in sample(SOURCES, [], 400, seed=1)) == [
        "a = 2", "b = a < 3", "b = a <= 2", "for d in e: f(4)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "count"), [("core", 3), ("core/a.py", 3), ("core/a.py:1", 1), ("codec", 1), ("codec/b", 1), ("co", 0)]
)
def test_a_place_is_a_folder_a_file_or_a_line(place: str, count: int) -> None:
    assert len(sample(SOURCES, [place], 400, seed=1)) == count


def test_a_place_without_modules_is_refused() -> None:
    with pytest.raises(SystemExit, match="core/battery"):
        main(["core/battery"])


def test_each_room_has_modules_that_exist() -> None:
    found = rooms()
    assert {"core", "core/batching", "codec", "codec/v2", "controller/revisions"} <= {room.name for room in found}
    assert all((ROOT / file).is_file() for room in found for file in (*room.modules, *room.tests))


def test_a_rooms_tests_are_those_beside_it_and_not_those_further_down() -> None:
    by_name = {room.name: room for room in rooms()}
    assert "tests/core/test_quantity.py" in by_name["core"].tests
    assert all(test.count("/") == 2 for test in by_name["core"].tests)
    assert "tests/core/batching/test_plan.py" in by_name["core/batching"].tests


def test_of_a_room_with_io_only_tests_named_after_its_other_modules_count() -> None:
    tests = {room.name: room.tests for room in rooms()}["controller/revisions"]
    assert "tests/controller/revisions/test_idle.py" in tests
    assert "tests/controller/revisions/test_decision_hybrid.py" in tests
    assert "tests/controller/revisions/test_reconciler.py" not in tests


@pytest.mark.parametrize("entry", left.read(), ids=lambda entry: f"{entry.file}: {entry.mutant}")
def test_what_is_left_on_purpose_is_a_mutant_of_today_and_has_a_reason(entry: left.Left) -> None:
    file = f"{PRODUCT}/{entry.file}"
    assert any(entry.names(mutation) for mutation in mutations((ROOT / file).read_text(), file))
    assert len(entry.reason) > 20


def test_an_entry_names_one_change_of_one_line() -> None:
    file, source = next(iter(SOURCES.items()))
    changes = list(mutations(source, file))
    assert left.Left("core/a.py", "b = a < 2", "b = a <= 2", "").names(changes[1])
    assert not left.Left("core/a.py", "b = a < 2", "b = a <= 2", "").names(changes[2])
    assert not left.Left("core/b.py", "b = a < 2", "b = a <= 2", "").names(changes[1])
