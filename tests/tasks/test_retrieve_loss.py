"""The contrastive losses: equal to the published ones, to those of two processes, and without false negatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as processes
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from vitrail.data.batch import Batch
from vitrail.data.truth import Truth
from vitrail.data.vocabulary import learnt_vocabulary
from vitrail.layers.gather import gather_rows
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network
from vitrail.tasks.retrieve.loss import Pairs, sigmoid_loss, softmax_loss
from vitrail.tasks.retrieve.task import Retrieve

CAPTIONS = [
    ("a red bus",),
    ("a blue car", "a car in the rain"),
    ("a green tree",),
    ("A red  bus", "a bus at night"),
    ("two dogs",),
]


def unit(rows, width, seed):
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=draw), dim=-1).requires_grad_()


def output_of(rows=7, width=5):
    factor, bias = torch.tensor(14.0).expand(rows), torch.tensor(-10.0).expand(rows)
    return {"image": unit(rows, width, 0), "text": unit(rows, width, 1), "factor": factor, "bias": bias}


def all_different(rows=7):
    keys = torch.arange(rows) * 11
    return Pairs(keys, keys[:, None])


def test_the_softmax_loss_is_the_published_one_if_all_captions_differ():
    output = output_of()
    logits = 14.0 * output["image"] @ output["text"].T
    right = torch.arange(7)
    published = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    torch.testing.assert_close(softmax_loss(output, all_different()), published)


def test_the_sigmoid_loss_is_that_of_transformers():
    transformers = pytest.importorskip("transformers")
    tower = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SiglipConfig(
        text_config={**tower, "vocab_size": 97, "max_position_embeddings": 11, "projection_size": 24},
        vision_config={**tower, "image_size": 14, "patch_size": 7},
    )
    torch.manual_seed(0)
    network = transformers.SiglipModel(config).eval()
    with torch.no_grad():
        network.logit_scale.fill_(1.3)
        network.logit_bias.fill_(-4.0)
        found = network(
            input_ids=torch.randint(2, 97, (5, 11)), pixel_values=torch.randn(5, 3, 14, 14), return_loss=True
        )
    output = {
        "image": found.image_embeds,
        "text": found.text_embeds,
        "factor": network.logit_scale.exp().detach().expand(5),
        "bias": network.logit_bias.detach().expand(5),
    }
    torch.testing.assert_close(sigmoid_loss(output, all_different(5)), found.loss)


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
def test_a_caption_of_two_images_is_no_negative_of_either(loss):
    """Pair 3 has the caption of pair 0: pushing image 0 away from it, or image 3 from caption 0, would be wrong."""
    keys = torch.tensor([5, 7, 9, 5])
    output = output_of(4)
    with torch.no_grad():  # the wrong pairs (0, 3) and (3, 0) could not be nearer
        output["text"][3], output["image"][3] = output["image"][0], output["text"][0]
    blamed = loss(output, all_different(4)).detach().item()
    assert loss(output, Pairs(keys, keys[:, None])).detach().item() < blamed - 0.1


def test_another_caption_of_an_image_is_no_negative_of_it_either():
    drawn, own = (
        torch.tensor([5, 7]),
        torch.tensor([[5, 7], [7, 7]]),
    )  # image 0 also has the caption of pair 1
    output = {name: part.detach() for name, part in output_of(2).items()}
    with_own = softmax_loss(output, Pairs(drawn, own)).item()
    logits = 14.0 * output["image"] @ output["text"].T
    rows = F.cross_entropy(logits[1:], torch.tensor([1]), reduction="sum") / 2
    columns = F.cross_entropy(logits.T[:1], torch.tensor([0]), reduction="sum") / 2
    assert with_own == pytest.approx((rows + columns).item() / 2, rel=1e-5)


def prepared(loss="softmax"):
    sizes = {"embed": 7, "text_width": 12, "text_depth": 1, "text_heads": 3, "context": 11}
    task = Retrieve(Truth("caption"), {**sizes, "loss": loss})
    task.vocabulary = learnt_vocabulary([one for own in CAPTIONS for one in own], 300, 11)
    torch.manual_seed(0)
    encoder = create_encoder(
        "vit_digits", image=(8, 8), settings={"width": 12, "depth": 1, "heads": 3, "patch": 4}
    )
    return task, build_network(encoder, task)


def batch_of(low, high):
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return Batch({"images": images[low:high]}, CAPTIONS[low:high], tuple("abcde")[low:high])


def gradients(loss, low, high, world, network=None):
    """Return loss and gradients as the training loop weighs them: by the images of a process."""
    task, bare = prepared(loss)
    wrapped = DistributedDataParallel(bare) if world > 1 else bare
    share = (high - low) * world / 5
    value = task.training_loss(wrapped, batch_of(low, high), np.random.default_rng(0), 0.0).total * share
    value.backward()
    return float(value.detach()), {
        name: p.grad.clone() for name, p in bare.named_parameters() if p.grad is not None
    }


def of_process(rank, folder, loss):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        low, high = ((0, 3), (3, 5))[rank]
        gathered = gather_rows(torch.full((high - low, 2), float(rank)))
        assert gathered.rows.tolist() == [[0.0, 0.0]] * 3 + [[1.0, 1.0]] * 2
        assert gathered.start == low
        torch.save(gradients(loss, low, high, 2), f"{folder}/{loss}-{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_two_processes_have_the_loss_and_the_gradients_of_one(tmp_path, loss):
    """Processes of three and two images; the captions that are equal lie on different processes."""
    processes.spawn(of_process, (str(tmp_path), loss), nprocs=2)
    whole, wanted = gradients(loss, 0, 5, 1)
    parts = [torch.load(tmp_path / f"{loss}-{rank}.pt") for rank in range(2)]
    assert (parts[0][0] + parts[1][0]) / 2 == pytest.approx(whole, rel=1e-5)
    for name, gradient in wanted.items():
        for _, found in parts:
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)
    assert {"head.scale", "head.tower.embed.weight", "head.project.weight"} <= wanted.keys()
    assert ("head.bias" in wanted) == (loss == "sigmoid")
