"""Patches of another size (FlexiViT, arXiv:2212.08013): against timm, and by what they must not change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from test_encoders import TINY
from timm.layers import resample_patch_embed

from vitrail.core.errors import SettingError
from vitrail.models.factory import build, create_encoder
from vitrail.models.patch_size import can_resize_patches, resize_patches, with_patch

CAN = [
    "vit",
    "vit-without-class-token",
    "vit-positions-of-patches",
    "dinov2",
    "dinov2-registers",
    "deit-distilled",
    "deit3",
    "vit-sines",
    "mae",
    "mae-pooled",
    "clip",
    "rf_detr-one-window",
    "eomt",
    "eomt-last-block",
]
GRID = (3, 5)  # of all of them, in patches of 7


def encoder_of(name):
    config, _ = TINY[name]
    torch.manual_seed(5)
    encoder = build(config).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


def resized(images, height, width):
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True)


@pytest.mark.parametrize("old", [4, 7, 16])
@pytest.mark.parametrize("new", [2, 5, 8, 14, 16, 32])
def test_weights_are_those_of_timm(old, new):
    weight = 0.1 * torch.randn(3, 5, old, old, generator=torch.Generator().manual_seed(old))
    theirs = resample_patch_embed(weight, [new, new], interpolation="bilinear", antialias=True)
    torch.testing.assert_close(resize_patches(weight, new), theirs, rtol=0, atol=1e-5)


def test_a_larger_patch_answers_to_resized_pixels_as_the_old_one():
    draw = torch.Generator().manual_seed(2)
    weight, patch = torch.randn(3, 5, 7, 7, generator=draw), torch.randn(2, 5, 7, 7, generator=draw)
    for side in (7, 8, 11, 14, 28):
        found = torch.einsum("dcij,bcij->bd", resize_patches(weight, side), resized(patch, side, side))
        expected = torch.einsum("dcij,bcij->bd", weight, patch)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_smaller_patch_is_as_near_as_can_be():
    """No other weights have a smaller squared error over patches of independent pixels."""
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(1, 1, 8, 8, generator=draw).double()
    pixels = torch.eye(64).double().view(64, 1, 8, 8)  # their mean is over independent pixels
    small = resized(pixels, 5, 5).flatten(1)

    def error(tried):
        return float((pixels.flatten(1) @ weight.flatten() - small @ tried.flatten()).square().sum())

    best = resize_patches(weight, 5)
    for _ in range(20):
        step = 1e-3 * torch.randn(best.shape, generator=draw).double()
        assert error(best + step) > error(best)


@pytest.mark.parametrize("name", CAN)
def test_the_same_patch_is_the_same_network(name):
    encoder = encoder_of(name)
    images = torch.randn(2, 5, *encoder.image_size)
    same = with_patch(encoder, encoder.image_size, 7)
    assert torch.equal(same(images).tokens.x, encoder(images).tokens.x)
    smaller = with_patch(encoder, (14, 28), 7)  # the table is resized once, and not in each pass
    assert torch.equal(smaller(images[..., :14, :28]).tokens.x, encoder(images[..., :14, :28]).tokens.x)


@pytest.mark.parametrize("name", CAN)
def test_larger_patches_of_a_larger_image_are_the_same_tokens(name):
    encoder = encoder_of(name)
    images = torch.randn(2, 5, *encoder.image_size)
    patches = rearrange(images, "b c (row ph) (col pw) -> (b row col) c ph pw", ph=7, pw=7)
    wide = rearrange(
        resized(patches, 14, 14), "(b row col) c ph pw -> b c (row ph) (col pw)", row=3, col=5
    )  # each patch for itself
    twin = with_patch(encoder, (42, 70), 14)
    assert twin.spec.strides == (14,)
    found, expected = twin(wide), encoder(images)
    assert found.tokens.grid == expected.tokens.grid == GRID
    torch.testing.assert_close(found.tokens.x, expected.tokens.x, rtol=0, atol=1e-4)
    # Of an image that is resized as a whole only pixels at the borders of patches differ.
    smooth = resized(torch.randn(2, 5, 3, 5), *encoder.image_size)
    near, plain = twin(resized(smooth, 42, 70)).tokens.x, encoder(smooth).tokens.x
    assert F.cosine_similarity(near.flatten(1), plain.flatten(1)).min() > 0.99
    assert (near - plain).abs().mean() < 0.1 * plain.abs().mean()


@pytest.mark.parametrize("name", CAN)
def test_everything_but_patches_and_positions_is_shared(name):
    encoder = encoder_of(name)
    twin = with_patch(encoder, (28, 28), 14)
    assert twin.image_size == (28, 28)
    assert twin(torch.randn(1, 5, 28, 28)).tokens.grid == (2, 2)
    own = {key: tensor.data_ptr() for key, tensor in encoder.state_dict().items()}
    other = {key for key, tensor in twin.state_dict().items() if tensor.data_ptr() != own[key]}
    assert other == {"embed.project.weight", "position.table"}
    assert not twin.training
    assert not any(parameter.requires_grad for parameter in twin.parameters())


def test_who_cannot_says_so():
    for name in TINY:
        encoder = encoder_of(name)
        assert can_resize_patches(encoder) == (name in CAN), name
        if name not in CAN:
            with pytest.raises(SettingError, match="cannot be resized"):
                with_patch(encoder, encoder.image_size, 14)
    with pytest.raises(SettingError, match=r"do not tile 21 x 35 pixels\. Use 24 x 32, the nearest size"):
        with_patch(encoder_of("vit"), (21, 35), 8)


def test_a_stride_goes_with_a_stated_side_of_patches():
    encoder = create_encoder(
        "vit_ti16", image=(32, 32), stride=4, settings={"patch": 8, "width": 24, "heads": 3}
    )
    assert encoder(torch.zeros(1, 3, 32, 32)).tokens.grid == (7, 7)
    with pytest.raises(SettingError, match="both state the stride"):
        create_encoder("vit_ti16", image=(32, 32), stride=4, settings={"patch": [8, 4]})
    with pytest.raises(SettingError, match="takes no --stride"):
        create_encoder("swin_t", stride=2, settings={"patch": 4})
