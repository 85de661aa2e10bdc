"""Image files for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (9, 7), **options) -> Path:
    """Writes noise to `path`; every seed gives other pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).convert(mode).save(path, **options)
    return path
