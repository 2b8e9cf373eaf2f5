"""Maps over space and time, on cases with a known result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail import plots
from vitrail.core.errors import SettingError
from vitrail.data.batch import Geometry
from vitrail.explainers.attention_maps import query_row
from vitrail.explainers.clip_maps import frame_shares, on_frames, small_frames
from vitrail.explainers.faithfulness import Baseline, blurred
from vitrail.explainers.grids import gathered, pooled, spread
from vitrail.explainers.masked_images import MaskedImages, on_pixels
from vitrail.explainers.occlusion import Occlusion, OcclusionSettings, cell_grid, mean_colour
from vitrail.layers.tokens import FeatureSpec

SPEC = FeatureSpec(width=8, strides=(4,), attention="softmax", blocks=1, frames=4)


class Planted:
    """A score that is the brightness of one block of space and time: frames 2 and 3, the upper right corner."""

    spec = SPEC

    def masked_scores(self, images: MaskedImages) -> torch.Tensor:
        return torch.cat([batch[:, 2:, :, :8, 12:].mean((1, 2, 3, 4)) for batch in images.batches(7)])


@pytest.fixture
def clip() -> torch.Tensor:
    made = torch.zeros(4, 3, 20, 20)
    made[2:, :, :8, 12:] = 3.0
    return made


def test_weights_move_between_grids_of_space_and_time():
    row = torch.rand(2, 1 + 2 * 3 * 5)
    moved = spread(row, (2, 3, 5), (4, 6, 10), 1)
    assert moved.shape == (2, 1 + 4 * 6 * 10)
    torch.testing.assert_close(moved.sum(1), row.sum(1))
    torch.testing.assert_close(
        pooled(moved[:, 1:].view(2, 4, 6, 10), (2, 3, 5)) * 8, row[:, 1:].view(2, 2, 3, 5)
    )
    column = torch.rand(2, 1 + 4 * 6 * 10)
    # The transpose of spreading, but for the size of a cell.
    left = (spread(row, (2, 3, 5), (4, 6, 10), 1)[:, 1:] * column[:, 1:]).sum(1)
    right = (row[:, 1:] * gathered(column, (4, 6, 10), (2, 3, 5), 1)[:, 1:]).sum(1)
    torch.testing.assert_close(left, right)


def test_cells_of_space_and_time_cover_whole_pixels_and_frames():
    cells = torch.zeros(1, 2, 2, 3)
    cells[0, 1, 0, 2] = 1
    masks = on_pixels(cells, 5, 4, 6)
    assert masks.shape == (1, 5, 4, 6)
    assert masks.sum() == 3 * 2 * 2  # 2.5 frames are rounded to the even 2
    assert masks[0, 2:, :2, 4:].all()


def test_occlusion_finds_the_block_in_space_and_time(clip):
    found = Occlusion(OcclusionSettings(window=1))(Planted(), clip[None])[0]
    assert found.shape == (4, 5, 5)
    assert (found[2:, :2, 3:] > 0.01).all()
    assert found[:2].abs().max() < 1e-6
    assert found[2:, 2:].abs().max() < 1e-6
    assert sum(frame_shares(found.numpy(), 4)[2:]) == pytest.approx(1)


def test_the_order_of_a_true_map_beats_random_ones(clip):
    baseline = Baseline(Planted(), clip)
    true = Occlusion()(Planted(), clip[None])[0].numpy()
    assert all(gain.sure for gain in baseline.gains(true))
    assert all(gain.high < 0 for gain in baseline.gains(-true))


def test_long_clips_have_fewer_moments_than_frames():
    assert cell_grid(SPEC, torch.empty(96, 3, 48, 96)) == (8, 6, 12)
    assert cell_grid(SPEC, torch.empty(3, 3, 8, 8)) == (3, 2, 2)
    assert frame_shares(np.array([[[1.0]], [[3.0]]]), 4) == pytest.approx((0.125, 0.125, 0.375, 0.375))
    assert frame_shares(np.full((2, 1, 1), -1.0), 2) == (0.5, 0.5)


def test_fills_of_a_clip_know_no_place(clip):
    assert mean_colour(clip).unique().numel() == 1
    torch.testing.assert_close(mean_colour(clip)[0, 0, 0, 0], clip.mean())
    assert blurred(clip).shape == clip.shape


def test_a_patch_is_named_by_frame_row_and_column():
    row = query_row("2,1,3", ("cls",), (4, 5, 5))
    assert row[0, 1 + 25 + 2] == row.sum() == 1
    with pytest.raises(SettingError, match=r"FRAME,ROW,COLUMN from 1,1,1 to 4,5,5"):
        query_row("2,1", ("cls",), (4, 5, 5))


def test_large_frames_are_made_smaller_and_their_maps_too():
    geometry = Geometry((100, 1600), (32, 32), (0, 750, 100, 850), times=(0.0, 1.0))
    assert small_frames(np.zeros((2, 100, 1600, 3), np.uint8), geometry).shape == (2, 40, 640, 3)
    heat = on_frames(np.ones((2, 4, 4), np.float32), geometry)
    assert heat.shape == (2, 40, 640)
    assert np.isfinite(heat).sum() == 2 * 40 * 40


def test_a_strip_wraps_and_its_bars_are_the_shares():
    frames = [plots.of_array(np.zeros((10, 20, 3), np.uint8))] * 10
    sheet = plots.strip(frames, [float(t) for t in range(10)], [0.19] + [0.09] * 9)
    assert sheet.width == 8 * 206 - 6
    pixels = np.asarray(sheet)
    bars = (pixels == (0, 114, 178)).all(-1)
    first, second = bars[: len(pixels) // 2, 100].sum(), bars[: len(pixels) // 2, 306].sum()
    assert second / first == pytest.approx(0.09 / 0.19, abs=0.06)
    assert plots.seconds(75.26) == "1:15.3"


def test_an_animation_lasts_as_long_as_the_clip_within_limits():
    frames = [plots.of_array(np.full((8, 16, 3), 50 * t, np.uint8)) for t in range(4)]
    heat = np.random.default_rng(0).random((4, 8, 16)).astype(np.float32)
    shown = list(plots.animation(frames, heat, [0.5, 1.5, 2.5, 3.5], [0.25] * 4))
    assert len(shown) == 4 * plots.RATE
    assert {frame.shape for frame in shown} == {shown[0].shape}
    assert not any(side % 2 for side in shown[0].shape[:2])
    assert len(list(plots.animation(frames[:1], heat[:1], [0.0], [1.0]))) == 30
