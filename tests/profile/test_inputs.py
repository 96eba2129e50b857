from __future__ import annotations

import importlib.util
import io
import sys

import pytest
from PIL import Image

from knative_sponge.errors import SpongeError
from knative_sponge.profile.inputs import pictures


def test_pictures_are_jpeg_files_of_a_phones_size() -> None:
    for picture in pictures():
        assert 20_000 <= len(picture.jpeg) <= 300_000
        with Image.open(io.BytesIO(picture.jpeg)) as image:
            assert image.format == "JPEG"


def test_pictures_differ_and_are_the_same_each_time() -> None:
    once = pictures()
    assert len({picture.jpeg for picture in once}) == len({picture.name for picture in once}) == len(once)
    assert pictures() == once


def test_the_package_with_the_pictures_is_not_imported() -> None:
    pictures()
    assert "skimage" not in sys.modules


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpongeError, match="pip install"):
        pictures()
