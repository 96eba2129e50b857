"""From a probability map to boxes around the text, with numpy alone; no images, no model."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_BOXES: Final = 32
"""Boxes per image in an answer: a fixed number, so that the answers of a batch have one shape."""

TEXT: Final = 0.3
"""Pixels of at least this probability count as text (the detector's own post-processing uses the same)."""
_SURE: Final = 0.6
"""A region whose mean probability is below this is noise."""
_GROW: Final = 1.6
"""The network is trained on shrunken regions; the way back is area · this / perimeter on every side."""
_MIN_SIDE: Final = 2

FloatArray = NDArray[np.float32]


def find_boxes(probability: FloatArray) -> FloatArray:
    """Boxes of the 8-connected regions of text in a map of shape [height, width].

    Returns [k, 5] with k <= MAX_BOXES: x0, y0, x1, y1 as shares of width and height from 0 to 1, and the region's mean
    probability. The surest boxes are kept; they come in reading order, top to bottom and left to right.
    """
    height, width = probability.shape
    rows, starts, ends = _runs(probability >= TEXT)
    if rows.size == 0:
        return np.zeros((0, 5), np.float32)
    region, count = _join(rows, starts, ends, width)

    x0, y0 = np.full(count, width), np.full(count, height)
    x1, y1 = np.zeros(count, int), np.zeros(count, int)
    np.minimum.at(x0, region, starts)
    np.maximum.at(x1, region, ends)
    np.minimum.at(y0, region, rows)
    np.maximum.at(y1, region, rows + 1)
    summed = np.zeros((height, width + 1), np.float64)
    np.cumsum(probability, axis=1, out=summed[:, 1:])
    mass = np.bincount(region, weights=summed[rows, ends] - summed[rows, starts], minlength=count)
    area = np.bincount(region, weights=ends - starts, minlength=count)
    score = mass / area

    wide, high = x1 - x0, y1 - y0
    kept = np.flatnonzero((score >= _SURE) & (np.minimum(wide, high) >= _MIN_SIDE))
    kept = kept[np.argsort(-score[kept], kind="stable")][:MAX_BOXES]
    kept = kept[np.lexsort((x0[kept], y0[kept]))]
    grow = wide[kept] * high[kept] * _GROW / (2 * (wide[kept] + high[kept]))
    boxes = np.stack(
        [
            np.clip((x0[kept] - grow) / width, 0, 1),
            np.clip((y0[kept] - grow) / height, 0, 1),
            np.clip((x1[kept] + grow) / width, 0, 1),
            np.clip((y1[kept] + grow) / height, 0, 1),
            score[kept],
        ],
        axis=1,
    )
    return boxes.astype(np.float32)


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Row, first column and column after the last of every horizontal run of True, in reading order."""
    height, width = mask.shape
    framed = np.zeros((height, width + 2), np.int8)
    framed[:, 1:-1] = mask
    step = np.diff(framed, axis=1)
    rows, starts = np.nonzero(step == 1)
    _, ends = np.nonzero(step == -1)
    return rows, starts, ends


def _join(
    rows: NDArray[np.intp], starts: NDArray[np.intp], ends: NDArray[np.intp], width: int
) -> tuple[NDArray[np.intp], int]:
    """The region number of every run, and how many regions there are. Runs that touch, corners included, are one."""
    stride = width + 2
    below = (rows + 1) * stride
    first = np.searchsorted(rows * stride + ends, below + starts, side="left")
    last = np.searchsorted(rows * stride + starts, below + ends, side="right")
    parent = list(range(rows.size))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = run = parent[parent[run]]
        return run

    for run, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for touching in range(low, high):
            parent[root(touching)] = root(run)
    roots, region = np.unique([root(run) for run in range(rows.size)], return_inverse=True)
    return region, roots.size
