"""Networks for images over the frames of clips, against the same network on every frame alone."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.layers.elastic import set_keep, set_merge
from vitrail.layers.pooling import Pool
from vitrail.layers.sdpa import Recorder
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.factory import build, create_encoder, describe
from vitrail.models.frames import FrameEncoder, over_frames
from vitrail.models.swin import SwinConfig
from vitrail.models.vit import ViTConfig
from vitrail.weights.pretrained import from_path

FRAMES = 3
VIT = ViTConfig((14, 21), 7, 3, width=24, depth=4, heads=3)
DINO = DinoV2Config((14, 21), 7, 3, width=24, depth=4, heads=3, registers=2)
SWIN = SwinConfig((24, 36), 2, 3, width=14, depths=(2, 1), heads=(1, 2), window=3)
NETWORKS = ["vit", "registers", "swin", "resnet10t"]


def images_network(name):
    torch.manual_seed(5)
    config = {"vit": VIT, "registers": DINO, "swin": SWIN}.get(name)
    encoder = create_encoder(name, image=(32, 64)) if config is None else build(config)
    for parameter in encoder.eval().requires_grad_(False).parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


def clips_for(encoder, frames=FRAMES):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, frames, 3, *encoder.image_size, generator=draw)


def alone(encoder, clips):
    """Return the features of every frame, each seen alone: t lists of features of b images."""
    return [encoder(clips[:, turn]) for turn in range(clips.shape[1])]


@pytest.mark.parametrize("kind", [None, "mean", "cls_mean"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_mean_over_time_is_the_mean_of_the_frames_vectors(name, kind):
    images = images_network(name)
    if kind == "cls_mean" and not images.spec.prefix:
        pytest.skip("it has no class token")
    network, clips = over_frames(images, FRAMES), clips_for(images)
    vectors = torch.stack([Pool(images.spec, kind)(one) for one in alone(images, clips)])
    found = Pool(network.spec, kind)(network(clips))
    torch.testing.assert_close(found, vectors.mean(0), rtol=0, atol=2e-6)
    backwards = Pool(network.spec, kind)(network(clips.flip(1)))
    torch.testing.assert_close(backwards, found, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_attention_over_time_reads_the_frames_vectors_and_their_order(name):
    images = images_network(name)
    network, clips = over_frames(images, FRAMES, "attention").eval(), clips_for(images)
    vectors = torch.stack([Pool(images.spec)(one) for one in alone(images, clips)], 1)
    attention = network.over_time.pool
    x = vectors + network.over_time.position
    heads, width = attention.heads, x.shape[-1]
    q = attention.query(attention.probe[0, 0]).view(heads, -1)
    k, v = attention.key_value(x).view(2, FRAMES, 2, heads, -1).unbind(2)
    weights = torch.einsum("he,bthe->bht", q, k).div((width / heads) ** 0.5).softmax(-1)
    mixed = attention.out(torch.einsum("bht,bthe->bhe", weights, v).flatten(1))
    wanted = mixed + attention.mlp.fall(torch.nn.functional.gelu(attention.mlp.rise(attention.norm(mixed))))
    found = network(clips).pooled
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert (network(clips.flip(1)).pooled - found).abs().max() > 1e-4


def test_tokens_lie_in_the_order_time_row_column_behind_the_class_tokens():
    images = images_network("registers")
    network, clips = over_frames(images, FRAMES), clips_for(images)
    tokens, frames = network(clips).tokens, [one.tokens for one in alone(images, clips)]
    assert network.spec.prefix == ("cls",) * 3 + ("reg",) * 6
    assert (tokens.grid, tokens.prefix) == ((FRAMES, 2, 3), 9)
    prefix = torch.stack([one.x[:, :3] for one in frames], 2).flatten(1, 2)
    torch.testing.assert_close(tokens.x[:, :9], prefix, rtol=0, atol=2e-6)
    maps = torch.stack([one.map() for one in frames], 2)
    torch.testing.assert_close(tokens.map(), maps, rtol=0, atol=2e-6)


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_recorded_attention_is_that_of_every_frame_alone(keep):
    images = images_network("registers")
    network, clips = over_frames(images, FRAMES), clips_for(images)
    set_keep(network, keep)
    record, apart = Recorder(), [Recorder() for _ in range(FRAMES)]
    tokens = network(clips, record=record).tokens
    frames = [images(clips[:, turn], record=one).tokens for turn, one in enumerate(apart)]
    n = 3 + 6
    of_frame = [[*range(turn, 9, FRAMES), *range(9 + 6 * turn, 15 + 6 * turn)] for turn in range(FRAMES)]
    assert len(record.maps) == 4
    for layer, one in enumerate(record.maps):
        assert (one.grid, one.prefix) == ((FRAMES, 2, 3), 9)
        dense, wanted = one.dense(), torch.zeros(2, 3, FRAMES * n, FRAMES * n)
        for places, other in zip(of_frame, apart, strict=True):
            at = torch.tensor(places)
            wanted[:, :, at[:, None], at] = other.maps[layer].dense()
        torch.testing.assert_close(dense, wanted, rtol=0, atol=2e-6)
        row = torch.rand(2, FRAMES * n, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(one.left_multiply(row), (row[:, None] @ wanted.mean(1))[:, 0])
    torch.testing.assert_close(tokens.map(), torch.stack([one.map() for one in frames], 2), rtol=0, atol=2e-6)


def test_merged_tokens_answer_but_are_not_recorded():
    images = images_network("vit")
    network, clips = over_frames(images, FRAMES), clips_for(images)
    set_merge(network, 1)
    wanted = torch.stack([one.tokens.map() for one in alone(images, clips)], 2)
    torch.testing.assert_close(network(clips).tokens.map(), wanted, rtol=0, atol=2e-6)
    with pytest.raises(SettingError, match="merged tokens is not recorded over frames"):
        network(clips, record=Recorder())


def test_what_does_not_fit_is_refused():
    network = over_frames(images_network("vit"), FRAMES)
    for wrong in (clips_for(network.inner, 4), clips_for(network.inner)[:, 0]):
        with pytest.raises(SettingError, match=r"clips of 3 frames, \(b, 3, channels, height, width\)"):
            network(wrong)
    with pytest.raises(SettingError, match="at least one frame"):
        create_encoder("vit_digits", frames=0)
    with pytest.raises(UnknownNameError, match="'attention'"):
        create_encoder("vit_digits", frames=4, over_time="attentoin")
    with pytest.raises(SettingError, match="needs the number of frames"):
        create_encoder("vit_digits", over_time="mean")


def test_names_and_settings_are_those_of_the_network_for_images():
    network = create_encoder(
        "vit_digits", image=(16, 24), channels=1, frames=4, settings={"patch": 8, "depth": 2}
    )
    assert isinstance(network, FrameEncoder)
    assert network.spec.frames == 4
    assert network.image_size == network.config.size == (16, 24)
    assert network(torch.zeros(2, 4, 1, 16, 24)).tokens.grid == (4, 2, 3)


def test_a_network_is_folded_for_every_frame():
    torch.manual_seed(5)
    network = create_encoder("repvgg_a0", image=32, frames=2).eval().requires_grad_(False)
    folded, clips = network.folded(), torch.randn(1, 2, 3, 32, 32)
    assert len(list(folded.modules())) < len(list(network.modules()))
    torch.testing.assert_close(folded(clips).pooled, network(clips).pooled, rtol=1e-3, atol=1e-4)
    plain = over_frames(images_network("vit"), FRAMES)
    assert plain.folded() is plain


def own_file(path, encoder, head=None):
    """Write the weights of an encoder as a model file of ours has them."""
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    tensors |= {f"head.{name}": tensor for name, tensor in (head or {}).items()}
    header = {"encoder": describe(encoder), "licence": "CC0-1.0"}
    save_file(tensors, path, metadata={"vitrail": json.dumps(header)})
    return from_path(path)


@pytest.mark.parametrize("over_time", ["mean", "attention"])
def test_weights_of_images_start_a_network_over_frames(tmp_path, over_time):
    images = images_network("vit")
    found = own_file(tmp_path / "images.safetensors", images)
    network = found.for_clips(found.build(), FRAMES, over_time)
    clips = clips_for(images)
    wanted = torch.stack([one.tokens.map() for one in alone(images, clips)], 2)
    torch.testing.assert_close(network(clips).tokens.map(), wanted, rtol=0, atol=2e-6)
    assert found.clips is None
    assert found.for_clips(found.build(), None, None).spec.frames == 0


def test_weights_of_clips_start_clips_and_images(tmp_path):
    trained = over_frames(images_network("vit"), FRAMES, "attention").requires_grad_(False)
    found = own_file(tmp_path / "clips.safetensors", trained, {"linear.bias": torch.zeros(2)})
    assert found.config == VIT
    assert found.clips.frames == FRAMES
    assert set(found.head) == {"linear.bias"}
    assert "clips of 3 frames" in found.assumed[0]
    clips = clips_for(trained.inner)
    same = found.for_clips(found.build(), FRAMES, found.clips.over_time).eval()
    assert torch.equal(same(clips).pooled, trained.eval()(clips).pooled)
    longer = found.for_clips(found.build(), 5, "attention").over_time.position
    torch.testing.assert_close(longer[::2], trained.over_time.position)  # the first, middle and last place
    assert torch.equal(found.build()(clips[:, 0]).tokens.x, trained.inner(clips[:, 0]).tokens.x)
