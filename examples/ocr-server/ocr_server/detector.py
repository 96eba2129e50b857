"""The text detector: one image file in, where its text is out. No HTTP, no batches."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from PIL import Image, UnidentifiedImageError

from ocr_server.regions import MAX_BOXES, TEXT, FloatArray, find_boxes

_PACKAGE: Final = "rapidocr_onnxruntime"
_MODEL: Final = "models/ch_PP-OCRv4_det_infer.onnx"
_MAX_IMAGE_PIXELS: Final = 50_000_000
_NO_WARNINGS: Final = 3


class ImageError(Exception):
    """The bytes are not an image that can be read; the message says why."""


class ModelError(Exception):
    """The model file is not on this machine; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found in one image.

    text_share: share of the image's area that is text, 0 to 1.
    boxes: [MAX_BOXES, 5]: x0, y0, x1, y1 in pixels of the image as sent and the score from 0 to 1; unused rows are 0.
    """

    text_share: float
    boxes: FloatArray


def find_model() -> Path:
    """The detector's ONNX file inside the installed package `rapidocr-onnxruntime`, which is not imported.

    Raises ModelError.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / _MODEL
        if path.is_file():
            return path
    raise ModelError(f"{_MODEL} not found: pip install --no-deps rapidocr-onnxruntime")


class Detector:
    """PP-OCRv4's text detector on images squeezed to `pixels` × `pixels`.

    `detect` may be called from several threads at once. Each call computes on its caller's thread alone: two rows side
    by side gain more from a second core than two threads inside one row do, and nothing spins under a CPU quota.
    """

    def __init__(self, model: Path, pixels: int) -> None:
        if pixels < 32 or pixels % 32:
            raise ValueError(f"pixels must be a multiple of 32, not {pixels}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _NO_WARNINGS
        self._session = onnxruntime.InferenceSession(model.read_bytes(), options, ["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._pixels = pixels

    def detect(self, file: bytes) -> Detection:
        """Find the text in one JPEG or PNG file. Raises ImageError."""
        squeezed, width, height = self._decode(file)
        probability = self._session.run(None, {self._input: squeezed})[0][0, 0]
        found = find_boxes(probability)
        boxes = np.zeros((MAX_BOXES, 5), np.float32)
        boxes[: len(found)] = found * np.array([width, height, width, height, 1], np.float32)
        return Detection(text_share=float(np.mean(probability >= TEXT)), boxes=boxes)

    def warm_up(self) -> None:
        """Run the network once, so that the first request does not pay for its start."""
        self._session.run(None, {self._input: np.zeros((1, 3, self._pixels, self._pixels), np.float32)})

    def _decode(self, file: bytes) -> tuple[FloatArray, int, int]:
        """[1, 3, pixels, pixels], blue first, from -1 to 1 as the network was trained; and the image's own size."""
        try:
            with Image.open(io.BytesIO(file), formats=("JPEG", "PNG")) as image:
                width, height = image.size
                if width * height > _MAX_IMAGE_PIXELS:
                    raise ImageError(f"{width} x {height} pixels are too many; at most {_MAX_IMAGE_PIXELS}")
                # A JPEG can be decoded straight to a half, quarter or eighth of its size: most of the work saved.
                image.draft("RGB", (2 * self._pixels, 2 * self._pixels))
                small = image.convert("RGB").resize((self._pixels, self._pixels), Image.Resampling.BILINEAR)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ImageError(f"not a JPEG or PNG that can be read: {error}") from error
        planes = np.asarray(small, np.float32)[None, :, :, ::-1].transpose(0, 3, 1, 2)
        return np.ascontiguousarray(planes) / 127.5 - 1, width, height
