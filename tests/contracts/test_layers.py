"""The shared layers: attention and its records, drop path, pooling, position grids, imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.layers.block import DropPath
from vitrail.layers.patch_embedding import PatchEmbed
from vitrail.layers.pooling import build_pool
from vitrail.layers.position import GridPosition, RelativeVectors, resize_grid
from vitrail.layers.sdpa import Recorder, TokenIndex, attend
from vitrail.layers.tokens import Features, FeatureSpec, Tokens


def windows() -> TokenIndex:
    """Six tokens in two windows of four places, the last two of which are padding."""
    tokens = torch.tensor([[0, 2, 4, 1], [3, 5, -1, -1]])
    return TokenIndex(tokens, tokens, (6, 6))


def test_a_bias_is_added_before_the_softmax():
    q, k, v = torch.randn(3, 2, 3, 5, 7).unbind()
    bias = torch.randn(3, 5, 5)
    record = Recorder()
    recorded = attend(q, k, v, bias=bias, record=record)
    torch.testing.assert_close(recorded, attend(q, k, v, bias=bias))
    torch.testing.assert_close(record.maps[0].weights, (q @ k.mT / 7**0.5 + bias).softmax(-1))
    assert record.maps[0].size == (5, 5)


def test_windows_fall_into_their_places():
    q, k, v = torch.randn(3, 4, 3, 4, 5).unbind()  # two images, two windows each
    record = Recorder()
    attend(q, k, v, record=record, where=windows)
    seen = record.maps[0]
    dense = seen.dense()
    assert dense.shape == (2, 3, 6, 6)
    assert torch.equal(dense[1, :, 4, 1], seen.weights[2, :, 2, 3])
    assert torch.equal(dense[0, :, 5, 3], seen.weights[1, :, 1, 0])
    assert not dense[:, :, 0, 3].any()  # other window
    r = torch.rand(2, 6)
    torch.testing.assert_close(seen.left_multiply(r), torch.einsum("bq,bqk->bk", r, dense.mean(1)))


def rms(x):
    return x.double().square().mean().sqrt()


@pytest.mark.parametrize(
    ("channels", "patch", "size"), [(3, 16, (48, 80)), (5, 7, (21, 35)), (12, 8, (24, 40)), (7, 1, (3, 5))]
)
def test_patches_are_projected_as_by_the_convolution(channels, patch, size):
    torch.manual_seed(3)
    embed = PatchEmbed(33, patch, channels)
    conv = embed.project
    assert conv.weight.shape == (33, channels, patch, patch)
    images = torch.randn(2, channels, *size, requires_grad=True)
    wanted = torch.nn.functional.conv2d(
        images.double(), conv.weight.double(), conv.bias.double(), stride=patch
    )
    tokens = embed(images)
    assert tokens.grid == tuple(wanted.shape[2:])
    wanted = wanted.flatten(2).mT
    assert rms(tokens.x - wanted) <= 1e-6 * rms(wanted)
    inputs = [images, conv.weight, conv.bias]
    out = torch.randn_like(tokens.x)
    for found, exact in zip(
        torch.autograd.grad(tokens.x, inputs, out),
        torch.autograd.grad(wanted, inputs, out.double()),
        strict=True,
    ):
        assert rms(found - exact) <= 1e-6 * rms(exact)


@pytest.mark.parametrize("channels", [3, 4, 8, 12, 16, 24, 32])
@pytest.mark.parametrize("patch", [4, 8, 14, 16])
def test_patches_are_right_in_bf16(channels, patch):
    """The convolution gives wrong results for 4 to 24 channels on a CPU with AMX (torch 2.15)."""
    torch.manual_seed(3)
    embed, images = PatchEmbed(96, patch, channels), torch.randn(2, channels, 112, 112)
    with torch.no_grad():
        exact = embed(images).x
        with torch.autocast("cpu", torch.bfloat16):
            rounded = embed(images).x
        assert rms(rounded - exact) <= 0.02 * rms(exact)
        assert rms(embed.bfloat16()(images.bfloat16()).x - exact) <= 0.02 * rms(exact)


def test_drop_path_keeps_the_mean():
    torch.manual_seed(3)
    drop = DropPath(0.25)
    x = torch.ones(20_000, 1, 2)
    dropped = drop(x)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 4 / 3]))
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(dropped[..., 0], dropped[..., 1])
    assert torch.equal(drop.eval()(x), x)


def test_pools():
    spec = FeatureSpec(6, strides=(4,), prefix=("reg", "cls"), pool="cls")
    features = Features(Tokens(torch.randn(2, 2 + 15, 6), (3, 5), 2))
    assert torch.equal(build_pool(spec, "cls")(features), features.tokens.x[:, 1])
    torch.testing.assert_close(build_pool(spec, "mean")(features), features.tokens.map().mean((2, 3)))
    assert build_pool(spec, "attention")(features).shape == (2, 6)
    with pytest.raises(SettingError, match="'own'"):
        build_pool(spec, "own")
    with pytest.raises(UnknownNameError, match="'mean'"):
        build_pool(spec, "maen")


def test_positions_are_resized_as_google_does(shared):
    golden = load_file(shared("goldens/vit_flax_posembed_resize.io.safetensors"))
    for side in (12, 5):
        ours = resize_grid(golden["old_7x7"][:, 1:], (7, 7), (side, side), mode="bilinear_corners")
        torch.testing.assert_close(ours, golden[f"new_{side}x{side}"][:, 1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear_corners", "bicubic", "bilinear", "nearest"])
def test_constant_tables_stay_constant(mode):
    table = torch.tensor([1.0, -2.0]).expand(1, 15, 2)
    torch.testing.assert_close(resize_grid(table, (3, 5), (7, 11), mode=mode), table[:, :1].expand(1, 77, 2))
    assert resize_grid(table, (3, 5), (3, 5), mode=mode) is table


def test_rows_and_columns_have_a_half_each():
    position = GridPosition(6, (3, 5))
    added = position(Tokens(torch.zeros(2, 15, 6), (3, 5))).map()  # (b, d, row, col)
    torch.testing.assert_close(added[1, :3, 2, 4], position.rows[0, 2])
    torch.testing.assert_close(added[1, 3:, 2, 4], position.cols[0, 4])
    ends = position(Tokens(torch.zeros(1, 7 * 2, 6), (7, 2))).map()
    torch.testing.assert_close(ends[0, :, 6, 1], torch.cat([position.rows[0, 2], position.cols[0, 4]]))


def test_relative_vectors_by_hand():
    relative = RelativeVectors(4, (3, 5))
    q = torch.randn(2, 3, 1 + 15, 4)
    added = relative(q, Tokens(torch.zeros(2, 16, 12), (3, 5), prefix=1))
    assert not added[:, :, 0].any()
    assert not added[:, :, :, 0].any()
    table = relative.table.view(5, 9, 4)
    query, key = (2, 1), (0, 4)  # two rows up, three columns to the right
    vector = table[key[0] - query[0] + 2, key[1] - query[1] + 4]
    expected = q[1, 2, 1 + 2 * 5 + 1] @ vector / 2
    torch.testing.assert_close(added[1, 2, 1 + 2 * 5 + 1, 1 + 4], expected)


def test_layers_and_models_need_torch_alone():
    heavy = "timm torchvision transformers pydantic sklearn PIL"
    code = (
        "import sys, vitrail.models.factory, vitrail.models.vit, vitrail.layers.heads\n"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
