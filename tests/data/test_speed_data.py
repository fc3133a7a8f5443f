"""The reference loader of the speed suite gives what ours gives, to Pillow's rounding."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support.picture_files import listing

from benchmarks.speed.reference_data import batch_from_disk, warp_bytes, warp_floats
from tcn.data.augment import augment, draw_geometry, to_network
from tcn.data.prefetch import to_float
from tcn.data.store import pack


@pytest.mark.parametrize("warp, levels", [(warp_floats, 2), (warp_bytes, 3)])
def test_the_reference_s_batch_is_ours(tmp_path, warp, levels):
    rng = np.random.default_rng(0)
    for i in range(6):
        smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        smooth.save(tmp_path / f"{i}.png")
    paths = [f"{i}.png" for i in range(6)]
    geometry = draw_geometry(np.random.default_rng(1), 6)
    plain = batch_from_disk([tmp_path / p for p in paths], [tmp_path / p for p in paths], geometry, (255, 0), 64, 48, warp)
    pixels = pack(listing(tmp_path, paths, [0] * 6), 64, tmp_path / "c", "digest", "x", False).gather(np.arange(6))
    pixels = to_float(pixels, "cpu")
    for theirs, fill in zip(plain, (255.0, 0.0)):
        ours = to_network(augment(pixels, geometry, "corrected", fill), 48)
        # In grey levels: both round twice, and Pillow leaves the rim of half a pixel to the fill.
        difference = ((ours - theirs).abs() * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255)
        assert difference.median() < 1 and (difference > levels).float().mean() < 0.06 * (warp is warp_bytes) + 1e-3
