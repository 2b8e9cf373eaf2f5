"""WetMapFormer against its official outputs, through the reader of .h5 files; its attention, windows, sizes, files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vitrail.core.errors import SettingError, WeightsError
from vitrail.layers.heads import LinearHead
from vitrail.layers.neighbourhood_attention import NeighbourhoodAttention
from vitrail.layers.padded_windows import Padding, convolve_windows, tap_products
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Tokens
from vitrail.models.factory import build
from vitrail.models.wetmapformer import PRESETS, WetMapFormerConfig
from vitrail.weights import keras_files
from vitrail.weights.convert import convert
from vitrail.weights.preprocessing import published_preprocess
from vitrail.weights.pretrained import from_path
from vitrail.weights.rules import save
from vitrail.weights.tables import keras

h5py = pytest.importorskip("h5py", reason="Keras' files need the extra raster")

SMALL = WetMapFormerConfig(channels=5, widths=(12, 22), depths=(2, 1), head_dim=11, hidden=2)
TOLERANCE = 5e-5


def write_h5(path, tensors):
    """Write tensors, which are named layer/weight, in the layout of Keras' save_weights; mean and others lie alone."""
    groups: dict[str, dict] = {}
    for name, tensor in tensors.items():
        groups.setdefault(name.partition("/")[0] if "/" in name else "data_augmentation", {})[name] = tensor
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in groups]
        for layer, weights in groups.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in weights]
            for name, tensor in weights.items():
                group.create_dataset(f"{name}:0", data=np.asarray(tensor))
    return path


def read_h5(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, part: found.update({name: part[...]} if isinstance(part, h5py.Dataset) else {})
        )
        return found, list(file.attrs["layer_names"])


def golden(shared, tmp_path, name):
    """Return a golden's file in Keras' layout, its input and outputs, and what it says."""
    tensors = load_file(shared(f"goldens/{name}.safetensors"))
    stated = json.loads(shared(f"goldens/{name}.json").read_text("utf-8"))
    weights = {key: tensors.get(key, torch.zeros(shape)).numpy() for key, shape in stated["weights_in_order"]}
    assert tensors.keys() <= weights.keys()
    path = write_h5(tmp_path / f"{name}.h5", weights)
    return path, load_file(shared(f"goldens/{name}.io.safetensors")), stated


def taps_of(encoder, images):
    """Return what the parts of a network give, by the names of Keras' layers."""
    taps: dict[str, torch.Tensor] = {}

    def keep(name, module):
        module.register_forward_hook(lambda _, given, out: taps.update({name: out}))

    extractor = encoder.extractor
    keep("separable_conv2d", extractor.first)
    keep("separable_conv2d_1", extractor.second)
    keep("conv2d_transpose", extractor.decode1)
    keep("batch_normalization_1", extractor.norm1)
    keep("conv2d_transpose_1", extractor.decode2)
    keep("batch_normalization_2", extractor.norm2)
    keep("add_1", extractor)
    keep("layer_normalization", encoder.embeds[0])
    keep("layer_normalization_1", encoder.embeds[1])
    ends = iter((4, 7) if encoder.config.as_published else (4, 7, 10, 13))
    for block in (*encoder.stages[0], *encoder.stages[1]):
        keep(f"add_{next(ends)}", block)
    encoder(images)
    return {name: tap.map() if isinstance(tap, Tokens) else tap for name, tap in taps.items()}


@pytest.mark.parametrize("name", ["wetmapformer_asrun", "wetmapformer_fixed"])
@torch.no_grad()
def test_official_outputs(shared, tmp_path, name):
    path, io, stated = golden(shared, tmp_path, name)
    found = from_path(path)
    assert found.config.as_published == (name == "wetmapformer_asrun")
    encoder, head = found.build(), LinearHead(found.build().spec, 7).eval()
    head.load_state_dict(found.head)
    images = io["input"].permute(0, 3, 1, 2)
    if found.preprocessing is None:  # this golden has the statistics in its code, not among its weights
        mean, variance = (
            torch.tensor(stated["config"][f"normalization_{one}"])[:, None, None]
            for one in ("mean", "variance")
        )
        images = (images - mean) / variance.sqrt()
    else:
        steps = published_preprocess(found)
        images = torch.stack([steps.normalise(image) for image in images])
    normalised = io["tap/data_augmentation"].permute(0, 3, 1, 2)
    torch.testing.assert_close(images, normalised, rtol=0, atol=TOLERANCE)
    record = Recorder()
    features = encoder(images, record=record)
    torch.testing.assert_close(head(features)["logits"], io["logits"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(features.tokens.x.mean(1), io["pooled"], rtol=0, atol=TOLERANCE)
    for turn, seen in enumerate(record.maps):
        softmax = io["tap/softmax_1" if turn else "tap/softmax"][:, :, :, 0]  # (b, n, h, k²)
        ours = seen.weights.view(*softmax.shape)
        torch.testing.assert_close(ours, softmax, rtol=0, atol=TOLERANCE)
    compared = 0
    for key, tap in taps_of(encoder, images).items():
        if (theirs := io.get(f"tap/{key}")) is not None:
            # Of values up to 131 the recorded float32 itself is 1.5e-4 from float64, so there the bound is relative.
            bound = max(TOLERANCE, 2e-6 * float(theirs.abs().max()))
            torch.testing.assert_close(tap, theirs.permute(0, 3, 1, 2), rtol=0, atol=bound)
            compared += 1
    assert compared >= 6


def test_the_way_back_is_the_file(shared, tmp_path):
    path, _, _ = golden(shared, tmp_path, "wetmapformer_asrun")
    convert(path, tmp_path / "back.h5", to="keras")
    (theirs, order), (ours, written) = read_h5(path), read_h5(tmp_path / "back.h5")
    assert (ours.keys(), written) == (theirs.keys(), order)
    for name, tensor in theirs.items():
        assert np.array_equal(ours[name], tensor) or name.endswith("count:0")


# Without reference data


def slow(
    attention: NeighbourhoodAttention, x: torch.Tensor
) -> torch.Tensor:  # (row, col, d) -> (row, col, d)
    """Return the attention token by token, as the sheet of the notebook says."""
    k, heads = attention.kernel, attention.heads
    row, col, d = x.shape
    high, wide = max(row, k), max(col, k)
    padded = torch.zeros(high, wide, d)
    padded[:row, :col] = x
    q, key, value = attention.qkv(padded).view(high, wide, 3, heads, -1).unbind(2)
    pattern = [[*range(k // 2), *[k // 2] * (side - k + 1), *range(k // 2 + 1, k)] for side in (high, wide)]
    starts = [r * (2 * k - 1) + c for r in pattern[0] for c in pattern[1]]
    starts.reverse()
    out = torch.zeros(row, col, d)
    for r in range(row):
        for c in range(col):
            top, left = min(max(r - k // 2, 0), high - k), min(max(c - k // 2, 0), wide - k)
            keys = [(i, j) for i in range(k) for j in range(k)]
            scores = torch.stack(
                [
                    (q[r, c] * key[top + i, left + j]).sum(-1) * (d / heads) ** -0.5
                    + attention.table[:, starts[r * wide + c] + i * (2 * k - 1) + j]
                    for i, j in keys
                ]
            )
            weights = scores.softmax(0)
            mixed = sum(
                w[:, None] * value[top + i, left + j] for w, (i, j) in zip(weights, keys, strict=True)
            )
            out[r, c] = attention.out(mixed.flatten())
    return out


@pytest.mark.parametrize(
    ("grid", "kernel"),
    [((5, 7), 3), ((7, 5), 5), ((1, 1), 3), ((2, 7), 3), ((7, 2), 5), ((3, 3), 3), ((2, 3), 1)],
)
@torch.no_grad()
def test_attention_is_that_of_a_plain_loop(shaken, grid, kernel):
    attention = shaken(NeighbourhoodAttention(6, 2, kernel))
    x = torch.randn(2, grid[0] * grid[1], 6, generator=torch.Generator().manual_seed(3))
    fast, record = attention(Tokens(x, grid)), Recorder()
    for image, out in zip(x, fast, strict=True):
        expected = slow(attention, image.view(*grid, 6)).flatten(0, 1)
        torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(attention(Tokens(x, grid), record), fast, rtol=0, atol=2e-6)
    whole = record.maps[0].weights.sum(-1)
    torch.testing.assert_close(whole, torch.ones_like(whole))
    rows = record.maps[0].dense().sum(-1)
    assert (rows <= 1 + 1e-6).all()
    assert bool((rows > 1 - 1e-6).all()) == (min(grid) >= kernel), "only pads are no tokens"


def test_windows_that_have_no_centre_are_refused():
    with pytest.raises(SettingError, match="odd"):
        NeighbourhoodAttention(6, 2, 4)


def test_no_product_of_all_pairs_without_a_recorder():
    """The largest tensor grows with the number of tokens, not with its square."""
    attention, largest = NeighbourhoodAttention(4, 1, 3), 0

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    n = 32 * 32
    with torch.no_grad(), Watched():
        attention(Tokens(torch.randn(1, n, 4), (32, 32)))
    assert largest < n * n / 8


@pytest.mark.parametrize(("stride", "before", "after"), [(1, 1, 1), (2, 0, 1)])
def test_padded_windows_are_convolutions_of_each_window(stride, before, after):
    torch.manual_seed(3)
    maps, kernel, bias = torch.randn(2, 13, 11, 5), torch.randn(7, 5, 3, 3), torch.randn(7)
    size = (8, 6)
    found = convolve_windows(tap_products(maps, kernel), size, Padding(stride, before), bias)
    for top, left in ((0, 0), (2, 5), (5, 3)):
        window = maps[:, top : top + size[0], left : left + size[1]].permute(0, 3, 1, 2)
        padded = torch.nn.functional.pad(window, (before, after, before, after))
        expected = torch.nn.functional.conv2d(padded, kernel, bias, stride=stride)
        torch.testing.assert_close(found[:, top, left].permute(0, 3, 1, 2), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (16, 8)])
@torch.no_grad()
def test_windows_of_a_tile_are_windows_alone(shaken, as_published, size):
    encoder = shaken(build(replace(SMALL, as_published=as_published)))
    images = torch.randn(2, 5, 19, 17, generator=torch.Generator().manual_seed(5))
    found = encoder.sliding(images, size)
    plain = super(type(encoder), encoder).sliding(images, size)
    assert found.tokens.grid == plain.tokens.grid
    assert found.levels == plain.levels == ()
    torch.testing.assert_close(found.tokens.x, plain.tokens.x, rtol=1e-5, atol=1e-5)
    high, wide = 19 - size[0] + 1, 17 - size[1] + 1
    alone = encoder(images[1:, :, 3 : 3 + size[0], 5 : 5 + size[1]]).tokens.x[0]
    torch.testing.assert_close(plain.tokens.x[high * wide + 3 * wide + 5], alone, rtol=1e-5, atol=1e-5)


def test_windows_that_do_not_fit_are_refused():
    encoder = build(SMALL).eval()
    with pytest.raises(SettingError, match="hold no window of 16 x 16"):
        encoder.sliding(torch.zeros(1, 5, 12, 20), (16, 16))
    with pytest.raises(SettingError, match="multiple of 8"):
        encoder.sliding(torch.zeros(1, 5, 12, 20), (9, 8))


def test_windows_in_training_take_their_own_statistics():
    torch.manual_seed(3)
    encoder, images = build(SMALL).train(), torch.randn(1, 5, 11, 12)
    found = encoder.sliding(images, (8, 8)).tokens.x
    windows = images.unfold(2, 8, 1).unfold(3, 8, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    torch.testing.assert_close(found, build_like(encoder)(windows).tokens.x, rtol=1e-4, atol=1e-4)


def build_like(encoder):
    twin = build(encoder.config).train()
    twin.load_state_dict(encoder.state_dict())
    return twin


# Sizes: with the classifier for seven classes, as counted for the notebook and for its parameters by name

SIZES = {
    ("wetmapformer", True): 719_695,
    ("wetmapformer", False): 1_376_783,
    ("wetmapformer_m", True): 1_626_955,
    ("wetmapformer_m", False): 4_123_051,
    ("wetmapformer_l", True): 1_859_527,
}


@pytest.mark.parametrize(("name", "as_published"), SIZES)
def test_sizes(name, as_published):
    with torch.device("meta"):
        encoder = build(replace(PRESETS[name], as_published=as_published))
    held = [tensor for key, tensor in encoder.state_dict().items() if "num_batches" not in key]
    assert sum(map(torch.numel, held)) + 257 * 7 == SIZES[name, as_published]


def test_the_large_one_has_convolutions_alone_as_published():
    with torch.device("meta"):
        published = build(replace(PRESETS["wetmapformer_l"], as_published=True))
        intended = build(PRESETS["wetmapformer_l"])
        by_name = build(replace(PRESETS["wetmapformer_l"], head_dim=0))
    assert (published.spec.attention, published.config.heads) == ("none", 0)
    assert (intended.spec.attention, intended.config.heads) == ("softmax", 1)
    held = [tensor for key, tensor in by_name.state_dict().items() if "num_batches" not in key]
    assert sum(map(torch.numel, held)) + 257 * 7 == 6_851_527


# Files


def tensors_of(shaken, config, classes=3):
    """Return the tensors of a network with noise, as a fresh session of Keras names them, and the network."""
    encoder = shaken(build(config))
    head = shaken(LinearHead(encoder.spec, classes))
    named = save(keras.table(config), encoder.state_dict(), head.state_dict())
    statistics = {
        "mean": torch.arange(config.channels) - 1.5,
        "variance": torch.arange(config.channels) ** 2.0,
    }
    return {**statistics, "count": torch.tensor(9), **named}, encoder, head


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, kernel=5, hidden=3, channels=7),
        replace(SMALL, head_dim=0),
        replace(SMALL, as_published=True),
        replace(SMALL, as_published=True, head_dim=1024),
        replace(SMALL, depths=(1, 3), head_dim=22),
    ],
)
def test_files_state_their_network(shaken, tmp_path, config):
    tensors, encoder, head = tensors_of(shaken, config)
    found = from_path(write_h5(tmp_path / "a.h5", tensors))
    assert found.config == (replace(config, hidden=4) if config.as_published else config)
    assert any("as_published" in line for line in found.assumed) == config.as_published
    built = found.build()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(built.state_dict()[name], tensor), name
    assert torch.equal(found.head["linear.weight"], head.linear.weight)
    steps = published_preprocess(found)
    assert (steps.scale, steps.raw, steps.size) == (1.0, True, (8, 8))
    assert steps.mean[2] == 0.5
    assert steps.std[:3] == (1e-7, 1.0, 2.0)
    convert(tmp_path / "a.h5", tmp_path / "b.h5", to="keras")
    again = from_path(tmp_path / "b.h5")
    assert again.config == found.config
    assert all(torch.equal(again.encoder[name], tensor) for name, tensor in found.encoder.items())
    convert(tmp_path / "a.h5", tmp_path / "c.safetensors")
    own = from_path(tmp_path / "c.safetensors")
    assert own.preprocessing == found.preprocessing


def test_counters_that_run_on_are_matched_by_order(shaken, tmp_path):
    """A second network of a session has higher numbers; those with ten and more come after those below ten."""
    tensors, encoder, _ = tensors_of(shaken, replace(SMALL, depths=(3, 2)))
    run_on = {}
    for name, tensor in reversed(tensors.items()):
        layer, slash, weight = name.partition("/")
        kind, number = keras_files.numbered(layer)
        run_on[f"{kind}_{number + 8}{slash}{weight}" if slash and layer != "predictions" else name] = tensor
    found = from_path(write_h5(tmp_path / "a.h5", run_on))
    assert all(torch.equal(found.encoder[name], t) for name, t in encoder.state_dict().items())


def test_broken_files_are_named(shaken, tmp_path):
    tensors, _, _ = tensors_of(shaken, SMALL)
    path = write_h5(tmp_path / "a.h5", tensors)
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(WeightsError, match=r"cut\.h5 is truncated or damaged"):
        from_path(tmp_path / "cut.h5")
    other = {"conv1_conv/kernel": np.zeros((7, 7, 3, 4)), "conv1_bn/gamma": np.zeros(4)}
    with pytest.raises(WeightsError, match=r"other\.h5: .*another network.*conv1_bn, conv1_conv"):
        from_path(write_h5(tmp_path / "other.h5", other))
    less = {name: t for name, t in tensors.items() if not name.startswith("depthwise_conv2d_2/")}
    with pytest.raises(
        WeightsError, match=r"10 layers depthwise_conv2d .* 11 \(depthwise_conv2d_2 is missing\)"
    ):
        from_path(write_h5(tmp_path / "less.h5", less))
    less = {name: t for name, t in tensors.items() if name != "conv2d_3/bias"}
    with pytest.raises(WeightsError, match="conv2d_3/bias missing"):
        from_path(write_h5(tmp_path / "bias.h5", less))
    with h5py.File(tmp_path / "three.h5", "w") as file:
        file.create_dataset("layers/conv2d/vars/0", data=np.zeros(3))
    with pytest.raises(WeightsError, match="Keras 3"):
        from_path(tmp_path / "three.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(WeightsError, match="without weights"):
        from_path(tmp_path / "empty.h5")
    with pytest.raises(WeightsError, match="does not hold vit_s16"):
        from_path(path, "vit_s16")


def test_a_file_predicts(shaken, tmp_path, monkeypatch):
    from vitrail.runs.published import published_model

    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    tensors, _, _ = tensors_of(shaken, replace(SMALL, as_published=True))
    made = published_model(str(write_h5(tmp_path / "wetlands.h5", tensors)))
    assert made.path.is_file()
    assert any("as_published" in note for note in made.notes)
