"""DiT and its diffusion against the official numbers, and against diffusers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vitrail.core.errors import WeightsError
from vitrail.layers.adaptive_norm import NoiseHead
from vitrail.models.dit import DiT, DiTConfig, time_sines
from vitrail.models.factory import build, count_macs, count_params, create_encoder
from vitrail.runs.network import Network
from vitrail.tasks.generate.diffusion import (
    Chain,
    Estimate,
    Predict,
    Sampler,
    even_times,
    guided,
    linear_schedule,
    losses,
    respace,
    sample,
    spaced_times,
)
from vitrail.weights.convert import convert
from vitrail.weights.infer_config import preset_of, with_heads
from vitrail.weights.pretrained import Pretrained, from_path
from vitrail.weights.rules import load, save
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import dit as tables

GOLDEN = DiTConfig(image=8, channels=4, width=96, depth=3, heads=4, classes=10)

Find = Callable[[str], Path]


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def golden_network(shared: Find) -> Network:
    """The official weights, read by the published table; every tensor goes back bit-equal."""
    source = load_file(shared("goldens/dit.safetensors"))
    encoder = build(GOLDEN).eval()
    head = encoder.own_head("generate", 10)
    assert isinstance(encoder, DiT)
    assert isinstance(head, NoiseHead)
    loaded = load(tables.OFFICIAL, source, shapes(encoder), head=shapes(head))
    encoder.load_state_dict(loaded.encoder)
    head.load_state_dict(loaded.head)
    back = save(tables.OFFICIAL, loaded.encoder, loaded.head)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[key], source[key]) for key in source)
    return Network(encoder, head, ("noise", "spread")).eval()


def close(ours: Tensor, theirs: Tensor, atol: float = 5e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@torch.no_grad()
def test_official_outputs(shared: Find):
    network = golden_network(shared)
    golden = load_file(shared("goldens/dit.io.safetensors"))
    inputs = {"images": golden["x"], "time": golden["t"], "label": golden["y"]}
    output = network(inputs)
    close(torch.cat([output["noise"], output["spread"]], 1), golden["out"])
    tokens = network.encode(inputs).tokens
    assert tokens.condition is not None
    close(tokens.condition, golden["c"], 2e-5)
    close(time_sines(golden["t"], 256), golden["t_embedding_256"])
    untrained = build(GOLDEN)
    close(untrained.position.table, network.encoder.position.table, 1e-6)


@torch.no_grad()
def test_untrained_it_predicts_no_noise():
    encoder = create_encoder("dit_digits")
    head = encoder.own_head("generate", 10)
    assert head is not None
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    output = head(encoder(images))
    assert {name: tuple(value.shape) for name, value in output.items()} == {
        "noise": (2, 3, 8, 8),
        "spread": (2, 3, 8, 8),
    }
    assert not any(value.any() for value in output.values())


@torch.no_grad()
def test_without_time_and_label_it_is_an_image_without_noise_of_no_class(shared: Find):
    network = golden_network(shared)
    images = load_file(shared("goldens/dit.io.safetensors"))["x"]
    time, label = torch.zeros(4, dtype=torch.int64), torch.full((4,), 10)
    given = network({"images": images, "time": time, "label": label})
    assert torch.equal(network({"images": images})["noise"], given["noise"])
    other = network({"images": images, "time": time, "label": label - 1})
    assert not torch.equal(other["noise"], given["noise"])


SIZES = {  # millions of parameters with 1000 classes, billions of multiply-adds for 32 x 32 latents of 4 channels
    "dit_s2": (32.96, 6.06),
    "dit_s4": (32.95, 1.41),
    "dit_s8": (33.15, 0.36),
    "dit_b2": (130.5, 23.0),
    "dit_b4": (130.5, 5.56),
    "dit_b8": (130.9, 1.42),
    "dit_l2": (458.1, 80.7),
    "dit_l4": (458.1, 19.7),
    "dit_l8": (458.6, 5.01),
    "dit_xl2": (675.1, 118.6),
    "dit_xl4": (675.1, 29.0),
    "dit_xl8": (675.7, 7.39),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    with torch.device("meta"):
        encoder = create_encoder(name, image=32, channels=4)
        head = encoder.own_head("generate", 1000)
    assert head is not None
    params, macs = SIZES[name]
    assert (count_params(encoder) + count_params(head)) / 1e6 == pytest.approx(params, rel=1e-3)
    assert count_macs(encoder, 32) / 1e9 == pytest.approx(macs, rel=0.02)


def told_by(network: Network, label: Tensor) -> Predict:
    def predict(noisy: Tensor, time: Tensor) -> Estimate:
        output = network({"images": noisy, "time": time, "label": label})
        return Estimate(output["noise"], output["spread"])

    return predict


@torch.no_grad()
def test_official_guidance(shared: Find):
    network = golden_network(shared)
    golden = load_file(shared("goldens/dit.io.safetensors"))
    x, time, label = (golden[f"cfg_{name}"] for name in ("x", "t", "y"))
    predict = guided(told_by(network, label[:2]), told_by(network, label[2:]), 4.0)
    close(torch.cat(predict(x[:2], time[:2]), 1), golden["out_cfg4"][:2], 1e-4)


TABLES = {
    "betas": lambda one: one.betas,
    "alphas_cumprod": lambda one: one.kept,
    "alphas_cumprod_prev": lambda one: one.kept_before,
    "posterior_variance": lambda one: one.posterior_variance,
    "posterior_log_variance_clipped": lambda one: one.posterior_log_variance,
    "posterior_mean_coef1": lambda one: one.of_start,
    "posterior_mean_coef2": lambda one: one.of_noisy,
    "sqrt_alphas_cumprod": lambda one: one.kept.sqrt(),
    "sqrt_one_minus_alphas_cumprod": lambda one: (1 - one.kept).sqrt(),
    "sqrt_recip_alphas_cumprod": lambda one: (1 / one.kept).sqrt(),
    "sqrt_recipm1_alphas_cumprod": lambda one: (1 / one.kept - 1).sqrt(),
}


@pytest.mark.parametrize("name", TABLES)
def test_official_schedule(shared: Find, name: str):
    golden = load_file(shared("goldens/dit_diffusion.io.safetensors"))
    close(TABLES[name](linear_schedule()), golden[f"T1000/{name}"], 1e-12)


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("250", spaced_times(1000, [250])),
        ("50", spaced_times(1000, [50])),
        ("10", spaced_times(1000, [10])),
        ("ddim25", even_times(1000, 25)),
        ("10,20,30", spaced_times(1000, [10, 20, 30])),
    ],
)
def test_official_respacing(shared: Find, name: str, times: list[int]):
    golden = load_file(shared("goldens/dit_diffusion.io.safetensors"))
    few = respace(linear_schedule(), times)
    assert torch.equal(few.times, golden[f"respaced_{name}/timestep_map"])
    for table in ("betas", "posterior_log_variance_clipped"):
        close(TABLES[table](few), golden[f"respaced_{name}/{table}"], 1e-12)


@torch.no_grad()
def test_official_losses(shared: Find):
    golden = load_file(shared("goldens/dit_diffusion.io.safetensors"))
    step, noise, schedule = golden["train_t"], golden["train_noise"], linear_schedule()
    noisy = schedule.noisy(golden["x0"], step, noise)
    close(noisy, golden["q_sample"], 1e-6)
    told = told_by(golden_network(shared), golden["train_y"])(noisy, step)
    found = losses(schedule, told, golden["x0"], step, noise)
    close(found.mse, golden["train/mse"], 1e-4)
    close(found.bound, golden["train/vb"], 1e-4)
    close(found.mse + found.bound, golden["train/loss"], 1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("sampler", "scale"), [("ddpm", 4.0), ("ddim", 1.5)])
def test_official_chains(shared: Find, sampler: Sampler, scale: float):
    network = golden_network(shared)
    golden = load_file(shared("goldens/dit_diffusion.io.safetensors"))
    label = golden["chain_y"]
    predict = guided(told_by(network, label[:2]), told_by(network, label[2:]), scale)
    chain = Chain(respace(linear_schedule(), spaced_times(1000, [10])), sampler)
    wanted, start = golden[f"chain_{sampler}_10"][:, :2], golden["chain_start"][:2]
    noises = golden["chain_noises"][:, :2]
    drawn = iter(noises)
    images = torch.stack(list(sample(predict, chain, start, lambda: next(drawn))))
    # Numbers of random weights grow to 2,000 in a chain; a step from the golden's own state shows each step alone.
    close(images, wanted, 1e-5 * float(wanted.abs().max()))
    for turn, before in enumerate([start, *wanted[:-1]]):
        alone = sample(predict, chain, before, lambda turn=turn: noises[turn], first=10 - turn)
        close(next(alone), wanted[turn], 3e-4)


def answers(found: Pretrained, inputs: dict[str, Tensor]) -> Tensor:
    encoder = found.build()
    head = encoder.own_head("generate", 0)
    assert head is not None
    head.load_state_dict(dict(found.head))
    output = Network(encoder, head.eval(), ("noise", "spread"))(inputs)
    return torch.cat([output["noise"], output["spread"]], 1)


@torch.no_grad()
def test_the_authors_files_open(shared: Find, tmp_path: Path):
    source = load_file(shared("goldens/dit.safetensors"))
    golden = load_file(shared("goldens/dit.io.safetensors"))
    inputs = {"images": golden["x"], "time": golden["t"], "label": golden["y"]}
    torch.save(source, tmp_path / "DiT-S-2-8x8.pt")
    found = from_path(tmp_path / "DiT-S-2-8x8.pt", network={"heads": 4})
    assert (found.config, found.task) == (GOLDEN, "generate")
    assert [line[:25] for line in found.assumed] == ["made for 8 x 8 px, as a s"]
    close(answers(found, inputs), golden["out"])
    with pytest.raises(WeightsError, match=r"how many heads.*--network heads=N"):
        from_path(tmp_path / "DiT-S-2-8x8.pt")
    # A file of train.py: the average is taken, and said.
    other = {name: tensor + 1 for name, tensor in source.items()}
    optimiser = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
    content = {"model": other, "ema": source, "opt": optimiser, "args": argparse.Namespace(model="DiT-S/2")}
    torch.save(content, tmp_path / "0400000.pt")
    found = from_path(tmp_path / "0400000.pt", network={"heads": 4})
    close(answers(found, inputs), golden["out"])
    assert found.assumed[0] == "of ema, model in the file, ema is taken"
    for layout in ("official", "vitrail"):
        convert(tmp_path / "0400000.pt", tmp_path / "a.safetensors", to=layout, network={"heads": 4})
        again = from_path(tmp_path / "a.safetensors")
        assert again.config == GOLDEN
        assert (again.task, again.preprocessing) == ("generate", found.preprocessing)
        close(answers(again, inputs), golden["out"])
    convert(tmp_path / "0400000.pt", tmp_path / "a.safetensors", to="official", network={"heads": 4})
    saved = load_file(tmp_path / "a.safetensors")
    assert saved.keys() == source.keys()
    assert all(torch.equal(saved[key], source[key]) for key in source)
    del source["final_layer.linear.bias"]
    torch.save(source, tmp_path / "b.pt")
    with pytest.raises(WeightsError, match=r"final_layer\.linear\.bias missing"):
        from_path(tmp_path / "b.pt", network={"heads": 4})


def test_the_heads_of_a_published_size_are_known():
    with torch.device("meta"):
        encoder = create_encoder("dit_xl2", image=32, channels=4)
    unsaid = replace(encoder.config, heads=1)
    found = with_heads(unsaid, Said(), "DiT-XL-2-256x256.pt")
    assert found.config == encoder.config
    assert preset_of(found.config) == "dit_xl2"


def of_diffusers(shaken: Callable[[nn.Module], nn.Module], **more: Any) -> Any:
    from diffusers import DiTTransformer2DModel

    theirs = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=3, sample_size=8,
        patch_size=2, num_embeds_ada_norm=5, norm_eps=1e-6, **more,
    )  # fmt: skip
    shaken(theirs)
    first = theirs.transformer_blocks[0].norm1.emb.state_dict()
    for block in theirs.transformer_blocks:
        block.norm1.emb.load_state_dict(first)
    return with_the_authors_frequencies(theirs)


def with_the_authors_frequencies(theirs: Any) -> Any:
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # diffusers has 1
    return theirs.eval()


@torch.no_grad()
def test_diffusers_both_ways(shaken: Callable[[nn.Module], nn.Module], tmp_path: Path):
    theirs = of_diffusers(shaken)
    theirs.save_pretrained(tmp_path / "pipeline" / "transformer")
    names = {str(number): f"kind {number}" for number in range(5)}
    (tmp_path / "pipeline" / "model_index.json").write_text(json.dumps({"id2label": names}))
    draw = torch.Generator().manual_seed(3)
    images = torch.randn(3, 4, 8, 8, generator=draw)
    time, label = torch.tensor([0, 17, 999]), torch.tensor([0, 4, 5])
    wanted = theirs(images, timestep=time, class_labels=label).sample
    for folder in (tmp_path / "pipeline", tmp_path / "pipeline" / "transformer"):
        found = from_path(folder)
        assert found.config == DiTConfig(image=8, channels=4, width=48, depth=3, heads=4, classes=5)
        assert [line[:25] for line in found.assumed] == ["diffusers computes the si"]
        close(answers(found, {"images": images, "time": time, "label": label}), wanted)
    assert from_path(tmp_path / "pipeline").labels == tuple(names.values())
    again = tmp_path / "again"
    again.mkdir()
    convert(tmp_path / "pipeline", again / "diffusion_pytorch_model.safetensors", to="huggingface")
    theirs.save_config(again)
    back, loaded = type(theirs).from_pretrained(again, output_loading_info=True)
    assert not any(loaded[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(with_the_authors_frequencies(back)(images, timestep=time, class_labels=label).sample, wanted, 1e-6)


def test_a_diffusers_network_that_computes_otherwise_is_refused(
    shaken: Callable[[nn.Module], nn.Module], tmp_path: Path
):
    theirs = of_diffusers(shaken, activation_fn="geglu")
    theirs.save_pretrained(tmp_path / "a")
    with pytest.raises(WeightsError, match="activation_fn = 'geglu'"):
        from_path(tmp_path / "a")
    theirs = of_diffusers(shaken)
    with torch.no_grad():
        theirs.transformer_blocks[2].norm1.emb.class_embedder.embedding_table.weight.add_(1)
    theirs.save_pretrained(tmp_path / "b")
    with pytest.raises(WeightsError, match="differs from that of the first block"):
        from_path(tmp_path / "b")
    of_diffusers(shaken).save_pretrained(tmp_path / "c")
    (tmp_path / "c" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"no config\.json"):
        from_path(tmp_path / "c")
