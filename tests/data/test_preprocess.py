from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pictures import scene
from torch.nn.functional import interpolate
from torchvision.transforms import v2

from vitrail.core.errors import SettingError
from vitrail.data.augment import RECIPES, build
from vitrail.data.preprocess import Fit, Preprocess
from vitrail.data.resize import Interpolation

STEPS = [Preprocess((31, 43), fit) for fit in ("squash", "crop", "pad")]


def test_squash_is_torch_s_antialiased_bicubic_in_float32() -> None:
    image = scene(1, (97, 61))
    shown, geometry = Preprocess((31, 43), "squash").eval(image)
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float()
    plain = interpolate(pixels[None], (31, 43), mode="bicubic", antialias=True)[0] / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (plain - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(shown, expected, atol=2e-6, rtol=0)
    assert geometry.original == (97, 61)
    assert geometry.size == (31, 43)
    assert geometry.box == (0, 0, 97, 61)


@pytest.mark.parametrize("shape", [(97, 61), (61, 97), (375, 500), (224, 224), (30, 500), (8, 8)])
def test_crop_is_deit_s_evaluation(shape: tuple[int, int]) -> None:
    image = scene(2, shape)
    shown, _ = Preprocess((224, 224), "crop", 0.875).eval(image)
    theirs = v2.Compose(
        [
            v2.Resize(int(224 / 0.875), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(224),
            v2.Normalize([255 * m for m in (0.485, 0.456, 0.406)], [255 * s for s in (0.229, 0.224, 0.225)]),
        ]
    )
    torch.testing.assert_close(
        shown, theirs(torch.from_numpy(image.copy()).permute(2, 0, 1).float()), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("fraction", [0.875, 1.0])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(90, 130), (130, 90), (64, 64)])
def test_the_box_says_what_the_input_shows(
    fit: Fit, shape: tuple[int, int], fraction: float, interpolation: Interpolation
) -> None:
    """An image whose colours are its coordinates tells where each input pixel was taken from."""
    rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]]
    image = np.dstack([rows, cols, np.zeros(shape)]).astype(np.uint8)
    steps = Preprocess((32, 48), fit, fraction, (0.0,) * 3, (1.0,) * 3, 3, interpolation)
    shown, geometry = steps.eval(image)
    top, left, bottom, right = geometry.box
    for i, j in [(16, 24), (12, 20), (20, 30)]:
        y = top + (i + 0.5) / 32 * (bottom - top)
        x = left + (j + 0.5) / 48 * (right - left)
        if 4 < y < shape[0] - 4 and 4 < x < shape[1] - 4:
            assert float(shown[0, i, j]) * 255 == pytest.approx(y - 0.5, abs=0.3)
            assert float(shown[1, i, j]) * 255 == pytest.approx(x - 0.5, abs=0.3)
    if fit == "pad" and fraction == 1:
        assert top <= 0 <= shape[0] <= bottom
        assert left <= 0 <= shape[1] <= right


def test_padding_is_the_ground_that_normalises_to_zero() -> None:
    steps = Preprocess((32, 32), "pad")
    shown, _ = steps.eval(np.full((10, 40, 3), 255, np.uint8))
    assert float(shown[:, 0].abs().max()) == 0
    assert float(shown[:, 16].min()) > 2
    trained = steps.train(np.full((10, 40, 3), 255, np.uint8), build("none"), key=1)
    torch.testing.assert_close(trained, shown, atol=1e-5, rtol=0)


def test_without_augmentation_training_sees_what_prediction_sees() -> None:
    for steps in STEPS:
        torch.testing.assert_close(
            steps.train(scene(3), build("none"), 7), steps.eval(scene(3))[0], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_draw_depends_on_its_key_alone(recipe: str, channels: int) -> None:
    steps = Preprocess.for_size((31, 43), channels)
    augment = build(recipe, channels=channels, erasing=0.5)
    image = scene(4, (97, 61), channels)
    torch.manual_seed(1)
    first = [steps.train(image, augment, key) for key in range(5)]
    drawn = torch.rand(3)
    torch.manual_seed(2)
    again = [steps.train(image, augment, key) for key in reversed(range(5))][::-1]
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))  # the global generator did not notice
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
        assert one.shape == (channels, 31, 43)
    assert not torch.equal(first[0], first[1])


def test_a_key_may_be_any_number() -> None:
    steps = STEPS[0]
    for key in (0, -1, 1 << 80):
        assert torch.isfinite(steps.train(scene(5), build("trivial"), key)).all()


def test_five_bands_can_be_cropped_and_flipped_but_not_recoloured() -> None:
    steps = Preprocess((16, 16), "squash", 1.0, (0.5,) * 5, (0.5,) * 5, 5)
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 5), dtype=np.uint8)
    assert steps.train(image, build("flip_crop", channels=5, erasing=0.1), 3).shape == (5, 16, 16)
    with pytest.raises(SettingError, match="flip_crop"):
        build("rand", channels=5)


def test_a_wrong_recipe_names_the_nearest() -> None:
    with pytest.raises(SettingError, match="trivial"):
        build("trivia")


def test_settings_survive_json() -> None:
    for steps in (*STEPS, Preprocess.for_size(32), Preprocess.for_size(224, channels=1)):
        assert Preprocess.from_dict(json.loads(json.dumps(steps.to_dict()))) == steps
    with pytest.raises(SettingError):
        Preprocess.from_dict({"sizes": [1, 2]})


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_header_from_before_means_what_it_meant(fit: Fit) -> None:
    """There was no interpolation but bicubic, and a crop fraction said nothing unless images were cropped."""
    said = {
        "size": [32, 48], "fit": fit, "crop_fraction": 0.8, "mean": [0.5] * 3, "std": [0.5] * 3, "channels": 3,
    }  # fmt: skip
    expected = Preprocess((32, 48), fit, 0.8 if fit == "crop" else 1.0, (0.5,) * 3, (0.5,) * 3, 3, "bicubic")
    assert Preprocess.from_dict(said) == expected


def test_the_crop_fraction_that_nobody_states_is_the_fit_s() -> None:
    assert [steps.crop_fraction for steps in STEPS] == [1.0, 0.875, 1.0]


def test_tiny_inputs_are_squashed_and_photographs_cropped() -> None:
    assert (Preprocess.for_size(32).fit, Preprocess.for_size(224).fit) == ("squash", "crop")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 3)},
        {"crop_fraction": 0.0},
        {"crop_fraction": 1.1},
        {"channels": 2},
        {"std": (0.0, 1.0, 1.0)},
        {"fit": "stretch"},
        {"interpolation": "lanczos"},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        Preprocess(**wrong)  # type: ignore[arg-type]


def test_a_picture_of_other_channels_is_refused() -> None:
    with pytest.raises(SettingError, match="channels=3"):
        STEPS[0].eval(scene(1, channels=1))


def test_restore_undoes_normalise() -> None:
    pixels = torch.rand(3, 5, 7) * 255
    torch.testing.assert_close(STEPS[0].restore(STEPS[0].normalise(pixels)), pixels)
