from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from ocr_server.regions import MAX_BOXES, TEXT, find_boxes


def flood(mask: NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """Regions of touching pixels, corners included, by flooding one after another."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= around
            edge += around
        regions.append(region)
    return regions


def expected(probability: NDArray[np.float32]) -> list[tuple[float, ...]]:
    height, width = probability.shape
    boxes = []
    for region in flood(probability >= TEXT):
        ys, xs = [y for y, _ in region], [x for _, x in region]
        y0, y1, x0, x1 = min(ys), max(ys) + 1, min(xs), max(xs) + 1
        score = float(np.mean([probability[pixel] for pixel in region], dtype=np.float64))
        if score >= 0.6 and min(y1 - y0, x1 - x0) >= 2:
            grow = (x1 - x0) * (y1 - y0) * 1.6 / (2 * (x1 - x0 + y1 - y0))
            sides = ((x0 - grow) / width, (y0 - grow) / height, (x1 + grow) / width, (y1 + grow) / height)
            boxes.append((*(min(max(side, 0.0), 1.0) for side in sides), score))
    return boxes


def in_order(boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    return sorted([round(value, 4) for value in box] for box in boxes)


@given(arrays.arrays(np.float32, (9, 14), elements=st.sampled_from([0.0, 0.1, 0.35, 0.9, 1.0])))
def test_boxes_are_those_of_regions_found_by_flooding(probability: NDArray[np.float32]) -> None:
    assert in_order(find_boxes(probability).tolist()) == in_order(expected(probability))


def test_a_map_without_text_has_no_boxes() -> None:
    assert find_boxes(np.zeros((8, 8), np.float32)).shape == (0, 5)


def test_boxes_come_in_reading_order_and_the_surest_are_kept() -> None:
    probability = np.zeros((200, 40), np.float32)
    for index in range(MAX_BOXES + 8):
        row, column = divmod(index, 2)
        probability[row * 8 : row * 8 + 3, column * 20 : column * 20 + 3] = 0.61 if index < 8 else 0.9
    boxes = find_boxes(probability)
    assert len(boxes) == MAX_BOXES
    assert np.all(boxes[:, 4] > 0.8)
    order = [(float(y), float(x)) for x, y in boxes[:, :2]]
    assert order == sorted(order)
