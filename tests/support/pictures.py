"""Image files for the tests, and what a figure shows."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from favor_lab.show import style


def picture(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (9, 7), **options) -> Path:
    """Writes noise to `path`; every seed gives other pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).convert(mode).save(path, **options)
    return path


def leave_unrendered(patch: pytest.MonkeyPatch) -> None:
    """Figures are made, but saved as one pixel: to render those of a small run takes four fifths of its time."""
    one = Image.new("RGB", (1, 1))
    patch.setattr(style._figure_class(), "savefig", lambda figure, file, format="png": one.save(file, format))


def texts_of(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def png(figure) -> Image.Image:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that is missing, a layout that does not fit
        figure.savefig(buffer, format="png")
    return Image.open(buffer)
