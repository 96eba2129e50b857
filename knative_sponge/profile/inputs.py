"""The demo's requests: photographs and scanned pages as JPEG files of 20–300 KB. It needs Pillow, and sends nothing.

The pictures are part of the package scikit-image, which is located but not imported.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from knative_sponge.errors import SpongeError
from knative_sponge.profile.load import Body


@dataclass(frozen=True, slots=True)
class Picture:
    """One JPEG file."""

    name: str
    jpeg: bytes


_RECIPES: Final = (
    # file, width in pixels, JPEG quality
    ("page.png", 1600, 92), ("page.png", 1152, 90), ("page.png", 768, 80), ("text.png", 1344, 95),
    ("text.png", 900, 85), ("camera.png", 512, 70), ("astronaut.png", 512, 92), ("coffee.png", 900, 90),
    ("rocket.jpg", 960, 90), ("chelsea.png", 600, 80), ("motorcycle_left.png", 741, 95),
    ("hubble_deep_field.jpg", 1000, 85), ("retina.jpg", 1411, 92),
)  # fmt: skip


def pictures() -> tuple[Picture, ...]:
    """All pictures. One version of Pillow always gives the same bytes. Raises SpongeError without scikit-image."""
    folder = _folder()
    return tuple(_encode(folder / file, width, quality) for file, width, quality in _RECIPES)


def image_call(files: Sequence[bytes]) -> Body:
    """A V2 inference call with these image files as tensor `image`. It asks for binary answers."""
    tail = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(files)],
        "parameters": {"binary_data_size": len(tail)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return Body(
        head + tail,
        {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))},
    )


def _folder() -> Path:
    spec = importlib.util.find_spec("skimage")
    for location in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(location) / "data"
        if folder.is_dir():
            return folder
    raise SpongeError("the demo's pictures come with scikit-image: pip install --no-deps scikit-image")


def _encode(path: Path, width: int, quality: int) -> Picture:
    with Image.open(path) as image:
        size = (width, round(image.height * width / image.width))
        scaled = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    scaled.save(file, "JPEG", quality=quality)
    return Picture(f"{path.stem}-{width}", file.getvalue())
