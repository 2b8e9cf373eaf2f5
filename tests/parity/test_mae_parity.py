"""MAE against its official outputs, and against transformers and timm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitrail.core.errors import WeightsError
from vitrail.infer.predictor import Predictor
from vitrail.layers.heads import LinearHead
from vitrail.layers.masked_decoder import MaskedDecoder, patchify, unpatchify
from vitrail.layers.position import grid_sines
from vitrail.models.factory import build, count_macs, count_params, create_encoder
from vitrail.models.mae import MAE, MAEConfig
from vitrail.models.names import our_name
from vitrail.runs.published import published_model
from vitrail.weights import checkpoints
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import Pretrained, from_path
from vitrail.weights.rules import load, save
from vitrail.weights.tables import mae as tables

GOLDEN = MAEConfig(image=64, width=96, depth=3, heads=4, decoder=(64, 2, 4))


class Pair(NamedTuple):
    """An encoder and the decoder beside it."""

    encoder: MAE
    decoder: MaskedDecoder


@pytest.mark.parametrize(("width", "side"), [(64, 4), (96, 7), (128, 3)])
def test_sines(shared, width, side):
    golden = load_file(shared("goldens/mae_sincos.io.safetensors"))[f"sincos_{width}_{side}"]
    ours = grid_sines(width, (side, side))
    torch.testing.assert_close(ours, golden[1:], rtol=0, atol=1e-6)
    assert golden[0].eq(0).all()


def paired(config: MAEConfig) -> Pair:
    encoder = build(config).eval()
    decoder = encoder.own_head("pretrain", 0)
    assert isinstance(encoder, MAE)
    assert isinstance(decoder, MaskedDecoder)
    return Pair(encoder, decoder.eval())


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@torch.no_grad()
def test_official_pretraining(shared):
    source = load_file(shared("goldens/mae_pretrain.safetensors"))
    golden = load_file(shared("goldens/mae_pretrain.io.safetensors"))
    ours = paired(GOLDEN)
    loaded = load(tables.OFFICIAL, source, shapes(ours.encoder), head=shapes(ours.decoder))
    ours.encoder.load_state_dict(loaded.encoder)
    ours.decoder.load_state_dict(loaded.head)
    kept = golden["noise"].argsort(1)[:, :4]
    features = ours.encoder(golden["input"], given={"kept": kept})
    close(features.tokens.x, golden["latent"])
    said = ours.decoder(features)["patches"]
    close(said, golden["pred"])
    pixels = patchify(golden["input"], 16)
    close(pixels, golden["patchified"], 0)
    assert torch.equal(unpatchify(pixels, (4, 4), 3), golden["input"])
    hidden = torch.ones(2, 16).scatter(1, kept, 0)
    assert torch.equal(hidden, golden["mask"])
    loss = (((said - pixels) ** 2).mean(2) * hidden).sum() / hidden.sum()
    close(loss, golden["loss"], 1e-5)
    var, mean = torch.var_mean(pixels, 2, keepdim=True)
    loss = (((said - (pixels - mean) / (var + 1e-6).sqrt()) ** 2).mean(2) * hidden).sum() / hidden.sum()
    close(loss, golden["loss_norm_pix"], 1e-5)
    back = save(tables.OFFICIAL, loaded.encoder, loaded.head)
    assert back.keys() == source.keys() - {tables.PLACES}
    assert all(torch.equal(back[key], source[key]) for key in back)


@torch.no_grad()
def test_official_encoder_of_all_patches(shared):
    source = load_file(shared("goldens/mae_pretrain.safetensors"))
    golden = load_file(shared("goldens/mae_pretrain.io.safetensors"))
    encoder = paired(GOLDEN).encoder
    encoder.load_state_dict(load(tables.ENCODER, source, shapes(encoder)).encoder)
    order = golden["ids_restore_mask0"].argsort(1)  # the official code shuffles even where nothing is masked
    shuffled = encoder(golden["input"], given={"kept": order}).tokens
    close(shuffled.x, golden["latent_mask0"])
    close(shuffled.map(), encoder(golden["input"]).tokens.map())


@torch.no_grad()
def test_official_classifier(shared):
    source = load_file(shared("goldens/mae_finetune_gap.safetensors"))
    golden = load_file(shared("goldens/mae_finetune_gap.io.safetensors"))
    encoder = build(MAEConfig(image=64, width=96, depth=3, heads=4, pooled=True)).eval()
    head = LinearHead(encoder.spec, 10)
    loaded = load(tables.ENCODER, source, shapes(encoder))
    encoder.load_state_dict(loaded.encoder)
    head.load_state_dict(loaded.head)
    features = encoder(golden["input"])
    close(head.vectors(features), golden["features"])
    close(head(features)["logits"], golden["logits"])
    back = save(tables.ENCODER, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)


def close(ours: Tensor, theirs: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@torch.no_grad()
def test_the_authors_file_of_both_opens_as_a_network_for_pretraining(shared, tmp_path: Path):
    source = load_file(shared("goldens/mae_pretrain.safetensors"))
    golden = load_file(shared("goldens/mae_pretrain.io.safetensors"))
    torch.save({"model": source, "epoch": 800}, tmp_path / "mae_visualize_vit_small.pth")
    found = from_path(tmp_path / "mae_visualize_vit_small.pth", network={"heads": 4})
    assert (found.config, found.task, found.settings) == (GOLDEN, "pretrain", {"normalise": False})
    assert [line for line in found.assumed if "4 heads of its decoder" in line or "plain pixels" in line]
    features = found.build()(golden["input"], given={"kept": golden["noise"].argsort(1)[:, :4]})
    close(decoder_of(found)(features)["patches"], golden["pred"])
    back = convert(tmp_path / "mae_visualize_vit_small.pth", tmp_path / "a.safetensors", to="official",
                   network={"heads": 4, "decoder_heads": 4})  # fmt: skip
    assert not any("does not say" in line for line in back.assumed)
    saved = load_file(tmp_path / "a.safetensors")
    assert saved.keys() == source.keys()
    assert all(torch.equal(saved[key], source[key]) for key in source if key != tables.PLACES)
    close(saved[tables.PLACES], source[tables.PLACES], 1e-6)
    again = from_path(tmp_path / "a.safetensors")
    assert (again.config, again.settings) == (GOLDEN, {"normalise": False})
    assert not any("decoder" in line for line in again.assumed)


def test_the_authors_file_of_both_is_a_model_file(shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    golden = load_file(shared("goldens/mae_pretrain.io.safetensors"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = shared("goldens/mae_pretrain.safetensors")
    convert(path, tmp_path / "a.safetensors", to="official", network={"heads": 4})
    opened = Predictor(published_model(str(tmp_path / "a.safetensors")).path, "cpu")
    assert (opened.task.name, opened.task.settings.normalise) == ("pretrain", True)
    kept = golden["noise"].argsort(1)[:, :4]
    with torch.no_grad():
        close(opened.network({"images": golden["input"], "kept": kept})["patches"], golden["pred"])


def test_the_authors_encoder_is_known_by_its_positions(shared, tmp_path: Path):
    source = load_file(shared("goldens/mae_pretrain.safetensors"))
    encoder = {key: t for key, t in source.items() if "decoder" not in key and key != "mask_token"}
    torch.save({"model": encoder}, tmp_path / "a.pth")
    found = from_path(tmp_path / "a.pth", network={"heads": 4})
    assert (found.config.family, found.task, found.config.size, found.assumed) == (
        "mae",
        "classify",
        (64, 64),
        (),
    )
    assert found.preprocessing is not None
    assert (found.preprocessing.fit, found.preprocessing.crop_fraction) == ("crop", 0.875)
    assert from_path(tmp_path / "a.pth", "vit", {"heads": 4}).config.family == "vit"
    torch.save({"model": {**encoder, "pos_embed": encoder["pos_embed"] + 0.1}}, tmp_path / "b.pth")
    assert from_path(tmp_path / "b.pth", network={"heads": 4}).config.family == "vit"
    assert from_path(tmp_path / "b.pth", "mae", {"heads": 4}).config.family == "mae"


def test_a_decoder_that_is_not_ours_is_left_aside_and_named(shared, tmp_path: Path):
    source = load_file(shared("goldens/mae_pretrain.safetensors"))
    save_file({**source, tables.PLACES: source[tables.PLACES] + 1}, tmp_path / "a.safetensors")
    found = from_path(tmp_path / "a.safetensors", network={"heads": 4})
    assert (found.task, found.head) == ("classify", {})
    assert any("not sines" in line for line in found.assumed)
    thin = {key: t[:, :40] if key.endswith("fc2.weight") else t[:40] if "mlp.fc1" in key else t
            for key, t in source.items() if "decoder" in key}  # fmt: skip
    save_file({k: t.contiguous() for k, t in (source | thin).items()}, tmp_path / "a.safetensors")
    assert any(
        "MLPs of 40" in line for line in from_path(tmp_path / "a.safetensors", network={"heads": 4}).assumed
    )
    odd = {key: t for key, t in source.items() if not key.startswith("decoder_blocks.1.")}
    save_file(odd, tmp_path / "a.safetensors")  # no preset has a decoder of one block
    with pytest.raises(
        WeightsError, match=r"--network decoder_heads=N, or take the encoder alone: --model vit"
    ):
        from_path(tmp_path / "a.safetensors", network={"heads": 4})
    del odd["decoder_pred.bias"]
    save_file(odd, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"decoder_pred\.bias missing"):
        from_path(tmp_path / "a.safetensors", network={"heads": 4, "decoder_heads": 4})


@torch.no_grad()
def test_the_authors_classifier_answers(shared, tmp_path: Path):
    golden = load_file(shared("goldens/mae_finetune_gap.io.safetensors"))
    path = shared("goldens/mae_finetune_gap.safetensors")
    found = from_path(path, network={"heads": 4})
    assert (found.config.pooled, found.pool) == (True, None)
    close(answers(found, golden["input"]), golden["logits"])
    for layout in ("official", "timm"):
        convert(path, tmp_path / "a.safetensors", to=layout, network={"heads": 4})
        saved, source = load_file(tmp_path / "a.safetensors"), load_file(path)
        assert saved.keys() == source.keys()
        assert all(torch.equal(saved[key], source[key]) for key in source)
    theirs = timm.models.VisionTransformer(img_size=64, embed_dim=96, depth=3, num_heads=4, num_classes=10,
                                           global_pool="avg")  # fmt: skip
    theirs.load_state_dict(saved)
    close(theirs.eval()(golden["input"]), golden["logits"])
    with pytest.raises(WeightsError, match="does not support this mae"):
        convert(path, tmp_path / "a.safetensors", to="huggingface", network={"heads": 4})


@torch.no_grad()
def test_the_authors_probe_answers(shared, tmp_path: Path):
    source = load_file(shared("goldens/mae_pretrain.safetensors"))
    golden = load_file(shared("goldens/mae_pretrain.io.safetensors"))
    encoder = {key: t for key, t in source.items() if "decoder" not in key and key != "mask_token"}
    torch.manual_seed(3)
    probe = nn.Sequential(nn.BatchNorm1d(96, affine=False, eps=1e-6), nn.Linear(96, 10)).train()
    probe(3 * torch.randn(50, 96) + 1)
    head = {f"head.{key}": t for key, t in probe.eval().state_dict().items()}
    torch.save({"model": {**encoder, **head}}, tmp_path / "a.pth")
    found = from_path(tmp_path / "a.pth", network={"heads": 4})
    assert found.pool == "cls"
    assert any("batch norm" in line for line in found.assumed)
    tokens = found.build()(golden["input"]).tokens.x
    close(answers(found, golden["input"]), probe(tokens[:, 0]), 1e-5)


HUB = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 80, "image_size": 32,
    "patch_size": 8, "decoder_hidden_size": 40, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 5,
    "decoder_intermediate_size": 160, "norm_pix_loss": True,
}  # fmt: skip


def of_hub(shaken: Callable[[nn.Module], nn.Module], **more: Any) -> transformers.ViTMAEForPreTraining:
    theirs = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**HUB | more))
    shaken(theirs)
    with torch.no_grad():
        for table in (theirs.vit.embeddings.position_embeddings, theirs.decoder.decoder_pos_embed):
            table.zero_()[:, 1:] = grid_sines(table.shape[2], (4, 4))
    return theirs


@torch.no_grad()
def test_transformers_both_ways(shaken, tmp_path: Path):
    theirs = of_hub(shaken)
    theirs.save_pretrained(tmp_path / "theirs")
    found = from_path(tmp_path / "theirs")
    assert (found.config.decoder, found.config.norm_eps, found.assumed) == ((40, 2, 5), 1e-12, ())
    assert (found.task, found.settings) == ("pretrain", {"normalise": True, "mask": 0.75})
    draw = torch.Generator().manual_seed(3)
    images, noise = torch.randn(2, 3, 32, 32, generator=draw), torch.rand(2, 16, generator=draw)
    wanted = theirs(images, noise=noise)
    features = found.build()(images, given={"kept": noise.argsort(1)[:, :4]})
    close(decoder_of(found)(features)["patches"], wanted.logits)
    convert(tmp_path / "theirs", tmp_path / "model.safetensors", to="huggingface")
    theirs.config.save_pretrained(tmp_path)
    again, loaded = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loaded[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(again(images, noise=noise).logits, wanted.logits, 1e-6)
    assert from_path(tmp_path).config == found.config


@torch.no_grad()
def test_transformers_encoder_both_ways(shaken, tmp_path: Path):
    theirs = of_hub(shaken, mask_ratio=0.0).vit
    theirs.save_pretrained(tmp_path / "theirs")
    found = from_path(tmp_path / "theirs")
    assert (found.config.family, found.task) == ("mae", "classify")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    noise = torch.arange(16.0).expand(2, 16)  # nothing is hidden, and the patches stay in order
    wanted = theirs(images, noise=noise).last_hidden_state
    close(found.build()(images).tokens.x, wanted)
    convert(tmp_path / "theirs", tmp_path / "model.safetensors", to="huggingface")
    theirs.config.save_pretrained(tmp_path)
    again, loaded = transformers.ViTMAEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loaded[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(again(images, noise=noise).last_hidden_state, wanted, 1e-6)


def test_names_of_timm():
    assert our_name("vit_base_patch16_224.mae") == ("mae_b16", 224)
    assert our_name("vit_huge_patch14_224.mae")[0] == "mae_h14"
    assert our_name("vit_base_patch16_224.augreg_in21k")[0] == "vit_b16"
    row = checkpoints.find("vit_base_patch16_224.mae")
    assert row is not None
    assert row.model == "vit_base_patch16_224.mae"
    assert [one.name for one in checkpoints.listed("mae_b16")] == ["vit_base_patch16_224.mae"]
    assert "vit_base_patch16_224.mae" not in [one.name for one in checkpoints.listed("vit_b16")]


@torch.no_grad()
def test_timms_both_ways(shared, tmp_path: Path):
    source = load_file(shared("goldens/mae_pretrain.safetensors"))
    save_file(source, tmp_path / "whole.safetensors")
    said = convert(
        tmp_path / "whole.safetensors", tmp_path / "a.safetensors", to="timm", network={"heads": 4}
    )
    assert any("decoder of its pretraining is left aside" in line for line in said.assumed)
    theirs = timm.models.VisionTransformer(img_size=64, embed_dim=96, depth=3, num_heads=4, num_classes=0)
    theirs.load_state_dict(load_file(tmp_path / "a.safetensors"))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    found = from_path(tmp_path / "a.safetensors")
    assert (found.config.family, found.task) == ("mae", "classify")
    close(found.build()(images).tokens.x, theirs.eval().forward_features(images))


def decoder_of(found: Pretrained) -> nn.Module:
    decoder = found.build().own_head("pretrain", 0)
    assert decoder is not None
    decoder.load_state_dict(dict(found.head))
    return decoder.eval()


def answers(found: Pretrained, images: Tensor) -> Tensor:
    encoder = found.build()
    head = LinearHead(encoder.spec, len(found.head["linear.bias"]), pool=found.pool)
    head.load_state_dict(dict(found.head))
    return head(encoder(images))["logits"]


SIZES = {  # millions of parameters of encoder, decoder and both tables; with 1000 classes; billions of multiply-adds
    "mae_b16": (111.908, 86.568, 17.56),
    "mae_l16": (329.542, 304.327, 61.55),
    "mae_h14": (657.075, 632.046, 167.3),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    with torch.device("meta"):
        encoder = create_encoder(name)
        decoder = encoder.own_head("pretrain", 0)
    assert decoder is not None
    both = count_params(encoder) + count_params(decoder)
    both += (
        encoder.position.table.shape[1] * encoder.config.decoder[0]
    )  # the authors store the decoder's, too
    classifier = count_params(encoder) + 1000 * (encoder.spec.width + 1)
    wanted = SIZES[name]
    assert (round(both / 1e6, 3), round(classifier / 1e6, 3)) == wanted[:2]
    assert count_macs(encoder, 224) / 1e9 == pytest.approx(wanted[2], rel=0.003)
