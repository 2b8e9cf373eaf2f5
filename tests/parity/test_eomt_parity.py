"""EoMT of transformers through the shipped tables: equal classes, masks and answers, and every tensor back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import EomtConfig, EomtForUniversalSegmentation, EomtImageProcessor
from transformers.utils import logging

from vitrail.core.errors import SettingError, WeightsError
from vitrail.data.batch import Geometry
from vitrail.layers.heads import Head
from vitrail.layers.sdpa import Recorder
from vitrail.models.eomt import EoMT, MaskHead
from vitrail.runs.network import build_network, build_task
from vitrail.tasks.base import Ask
from vitrail.tasks.query_merging import MergeRules, SegmentMap, found_masks, merge_queries, paint
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import Pretrained, from_path

SMALL = {
    "hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 3, "image_size": 64, "patch_size": 16,
    "num_blocks": 2, "num_queries": 11, "num_labels": 7, "num_register_tokens": 3, "num_upscale_blocks": 2,
}  # fmt: skip
SORTS = {
    "registers": {},
    "no registers": {"num_register_tokens": 0},
    "patch 14": {"patch_size": 14, "image_size": 70, "num_upscale_blocks": 1},
    "gated": {"use_swiglu_ffn": True, "num_blocks": 1},
}


@pytest.fixture
def theirs(shaken, request) -> EomtForUniversalSegmentation:
    """A network with random weights, and without masks in its attention, as all are after their training."""
    network = shaken(EomtForUniversalSegmentation(EomtConfig(**{**SMALL, **getattr(request, "param", {})})))
    network.attn_mask_probs.zero_()
    network.criterion.empty_weight.fill_(1)
    network.criterion.empty_weight[-1] = 0.1
    return network


def written(network: nn.Module, folder: Path) -> Path:
    logging.disable_progress_bar()
    network.save_pretrained(folder)
    return folder


def of_ours(found: Pretrained, task: str) -> tuple[EoMT, Head]:
    encoder = found.build()
    assert isinstance(encoder, EoMT)
    head = encoder.own_head(task, len(found.head["classes.bias"]) - 1)
    assert head is not None
    head.load_state_dict(found.head)
    return encoder, head.eval()


def images_for(network: EomtForUniversalSegmentation, count: int = 2) -> Tensor:
    side = network.config.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("theirs", SORTS.values(), ids=SORTS, indirect=True)
@torch.no_grad()
def test_classes_and_masks(theirs, tmp_path: Path):
    folder = written(theirs, tmp_path / "coco_panoptic_eomt_small")
    found = from_path(folder)
    c = theirs.config
    assert (found.config.family, found.task, found.source) == ("eomt", "panoptic", "huggingface")
    assert (found.config.heads, found.config.query_blocks, found.config.queries) == (3, c.num_blocks, 11)
    assert (found.config.registers, found.config.size) == (c.num_register_tokens, (c.image_size,) * 2)
    encoder, head = of_ours(found, "panoptic")
    assert isinstance(head, MaskHead)
    images = images_for(theirs)
    scores, masks = head.found(encoder(images))
    expected = theirs(images)
    torch.testing.assert_close(scores, expected.class_queries_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(masks, expected.masks_queries_logits, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("theirs", SORTS.values(), ids=SORTS, indirect=True)
def test_every_tensor_goes_back(theirs, tmp_path: Path):
    folder = written(theirs, tmp_path / "one")
    convert(folder, tmp_path / "again.safetensors", to="huggingface")
    back, source = load_file(tmp_path / "again.safetensors"), load_file(folder / "model.safetensors")
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in source.items())


@pytest.mark.parametrize("theirs", SORTS.values(), ids=SORTS, indirect=True)
def test_the_layout_of_the_authors(theirs, tmp_path: Path):
    """Its tensors are those of their conversion to transformers (`convert_eomt_to_hf.py`), joined again."""
    folder = written(theirs, tmp_path / "ade20k_semantic_eomt_small")
    official = folder / "official.safetensors"
    convert(folder, official, to="official")
    tensors, depth = load_file(official), SMALL["num_hidden_layers"]
    assert {name.split(".")[0] for name in tensors} == {"network", "criterion"}
    for block in range(depth):
        parts = [theirs.layers[block].attention.get_submodule(f"{one}_proj").weight for one in "qkv"]
        fused = tensors[f"network.encoder.backbone.blocks.{block}.attn.qkv.weight"]
        assert torch.equal(fused, torch.cat(parts))
    assert tensors["network.encoder.backbone.pos_embed"].shape[0] == 1
    assert torch.equal(tensors["network.q.weight"], theirs.query.weight)
    assert torch.equal(tensors["network.mask_head.4.bias"], theirs.mask_head.fc3.bias)
    assert not tensors["network.attn_mask_probs"].any()
    plain = folder / "pytorch_model.bin"
    torch.save(tensors, plain)
    (folder / "model.safetensors").unlink()
    again, one = from_path(folder), from_path(official)
    assert (again.source, again.task) == ("official", "segment")
    assert again.config == one.config
    steps = again.preprocessing
    assert steps is not None
    assert (steps.image, steps.interpolation) == ((theirs.config.image_size,) * 2, "bilinear")
    convert(official, tmp_path / "hub.safetensors", to="huggingface")
    hub = load_file(tmp_path / "hub.safetensors")
    assert all(torch.equal(hub[name], tensor) for name, tensor in theirs.state_dict().items())


def test_a_wrapper_s_prefix_may_be_missing(theirs, tmp_path: Path):
    folder = written(theirs, tmp_path / "one")
    convert(folder, tmp_path / "official.safetensors", to="official")
    tensors = load_file(tmp_path / "official.safetensors")
    bare = {name.removeprefix("network."): t for name, t in tensors.items() if "criterion" not in name}
    torch.save({"state_dict": bare}, tmp_path / "bare.pth")
    found = from_path(tmp_path / "bare.pth", network={"heads": 3})
    assert found.config == from_path(folder).config
    again, expected = found.build().state_dict(), from_path(folder).build().state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("name", "changes", "task"),
    [
        ("x_semantic_y", {}, "segment"),
        ("x_instance_y", {}, "instances"),
        ("anything", {"num_queries": 100}, "segment"),
        ("anything", {"num_labels": 80}, "instances"),
        ("anything", {}, "panoptic"),
    ],
)
def test_the_task_of_a_file(tmp_path: Path, name, changes, task):
    network = EomtForUniversalSegmentation(EomtConfig(**{**SMALL, **changes}))
    found = from_path(written(network, tmp_path / name))
    assert found.task == task
    assert any("follows from" in line for line in found.assumed) == (name == "anything")
    assert any("attention within masks" in line for line in found.assumed)


def test_classes_are_named_by_the_config(tmp_path: Path):
    names = {0: "person", 1: "sky", 2: "tree"}
    network = EomtForUniversalSegmentation(EomtConfig(**{**SMALL, "num_labels": 3, "id2label": names}))
    assert from_path(written(network, tmp_path)).labels == ("person", "sky", "tree")


def test_what_lacks_or_is_another_is_refused(theirs, tmp_path: Path):
    folder = written(theirs, tmp_path / "one")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "eomt_dinov3"}))
    with pytest.raises(WeightsError, match="DINOv3, which is not supported"):
        from_path(folder)
    tensors = load_file(folder / "model.safetensors")
    torch.save({k: t for k, t in tensors.items() if k != "attn_mask_probs"}, tmp_path / "one.pth")
    with pytest.raises(WeightsError, match="before how many blocks its queries join"):
        from_path(tmp_path / "one.pth", network={"heads": 3})
    torch.save({k: t for k, t in tensors.items() if "position" not in k}, tmp_path / "two.pth")
    with pytest.raises(WeightsError, match="DINOv3, which is not supported"):
        from_path(tmp_path / "two.pth")


# The three answers


def sure(network: EomtForUniversalSegmentation) -> EomtForUniversalSegmentation:
    """Make queries differ, classes confident and masks small, so that there are several segments."""
    with torch.no_grad():
        network.query.weight.mul_(20)
        network.class_predictor.weight.mul_(6)
        network.mask_head.fc3.weight.mul_(3)
        for shift in (
            network.class_predictor,
            network.mask_head.fc3,
            network.upscale_block.block[-1].layernorm2d,
        ):
            shift.bias.zero_()
    return network


@torch.no_grad()
def test_areas(theirs, tmp_path: Path):
    encoder, head = of_ours(from_path(written(sure(theirs), tmp_path)), "segment")
    images = images_for(theirs, 3)
    side = images.shape[-1]
    processor = EomtImageProcessor(size={"shortest_edge": side, "longest_edge": side})
    expected = processor.post_process_semantic_segmentation(
        theirs(images), [(side, side)] * 3, return_segmentation_scores=True
    )
    maps = head(encoder(images), {"images": images})["map"]
    task = build_task("segment", list("abcdefg"), {})
    here = Geometry((side, side), (side, side), (0, 0, side, side))
    for one, answer, areas in zip(expected, maps, task.decode({"map": maps}, [here] * 3, Ask()), strict=True):
        scores = one.segmentation_scores
        torch.testing.assert_close(answer.softmax(0), scores / scores.sum(0), rtol=1e-4, atol=1e-6)
        assert (torch.from_numpy(areas.mask).long() == one.segmentation).float().mean() > 0.9999
        assert len(one.segmentation.unique()) > 1


def found_by(processor: EomtImageProcessor, image: Tensor, size: tuple[int, int]):
    """Return how their masks come to the size of the original: to the input, without its border, to the original."""

    def resized(one: Tensor) -> Tensor:
        return processor.unpad_image(
            F.interpolate(one[None, None], image.shape[-2:], mode="bilinear"), [size], processor.size
        )[0][0]

    return resized


def same(found: SegmentMap, expected: dict) -> None:
    assert torch.equal(found.numbers, expected["segmentation"].long())
    theirs = [(s["id"], s["label_id"]) for s in expected["segments_info"]]
    assert [(s.number, s.kind) for s in found.segments] == theirs
    for one, other in zip(found.segments, expected["segments_info"], strict=True):
        assert one.score == pytest.approx(other["score"], abs=2e-5)


SIZES = [(64, 64), (97, 131), (150, 101)]


@pytest.mark.parametrize("stuff", [(), (0, 1, 2, 3, 4, 5, 6)])
@torch.no_grad()
def test_things_and_stuff(theirs, tmp_path: Path, stuff):
    encoder, head = of_ours(from_path(written(sure(theirs), tmp_path)), "panoptic")
    images = images_for(theirs, 3)
    processor = EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    output = theirs(images)
    seen = 0
    for threshold, overlap in ((0.8, 0.8), (0.3, 0.4), (0.1, 0.05), (0.9999, 0.5)):
        expected = processor.post_process_panoptic_segmentation(
            output, SIZES, threshold, overlap_mask_area_threshold=overlap, stuff_classes=list(stuff)
        )
        ours = head(encoder(images))
        rules = MergeRules(threshold, overlap=overlap, stuff=stuff)
        for one, size in enumerate(SIZES):
            resized = found_by(processor, images[one], size)
            found = merge_queries(ours["logits"][one], ours["masks"][one], resized, size, rules)
            same(found, expected[one])
            seen += len(found.segments)
    assert seen > 10


@torch.no_grad()
def test_objects(theirs, tmp_path: Path):
    encoder, head = of_ours(from_path(written(sure(theirs), tmp_path)), "instances")
    images = images_for(theirs, 3)
    processor = EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    output, ours, seen = theirs(images), head(encoder(images)), 0
    for threshold in (0.7, 0.4, 0.1):
        expected = processor.post_process_instance_segmentation(output, SIZES, threshold)
        for one, size in enumerate(SIZES):
            resized = found_by(processor, images[one], size)
            found = paint(found_masks(ours["logits"][one], ours["masks"][one], resized, threshold), size)
            same(found, expected[one])
            seen += len(found.segments)
    assert seen > 10


@torch.no_grad()
def test_outputs_keep_the_promises_of_their_tasks(theirs, tmp_path: Path):
    found = from_path(written(theirs, tmp_path))
    encoder, head = of_ours(found, "panoptic")
    images = images_for(theirs)
    output, expected = head(encoder(images), {"images": images}), theirs(images)
    probabilities = expected.class_queries_logits.softmax(-1)
    torch.testing.assert_close(output["logits"].sigmoid(), probabilities[..., :-1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(output["proposals"], output["logits"].amax(-1))
    assert output["masks"].shape == (2, 11, 16, 16)
    assert output["areas"].shape == (2, 7, 16, 16)
    for box, mask in zip(output["boxes"].flatten(0, 1), output["masks"].flatten(0, 1), strict=True):
        rows, cols = (mask > 0).nonzero(as_tuple=True)
        if not len(rows):
            assert not box.any()
            continue
        left, top, right, bottom = cols.min(), rows.min(), cols.max() + 1, rows.max() + 1
        wanted = torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]) / 16
        torch.testing.assert_close(box, wanted)
    areas = found.build().own_head("instances", 7)
    assert areas is not None
    assert areas.state_dict().keys() == head.state_dict().keys()


def test_only_areas_are_trained(theirs, tmp_path: Path):
    encoder, _ = of_ours(from_path(written(theirs, tmp_path)), "segment")
    images = images_for(theirs)
    network = build_network(encoder, build_task("segment", list("abcdefg"), {})).train()
    loss = network.head(encoder(images), {"images": images})["map"].softmax(1)[:, 0].mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    for task in ("instances", "panoptic"):
        own = encoder.own_head(task, 7)
        assert own is not None
        with pytest.raises(SettingError, match="is not trained here"):
            own.train()(encoder(images))
    assert encoder.own_head("classify", 7) is None


@torch.no_grad()
def test_recorded_attention(theirs, tmp_path: Path):
    """Their order is queries, class, registers, patches; ours has the queries after the registers."""
    theirs.set_attn_implementation("eager")
    encoder, _ = of_ours(from_path(written(theirs, tmp_path)), "segment")
    images = images_for(theirs, 1)
    record = Recorder()
    encoder(images, record=record)
    expected = theirs(images, output_attentions=True).attentions
    front, queries = 4, SMALL["num_queries"]
    for turn, (ours, other) in enumerate(zip(record.maps, expected, strict=True)):
        if turn >= SMALL["num_hidden_layers"] - SMALL["num_blocks"]:
            n = other.shape[-1]
            order = torch.cat(
                [
                    torch.arange(queries, queries + front),
                    torch.arange(queries),
                    torch.arange(queries + front, n),
                ]
            )
            other = other[..., order, :][..., order]
        torch.testing.assert_close(ours.weights, other, rtol=0, atol=1e-6)
