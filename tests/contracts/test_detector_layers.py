"""The parts of a detector: deformable attention, its dense rows, boxes, projector and decoder."""

from __future__ import annotations

import pytest
import torch
from test_encoders import TINY
from torchvision.ops import generalized_box_iou

from vitrail.infer.openvino_backend import OfImages
from vitrail.layers.boxes import moved, overlaps, to_centre, to_corners
from vitrail.layers.deformable_attention import DeformableAttention, dense_rows
from vitrail.layers.projector import Projector
from vitrail.layers.query_decoder import DecoderShape, QueryDecoder
from vitrail.layers.sdpa import Recorder
from vitrail.models.factory import build, create_encoder
from vitrail.runs.network import build_network, build_task

GRID = (5, 7)


def random_boxes(*shape):
    draw = torch.Generator().manual_seed(1)
    centre, sides = torch.rand(*shape, 2, generator=draw), torch.rand(*shape, 2, generator=draw) * 0.5 + 0.02
    return torch.cat([centre, sides], -1)


@pytest.fixture
def attention():
    torch.manual_seed(0)
    layer = DeformableAttention(24, heads=4, points=3)
    torch.nn.init.normal_(layer.offsets.weight, std=0.4)  # far enough to leave the map sometimes
    torch.nn.init.normal_(layer.weights.weight, std=0.5)
    return layer


def test_recorded_rows_are_what_multiplied_the_values(attention):
    queries, memory = torch.randn(2, 11, 24), torch.randn(2, 35, 24)
    references = random_boxes(2, 11)
    recorder = Recorder()
    recorded = attention(queries, references, memory, GRID, recorder)
    torch.testing.assert_close(recorded, attention(queries, references, memory, GRID), rtol=0, atol=2e-6)
    (one,) = recorder.maps
    assert one.weights.shape == (2, 4, 11, 35)
    assert (one.grid, one.size) == (GRID, (11, 35))
    assert (one.weights >= 0).all()
    assert (one.weights.sum(-1) <= 1 + 1e-6).all()  # what lies outside the map is lost


def test_a_place_at_the_centre_of_a_cell_is_that_cell_alone():
    at = torch.tensor([(2 + 0.5) / 7, (3 + 0.5) / 5]).view(1, 1, 1, 1, 2)
    row = dense_rows(at, torch.ones(1, 1, 1, 1), GRID).flatten()
    assert row.nonzero().flatten().tolist() == [3 * 7 + 2]
    assert float(row.sum()) == pytest.approx(1.0)


def test_gradients_through_the_recorded_rows_are_the_same(attention):
    queries, memory, references = torch.randn(1, 3, 24), torch.randn(1, 35, 24), random_boxes(1, 3)
    found = []
    for record in (None, Recorder()):
        leaf = memory.clone().requires_grad_()
        attention(queries, references, leaf, GRID, record).square().sum().backward()
        found.append(leaf.grad)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_overlaps_are_torchvisions():
    one, other = to_corners(random_boxes(6)), to_corners(random_boxes(9).flip(0))
    iou, giou = overlaps(one[:, None], other[None])
    torch.testing.assert_close(giou, generalized_box_iou(one, other), rtol=1e-5, atol=1e-6)
    assert (iou >= giou - 1e-6).all()


def test_both_forms_of_a_box_are_the_same_box():
    boxes = random_boxes(4)
    torch.testing.assert_close(to_centre(to_corners(boxes)), boxes)


def test_a_change_means_the_same_for_small_and_large_boxes():
    change = torch.tensor([0.5, -0.25, 0.1, -0.2])
    small, large = torch.tensor([0.5, 0.5, 0.02, 0.04]), torch.tensor([0.5, 0.5, 0.2, 0.4])
    shifts = [(moved(box, change) - box)[:2] / box[2:] for box in (small, large)]
    torch.testing.assert_close(*shifts)
    torch.testing.assert_close(moved(large, torch.zeros(4)), large)
    assert torch.isfinite(moved(large, torch.full((4,), 1e4))).all()


def decoder(**sizes):
    torch.manual_seed(0)
    return QueryDecoder(
        DecoderShape(**{"width": 32, "layers": 2, "queries": 6, "groups": 3, "heads": 2, **sizes}), 4
    )


def test_groups_of_queries_do_not_see_each_other():
    net, maps = decoder().train(), torch.randn(2, 32, *GRID)
    before = net(maps).layers.logits
    with torch.no_grad():
        net.content.weight[6:12] += 1.0  # the second group
    after = net(maps).layers.logits
    torch.testing.assert_close(after[:, :, :6], before[:, :, :6])
    torch.testing.assert_close(after[:, :, 12:], before[:, :, 12:])
    assert not torch.allclose(after[:, :, 6:12], before[:, :, 6:12])


def test_only_the_first_group_answers():
    net, maps = decoder(), torch.randn(2, 32, *GRID)
    trained, used = net.train()(maps), net.eval()(maps)
    assert trained.layers.boxes.shape == (2, 2, 18, 4)
    assert used.layers.boxes.shape == (2, 1, 6, 4)  # what the last layer found is the answer
    torch.testing.assert_close(used.layers.boxes, trained.layers.boxes[:, -1:, :6], rtol=0, atol=1e-6)
    assert used.proposals.shape == (2, 35, 4)


def test_a_map_with_fewer_cells_than_queries_is_no_problem():
    net = decoder(queries=50).train()
    found = net(torch.randn(1, 32, 3, 4))
    assert found.layers.boxes.shape == (1, 2, 36, 4)


def test_without_training_nothing_is_found():
    with torch.no_grad():
        found = decoder().eval()(torch.randn(3, 32, *GRID))
    assert float(found.layers.logits.sigmoid().max()) < 0.2


@pytest.mark.parametrize(
    ("name", "size"), [("vit_digits", (48, 64)), ("swin_t", (224, 224)), ("mixer_s32", (224, 224))]
)
def test_every_encoder_has_a_map_for_queries(name, size):
    encoder = create_encoder(name, image=size)
    projector = Projector(encoder.spec, 16)
    images = torch.zeros(1, encoder.spec.channels, *size)
    features = encoder.tap(images, projector.taps) if projector.levels else encoder(images)
    made = projector(features)
    assert made.shape[:2] == (1, 16)
    assert min(made.shape[2:]) >= 7


@pytest.mark.parametrize("kind", ["detect", "instances"])
@pytest.mark.parametrize("name", ["dinov2", "rf_detr"])
@torch.no_grad()
def test_a_detector_is_exported_with_a_free_batch(kind, name):
    config, _ = TINY[name]
    task = build_task(kind, ["a", "b"], {"width": 64, "layers": 2, "queries": 5, "margin": 0.01})
    network = OfImages(build_network(build(config), task).eval())
    images = torch.randn(3, config.channels, *config.size)
    free = {"images": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(network, (images[:2],), dynamic_shapes=free)
    for found, expected in zip(program.module()(images), network(images), strict=True):
        torch.testing.assert_close(found, expected)


def test_cells_near_the_border_propose_nothing():
    """Both networks have the same weights; the proposals that are chosen differ."""
    torch.manual_seed(3)
    plain = QueryDecoder(DecoderShape(32, 1, queries=6, groups=1, heads=2, hidden=8), 2).eval()
    inner = QueryDecoder(DecoderShape(32, 1, queries=6, groups=1, heads=2, hidden=8, margin=0.2), 2).eval()
    inner.load_state_dict(plain.state_dict())
    maps = torch.randn(1, 32, 5, 4)  # centres of rows at 0.1, 0.3 … and of columns at 0.125, 0.375 …
    assert torch.equal(plain(maps).proposals, inner(maps).proposals)
    chosen = inner(maps).first.boxes[0, :, :2]
    rows, cols = torch.tensor([0.3, 0.5, 0.7]), torch.tensor([0.375, 0.625])
    expected = torch.cartesian_prod(cols, rows)
    assert {tuple(one) for one in chosen.tolist()} == {tuple(one) for one in expected.tolist()}
    assert not torch.equal(plain(maps).first.boxes, inner(maps).first.boxes)
