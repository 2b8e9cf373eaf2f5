"""A view moves image, mask, points and boxes alike, and brings maps back to where they came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from pictures import scene
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from vitrail.core.errors import SettingError
from vitrail.data.augment import MOVING_TRUTH, RECIPES, Augment, build, drawn_from
from vitrail.data.decode import decode
from vitrail.data.preprocess import Fit, Preprocess
from vitrail.data.resize import Span, resize
from vitrail.data.view import View, boxes_in_original, maps_in_original, points_in_input, points_in_original

FITS: tuple[Fit, ...] = ("squash", "crop", "pad")
SHAPES = [(97, 61), (61, 131), (43, 31), (211, 307)]
SIZES = [(31, 43), (53, 53), (64, 32)]
VOID = 255


def plain(size: tuple[int, int], fit: Fit, channels: int = 1) -> Preprocess:
    """Steps that change no value: 0..255 in parts of 255."""
    return Preprocess(size, fit, 1.0, (0.0,) * channels, (1.0,) * channels, channels)


def colourless(name: str) -> Augment:
    """Return an augmentation that moves pixels as the named one does and leaves their colours."""
    return replace(build(name, channels=1), change=None)


def views(shape: tuple[int, int], size: tuple[int, int], fit: Fit) -> Iterator[View]:
    """Yield the view at prediction, and some of every augmentation that moves truths."""
    steps = plain(size, fit)
    yield steps.view(shape)
    for name in MOVING_TRUTH:
        for key in range(4):
            yield steps.view(shape, colourless(name), key)


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """Return a disc (height, width) as shares of pixels covered; `centre` is (x, y)."""
    fine = 8
    y, x = ((np.arange(side * fine) + 0.5) / fine for side in shape)
    inside = (x[None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 < radius**2
    return inside.reshape(shape[0], fine, shape[1], fine).mean((1, 3))


def middle(shares: np.ndarray) -> np.ndarray:
    """Return the centre of mass (x, y)."""
    y, x = (np.arange(side) + 0.5 for side in shares.shape)
    return np.array([(shares * x[None]).sum(), (shares * y[:, None]).sum()]) / shares.sum()


def as_it_was(steps: Preprocess, image: np.ndarray, name: str, erasing: float, key: int) -> torch.Tensor:
    """Return an augmented input as torchvision's own transforms, one after the other, make it."""
    moves: dict[str, list[nn.Module]] = {
        "light": [v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR)],
        "trivial": [v2.TrivialAugmentWide()],
        "rand": [v2.RandAugment(num_ops=2, magnitude=9, num_magnitude_bins=11)],
        "three": [
            v2.RandomChoice(
                [
                    v2.RandomGrayscale(p=1),
                    v2.RandomSolarize(threshold=128, p=1),
                    v2.GaussianBlur(5, (0.1, 2.0)),
                ]
            ),
            v2.ColorJitter(0.3, 0.3, 0.3),
        ],
    }
    with drawn_from(key):
        if name in ("none", "light"):
            shown = steps.restore(steps.eval(image)[0])
            change = moves.get(name, [])
        else:
            least = 0.2 if name == "large_crop" else 0.08
            drawn = v2.RandomResizedCrop((1, 1), scale=(least, 1.0)).make_params(
                [torch.empty(1, *image.shape[:2], device="meta")]
            )
            top, left, height, width = (drawn[side] for side in ("top", "left", "height", "width"))
            cut = image[top : top + height, left : left + width]
            shown = resize(cut, *(Span(side, 0, side) for side in steps.size))
            change = [v2.RandomHorizontalFlip(), *moves.get(name, [])]
        if change:
            shown = nn.Sequential(*change)(shown.round().clamp(0, 255).to(torch.uint8)).float()
        return v2.RandomErasing(p=erasing, value=0)(steps.normalise(shown))


@pytest.mark.parametrize(
    "name", [name for name in RECIPES if name not in {"scene", "flip_scale", "turns", "square"}]
)
@pytest.mark.parametrize("fit", FITS)
def test_an_image_is_what_torchvision_s_transforms_make_of_it(name: str, fit: Fit) -> None:
    for channels in (1, 3):
        steps = Preprocess((31, 43), fit, 0.875, (0.0,) * channels, (1.0,) * channels, channels)
        image = scene(1, (97, 61), channels)
        for key in (0, 1, 2, -1, 1 << 80):
            found = steps.view((97, 61), build(name, channels=channels, erasing=0.5), key).image(image)
            expected = as_it_was(steps, image, name, 0.5, key)
            torch.testing.assert_close(found, expected, atol=1e-6 if name == "none" else 0, rtol=0)


def test_a_square_is_almost_the_largest_and_neither_mirrored_nor_coloured() -> None:
    steps, places = plain((32, 32), "squash", 3), set()
    image = np.zeros((60, 90, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(60)[:, None], np.arange(90)
    for key in range(20):
        shown = steps.view((60, 90), build("square"), key).image(image)
        down, across = (steps.restore(shown)[channel].numpy() for channel in (0, 1))
        side = (across[:, -1] - across[:, 0]).mean() * 32 / 31
        assert 56 <= side <= 61
        assert (np.diff(across, axis=1) >= -1e-3).all()
        assert (np.diff(down, axis=0) >= -1e-3).all()
        places.add(round(float(across[:, 0].mean())))
    assert len(places) > 5


@pytest.mark.parametrize("fit", FITS)
def test_eval_is_the_view_without_an_augmentation(fit: Fit) -> None:
    steps = Preprocess((31, 43), fit)
    view = steps.view((97, 61))
    shown, geometry = steps.eval(scene(2, (97, 61)))
    assert torch.equal(view.image(scene(2, (97, 61))), shown)
    assert view.geometry == geometry == steps.geometry(97, 61)
    assert geometry.moved is None


@pytest.mark.parametrize("name", MOVING_TRUTH)
def test_the_draws_do_not_depend_on_what_is_asked_first(name: str) -> None:
    steps, augment, image = plain((31, 43), "pad", 3), build(name, erasing=0.5), scene(3, (97, 61))
    mask = np.arange(97 * 61, dtype=np.int32).reshape(97, 61)
    for key in range(4):
        one, other = (steps.view((97, 61), augment, key) for _ in range(2))
        shown, masked, moved = one.image(image), one.mask(mask, -1), one.points([[3.0, 5.0]])
        torch.manual_seed(key)
        again = other.points([[3.0, 5.0]]), other.mask(mask, -1), other.image(image)
        np.testing.assert_array_equal(again[0], moved)
        np.testing.assert_array_equal(again[1], masked)
        assert torch.equal(again[2], shown)
        assert torch.equal(one.image(image), shown)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_is_the_mask_drawn_into_the_transformed_image(
    shape: tuple[int, int], size: tuple[int, int], fit: Fit
) -> None:
    """Shapes drawn in black and white: away from their edges, both sides say the same."""
    mask = np.zeros(shape, np.uint8)
    mask[: shape[0] // 2, shape[1] // 3 :] = 1
    mask[disc(shape, (shape[1] * 0.3, shape[0] * 0.7), min(shape) / 5) > 0.5] = 1
    for view in views(shape, size, fit):
        found = view.mask(mask, VOID)
        assert found.shape == size
        assert found.dtype == np.uint8
        near = np.stack([np.roll(found, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)])
        sure = (near == found).all(0) & (found != VOID)
        sure[[0, -1]] = sure[:, [0, -1]] = False
        shown = view.image((255 * mask)[..., None])[0].numpy() > 0.5
        assert sure.sum() > 30
        np.testing.assert_array_equal(shown[sure], found[sure] == 1)


@pytest.mark.parametrize("name", MOVING_TRUTH)
def test_what_shows_no_picture_is_void(name: str) -> None:
    """White images on a black ground: void is where nothing white is."""
    steps = Preprocess((31, 43), "pad", 1.0, (0.0,), (1.0,), 1)
    for key in range(8):
        view = steps.view((37, 23), colourless(name), key)
        shown = view.image(np.full((37, 23, 1), 255, np.uint8))[0].numpy()
        void = view.mask(np.zeros((37, 23), np.int64), VOID) == VOID
        assert (shown[void] < 0.75).all()  # corners of a turned image are seen by a quarter or less
        assert (shown[~void] > 0.05).all()
        assert abs((~void).sum() - shown.sum()) < 0.02 * void.size


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_disc_lies_where_its_centre_lies(shape: tuple[int, int], fit: Fit) -> None:
    centre, radius = (shape[1] * 0.47, shape[0] * 0.55), min(shape) / 6
    drawn = disc(shape, centre, radius)
    box = [[centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius]]
    whole = 0
    for view in views(shape, (61, 83), fit):
        boxes, seen = view.boxes(box)
        where = view.points([centre])[0]
        np.testing.assert_allclose(points_in_original(view.geometry, [where])[0], centre, atol=1e-9)
        if seen[0] < 1:
            continue
        whole += 1
        np.testing.assert_allclose((boxes[0, :2] + boxes[0, 2:]) / 2, where, atol=1e-6)
        shown = view.image(np.round(255 * drawn)[..., None].astype(np.uint8))
        assert np.abs(middle(shown[0].numpy().clip(0, 1)) - where).max() < 0.25
        mask = (drawn > 0.5).astype(
            np.uint8
        )  # whose own middle is not quite the disc's, and which has whole pixels
        assert np.abs(middle(view.mask(mask, 0)) - view.points([middle(mask)])[0]).max() < 0.3
        back = view.back(shown.clamp(0, 1), 0.0)[0].numpy()
        assert back.shape == shape
        assert np.abs(middle(back) - centre).max() < 0.25
    assert whole >= 5


@pytest.mark.parametrize("turn", range(1, 9))
def test_truths_of_a_turned_photograph_lie_in_its_upright_frame(turn: int) -> None:
    upright = np.zeros((61, 97), np.uint8)
    upright[10:20, 60:90] = 255
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[turn]
    stored, exif, data = Image.fromarray(upright), Image.Exif(), BytesIO()
    exif[0x0112] = turn
    (stored if undo is None else stored.transpose(Image.Transpose(undo))).save(data, "PNG", exif=exif)
    image = decode(data.getvalue(), channels=1).image
    view = plain((31, 43), "squash").view(image.shape[:2])
    (left, top, right, bottom), _ = (one[0] for one in view.boxes([[60, 10, 90, 20]]))
    shown = view.image(image)[0].numpy()
    assert shown[int((top + bottom) / 2), int((left + right) / 2)] > 0.9
    assert shown.sum() == pytest.approx((right - left) * (bottom - top), rel=0.05)


def test_boxes_are_cut_off_and_tell_what_is_left() -> None:
    view = plain((40, 40), "crop").view((40, 80))  # shows columns 20 to 60
    boxes, seen = view.boxes(
        [[0, 0, 10, 10], [10, 10, 30, 20], [30, 10, 50, 30], [0, 0, 80, 40], [40, 5, 40, 5], [5, 5, 5, 9]]
    )
    np.testing.assert_allclose(seen, [0, 0.5, 1, 0.5, 1, 0])
    np.testing.assert_allclose(boxes[1:4], [[0, 10, 10, 20], [10, 10, 30, 30], [0, 0, 40, 40]])
    np.testing.assert_allclose(boxes_in_original(view.geometry, boxes[2:3]), [[30, 10, 50, 30]])
    none, of_none = view.boxes(np.zeros((0, 4)))
    assert (none.shape, of_none.shape) == ((0, 4), (0,))


def test_back_is_the_identity_to_a_pixel() -> None:
    """Where the input is the image itself, what comes back is what went in; also where it is mirrored."""
    image = np.random.default_rng(0).integers(0, 256, (37, 41, 1), dtype=np.uint8)
    steps, mirrored = plain((37, 41), "squash"), 0
    view = steps.view((37, 41))
    shown = view.image(image)
    assert torch.equal(view.back(shown), shown)
    assert torch.equal(view.back(shown[0]), shown[0])
    assert torch.equal(view.back(shown[None, None]), shown[None, None])
    flip = build("flip_crop", channels=1, least_area=0.999)
    for key in range(40):
        view = steps.view((37, 41), flip, key)
        if view.geometry.box != (0, 0, 37, 41):
            continue
        mirrored += view.geometry.moved is not None
        torch.testing.assert_close(view.back(view.image(image)), shown, atol=1e-4, rtol=0)
    assert mirrored


@pytest.mark.parametrize("fit", FITS)
def test_back_says_what_was_not_seen(fit: Fit) -> None:
    view = plain((32, 48), fit).view((131, 61))
    rows, cols = np.mgrid[0:131, 0:61] + 0.5
    inside = points_in_input(view.geometry, np.stack([cols, rows], -1).reshape(-1, 2)).reshape(131, 61, 2)
    seen = ((inside >= 0) & (inside <= (48, 32))).all(-1)
    found = view.back(torch.ones(2, 8, 12))
    assert found.shape == (2, 131, 61)
    np.testing.assert_array_equal(torch.isnan(found[0]).numpy(), ~seen)
    assert seen.all() == (fit != "crop")
    assert set(view.back(torch.ones(8, 12), 7.0).unique().tolist()) == (
        {1.0, 7.0} if fit == "crop" else {1.0}
    )


def test_a_coarse_map_covers_the_whole_input() -> None:
    """A ramp over 4 x 6 cells is the same ramp over the original, between the outermost centres."""
    view = plain((32, 48), "squash").view((64, 96))
    ramp = torch.arange(6.0).expand(4, 6)
    found = view.back(ramp)
    expected = torch.from_numpy(np.clip((np.arange(96) + 0.5) / 16 - 0.5, 0, 5)).float().expand(64, 96)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps_in_original(view.geometry, ramp), found)


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in MOVING_TRUTH])
def test_augmentations_that_move_no_truth_are_refused_where_there_is_one(name: str) -> None:
    augment = build(name)
    assert not augment.moves_truth
    view = plain((31, 43), "squash", 3).view((97, 61), augment, 3)
    assert view.image(scene(4, (97, 61))).shape == (3, 31, 43)
    for ask in (
        lambda: view.mask(np.zeros((97, 61), np.uint8), VOID),
        lambda: view.points([[1, 2]]),
        lambda: view.boxes([[1, 2, 3, 4]]),
        lambda: view.back(torch.zeros(31, 43)),
    ):
        with pytest.raises(SettingError, match="none, light, flip_crop, three"):
            ask()


def test_a_view_is_one_of_its_own_picture() -> None:
    view = plain((31, 43), "squash").view((97, 61))
    for wrong in (np.zeros((61, 97, 1), np.uint8), np.zeros((97, 61, 3), np.uint8)):
        with pytest.raises(SettingError, match="97"):
            view.image(wrong)
    with pytest.raises(SettingError, match="97"):
        view.mask(np.zeros((61, 97), np.uint8), VOID)


@pytest.mark.parametrize("shape", [(8, 8), (6, 10)])
def test_turns_move_every_pixel_with_its_truth_and_resample_nothing(shape: tuple[int, int]) -> None:
    steps = Preprocess(shape, "squash", 1.0, (0.0, 0.0), (1.0, 1.0), 2, scale=1.0)
    places = np.arange(shape[0] * shape[1]).reshape(shape)
    image = np.stack([places, -places], -1).astype(np.float32)
    found = set()
    for key in range(60):
        view = steps.view(shape, build("turns", channels=2, raw=True), key)
        shown = view.image(image)
        np.testing.assert_array_equal(shown[0], view.mask(places.astype(np.int32), -1))
        assert torch.equal(shown[1], -shown[0])
        found.add(shown[0].numpy().tobytes())
    assert len(found) == (8 if shape[0] == shape[1] else 4)
