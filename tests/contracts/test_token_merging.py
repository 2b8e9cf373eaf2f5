"""Merged tokens against a plain restatement of ToMe (arXiv:2210.09461), and what is recorded of them."""

from __future__ import annotations

from math import log

import pytest
import torch
import torch.nn.functional as F
from test_encoders import TINY

from vitrail.core.errors import SettingError
from vitrail.layers.elastic import can_merge, set_keep, set_merge
from vitrail.layers.gradient_checkpointing import set_checkpointing
from vitrail.layers.sdpa import AttentionMap, Recorder, TokenIndex
from vitrail.layers.tokens import Tokens
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.factory import build
from vitrail.models.swin import SwinConfig
from vitrail.models.vit import ViTConfig
from vitrail.runs.network import build_network, build_task
from vitrail.tasks.detect.task import Detect

SMALL = {"image": (28, 35), "patch": 7, "channels": 5, "width": 24, "depth": 4, "heads": 3}
ODD = {**SMALL, "image": (21, 35)}

MERGING = {
    "class-token": ViTConfig(**SMALL),
    "odd-number-of-patches": ViTConfig(**ODD),
    "no-class-token": ViTConfig(**ODD, prefix=()),
    "distillation-token": DeiTConfig(**SMALL, prefix=("cls", "dist")),
    "distillation-token-odd": DeiTConfig(**ODD, prefix=("cls", "dist")),
    "registers": DinoV2Config(**ODD, registers=4),
}


def encoder_of(config, seed=5):
    torch.manual_seed(seed)
    encoder = build(config).eval().requires_grad_(False)
    for (
        parameter
    ) in encoder.parameters():  # some parts start at zero, which would hide what stands before them
        parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def images_for(config, count=2):
    shape = build(config).spec.shape(config.size)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=MERGING)
def case(request):
    config = MERGING[request.param]
    return encoder_of(config), images_for(config)


# The paper, token by token


class Token:
    """A vector, how many patches it stands for, and which; prefix tokens stand for none."""

    def __init__(self, x, patches=()):
        self.x, self.patches = x, list(patches)

    @property
    def size(self):
        return max(1, len(self.patches))


def attended(block, tokens):
    """Return x + attention(LN(x)) with softmax(q kᵀ / √e + log s), and the mean of the keys over heads."""
    width, heads = len(tokens[0].x), block.attention.heads
    e = width // heads
    made = [block.attention.qkv(block.norm1(token.x)) for token in tokens]
    mixed = [[] for _ in tokens]
    for head in range(heads):
        q, k, v = ([row[part * width + head * e :][:e] for row in made] for part in range(3))
        for turn, query in enumerate(q):
            scores = [
                float(query @ key) / e**0.5 + log(token.size) for key, token in zip(k, tokens, strict=True)
            ]
            weights = torch.tensor(scores).softmax(0)
            mixed[turn].append(sum(weight * value for weight, value in zip(weights, v, strict=True)))
    branches = [block.scale1(block.attention.out(torch.cat(parts))) for parts in mixed]
    keys = [sum(row[width + head * e :][:e] for head in range(heads)) / heads for row in made]
    return [Token(t.x + b, t.patches) for t, b in zip(tokens, branches, strict=True)], keys


def matched(tokens, keys, prefix, count):
    """Return the tokens after bipartite soft matching (§3): even places are compared with odd ones."""
    a = [i for i in range(prefix, len(tokens)) if i % 2 == 0]
    b = [i for i in range(prefix, len(tokens)) if i % 2 == 1]
    edges = []
    for i in a:
        alike, nearest = max((float(F.cosine_similarity(keys[i], keys[j], 0)), j) for j in b)
        edges.append((alike, i, nearest))
    edges.sort(reverse=True)
    into = {i: j for _, i, j in edges[: min(count, (len(tokens) - prefix) // 2)]}
    after = tokens[:prefix] + [tokens[i] for i in a if i not in into]
    for j in b:
        all_of_it = [tokens[j], *(tokens[i] for i, target in into.items() if target == j)]
        size = sum(one.size for one in all_of_it)
        mean = sum(one.x * one.size for one in all_of_it) / size
        after.append(Token(mean, [patch for one in all_of_it for patch in one.patches]))
    return after


def restated(encoder, image, count):
    """Return the tokens of one image with `count` pairs merged in each block, one for every patch, and their groups."""
    start = encoder.start(image[None])
    prefix, patches = start.prefix, start.x.shape[1] - start.prefix
    tokens = [
        Token(x, [] if i < prefix else [i - prefix]) for i, x in enumerate(start.x[0].double().unbind())
    ]
    blocks = list(encoder.double().blocks)
    for turn, block in enumerate(blocks):
        tokens, keys = attended(block, tokens)
        if turn < len(blocks) - 1:
            tokens = matched(tokens, keys, prefix, count)
        fed = block.mlp(Tokens(torch.stack([block.norm2(token.x) for token in tokens])[None]))[0]
        tokens = [Token(t.x + block.scale2(f), t.patches) for t, f in zip(tokens, fed, strict=True)]
    of_patch = {patch: token for token in tokens for patch in token.patches}
    every = [*tokens[:prefix], *(of_patch[patch] for patch in range(patches))]
    return torch.stack([encoder.norm(token.x) for token in every]).float(), [
        t.patches for t in tokens[prefix:]
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_it_is_what_the_paper_says(case, count):
    encoder, images = case
    set_merge(encoder, count)
    found = encoder(images).tokens
    record = Recorder()
    encoder(images, record=record)
    source = record.maps[-1].source[:, found.prefix :]
    for turn, image in enumerate(images):
        expected, groups = restated(encoder.float(), image, count)
        torch.testing.assert_close(found.x[turn], expected, rtol=0, atol=1e-5)
        for group in groups:
            same = (source[turn] == source[turn, group[0]]).nonzero().flatten()
            assert same.tolist() == sorted(group)


def test_half_of_the_patches_is_the_most(case):
    encoder, images = case
    sizes = []
    for count in (1, 7, 10, 1000):
        set_merge(encoder, count)
        record = Recorder()
        encoder(images, record=record)
        sizes.append([one.cols.shape[-1] - one.prefix for one in record.maps])
    whole = sizes[0][0]
    assert sizes[0] == [whole, whole - 1, whole - 2, whole - 3]
    halves = [whole]
    for _ in range(3):
        halves.append(halves[-1] - halves[-1] // 2)
    assert sizes[-1] == halves
    expected, _ = restated(encoder, images[0], 1000)
    torch.testing.assert_close(encoder.float()(images).tokens.x[0], expected, rtol=0, atol=1e-5)


def test_pictures_of_a_batch_do_not_touch_each_other(case):
    encoder, images = case
    set_merge(encoder, 3)
    alone = torch.cat([encoder(image[None]).tokens.x for image in images])
    torch.testing.assert_close(encoder(images).tokens.x, alone, rtol=0, atol=2e-6)


# Off and on

CANNOT = {
    "dit",
    "frames-pyramid",
    "timesformer-divided",
    "timesformer-space",
    "swin",
    "swin-one-window",
    "vvt",
    "vvt-product",
    "wetmapformer",
    "wetmapformer-published",
    "mixer",
    "vit-position-relative",
    "detr",
    "detr-learned",
    "rf_detr",
    "rf_detr-base",
}


@pytest.mark.parametrize("name", TINY)
def test_off_is_the_network_itself(name):
    config, _ = TINY[name]
    encoder, images = encoder_of(config), images_for(config)
    plain = encoder(images).tokens.x
    assert can_merge(encoder) == (name not in CANNOT)
    if name in CANNOT:
        with pytest.raises(SettingError, match="cannot be merged"):
            set_merge(encoder, 1)
    else:
        set_merge(encoder, 2)
        merged = encoder(images).tokens
        assert merged.x.shape == plain.shape
        assert not torch.equal(merged.x, plain)
        assert merged.merged is None
    set_merge(encoder, 0)
    assert torch.equal(encoder(images).tokens.x, plain)


def test_tokens_are_dropped_or_merged_and_not_both():
    encoder = encoder_of(ViTConfig(**SMALL))
    set_merge(encoder, 2)
    with pytest.raises(SettingError, match="not both"):
        set_keep(encoder, 0.5)
    set_merge(encoder, 0)
    set_keep(encoder, 0.5)
    with pytest.raises(SettingError, match="not both"):
        set_merge(encoder, 2)


def test_a_summary_and_levels_are_those_of_all_tokens(case):
    encoder, images = case
    set_merge(encoder, 3)
    whole = encoder(images).tokens
    tapped = encoder.tap(images, (2, 4))
    assert torch.equal(tapped.tokens.x, whole.x)
    assert torch.equal(tapped.levels[1], whole.map())
    assert tapped.levels[0].shape == whole.map().shape
    short = encoder.summarise(images, (2,))
    torch.testing.assert_close(short.levels[0], tapped.levels[0], rtol=0, atol=2e-6)
    count = whole.prefix or whole.x.shape[1]
    torch.testing.assert_close(short.tokens.x, whole.x[:, :count], rtol=0, atol=2e-6)


def test_they_learn_alike_with_checkpointing(case):
    encoder, images = case
    encoder.train().requires_grad_(True)
    set_merge(encoder, 3)

    def gradients():
        loss = encoder(images).tokens.x.square().sum()
        return torch.autograd.grad(loss, list(encoder.parameters()))

    plain = gradients()
    set_checkpointing(encoder, True)
    for a, b in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(a, b)


# What a recorder tells


def recorded(encoder, images):
    record = Recorder()
    tokens = encoder(images, record=record).tokens
    return tokens, record.maps


def test_recording_changes_nothing(case):
    encoder, images = case
    set_merge(encoder, 3)
    tokens, _ = recorded(encoder, images)
    torch.testing.assert_close(tokens.x, encoder(images).tokens.x, rtol=0, atol=2e-6)


def test_a_map_speaks_of_all_tokens(case):
    encoder, images = case
    set_merge(encoder, 3)
    tokens, maps = recorded(encoder, images)
    n = tokens.x.shape[1]
    draw = torch.Generator().manual_seed(3)
    vector = torch.rand(len(images), n, generator=draw)
    for one in maps:
        dense = one.dense()
        assert dense.shape == (len(images), 3, n, n)
        torch.testing.assert_close(dense.sum(-1), torch.ones(len(images), 3, n))
        mean = dense.mean(1)
        torch.testing.assert_close(one.right_multiply(vector), (mean @ vector[..., None])[..., 0])
        # Rows are pulled back through tokens: what a patch asks is asked by its whole token.
        torch.testing.assert_close(one.left_multiply(vector), (vector[:, None] @ mean)[:, 0])
    assert maps[0].source is None
    assert all(one.source is not None for one in maps[1:])


@pytest.mark.parametrize("step", [1, 4, 100])
def test_pieces_are_rows_of_the_whole(case, step):
    encoder, images = case
    set_merge(encoder, 3)
    _, maps = recorded(encoder, images[:1])
    for one in maps:
        dense, seen = one.dense()[0], []
        for first in range(0, one.weights.shape[2], step):
            asked = slice(first, first + step)
            piece = one._replace(weights=one.weights[:, :, asked], rows=one.rows[..., asked])
            wide = piece.unmerged()
            rows = wide.rows.flatten()
            assert wide.source is None
            torch.testing.assert_close(wide.weights[0], dense[:, rows][:, :, wide.cols.flatten()])
            seen += rows.tolist()
        assert sorted(seen) == [*range(dense.shape[-1])]


def test_merged_patches_share_values_evenly():
    source = torch.tensor([[0, 1, 2, 1, 1]])
    here = torch.arange(3)[None]
    weights = torch.tensor([[[[0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.0, 0.9, 0.1]]]])
    one = AttentionMap(weights, *TokenIndex(here, here, (5, 5), source))
    assert one.evened(torch.tensor([[1.0, 2.0, 3.0, 4.0, 6.0]])).tolist() == [[1, 4, 3, 4, 4]]
    torch.testing.assert_close(one.dense()[0, 0, 0], torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2]))
    torch.testing.assert_close(one.dense()[0, 0, 1], one.dense()[0, 0, 4])


@pytest.mark.parametrize("count", [3, 12])
def test_flat_areas_merge_within_themselves(count):
    """Two flat halves: patches of equal content are most alike, so no token stands for patches of both."""
    config = ViTConfig(image=(28, 42), patch=7, width=24, depth=4, heads=3, position="none")
    encoder = encoder_of(config)
    image = torch.full((1, 3, 28, 42), -1.0)
    image[..., 21:] = torch.tensor([2.0, 0.0, 1.0]).view(3, 1, 1)
    right = torch.arange(24) % 6 >= 3
    set_merge(encoder, count)
    tokens, maps = recorded(encoder, image)
    last = maps[-1]
    source = last.source[0, 1:]
    assert len(set(source.tolist())) == (15 if count == 3 else 3)
    dense = last.dense()[0]
    for token in set(source.tolist()):
        group = (source == token).nonzero().flatten()
        assert len(set(right[group].tolist())) == 1
        assert torch.equal(dense[:, :, 1 + group], dense[:, :, 1 + group[:1]].expand(-1, -1, len(group)))
        assert torch.equal(dense[:, 1 + group], dense[:, 1 + group[:1]].expand(-1, len(group), -1))
    plain = encoder_of(config)(image).tokens.x  # equal tokens may be merged at no loss
    torch.testing.assert_close(tokens.x, plain, rtol=0, atol=1e-5)


# Heads


@pytest.mark.parametrize("settings", [{"head": "linear"}, {"width": 32}], ids=["linear", "pixels"])
def test_maps_of_segmentation_stay_on_the_full_grid(settings):
    task = build_task("segment", ["sky", "road", "tree"], settings)
    torch.manual_seed(0)
    network = build_network(build(ViTConfig(**{**SMALL, "channels": 3})), task).eval().requires_grad_(False)
    inputs = {"images": torch.randn(2, 3, 28, 35)}
    plain = network(inputs)["map"]
    set_merge(network, 4)
    merged = network(inputs)["map"]
    assert merged.shape == plain.shape
    assert merged.isfinite().all()
    assert not torch.equal(merged, plain)
    if settings.get("head") == "linear":
        _, maps = recorded(network.encoder, inputs["images"])
        for image, source in zip(merged, maps[-1].source[:, 1:], strict=True):
            flat = image.flatten(1)
            for token in set(source.tolist()):
                same = flat[:, source == token]
                assert torch.equal(same, same[:, :1].expand_as(same))
    set_merge(network, 0)
    assert torch.equal(network(inputs)["map"], plain)


def test_boxes_are_found_on_merged_maps():
    task = Detect(["car", "tree"], {"width": 32, "queries": 5})
    torch.manual_seed(0)
    network = build_network(build(ViTConfig(**{**SMALL, "channels": 3})), task).eval().requires_grad_(False)
    inputs = {"images": torch.randn(2, 3, 28, 35)}
    plain = network(inputs)
    set_merge(network, 4)
    merged = network(inputs)
    assert {name: out.shape for name, out in merged.items()} == {n: out.shape for n, out in plain.items()}
    assert all(out.isfinite().all() for out in merged.values())
    assert merged["proposals"].shape == (2, 4 * 5)
    pyramid = build(SwinConfig((48, 72), 2, width=14, depths=(2, 2), heads=(1, 2), window=3))
    with pytest.raises(SettingError, match="cannot be merged"):
        set_merge(build_network(pyramid, task), 4)
