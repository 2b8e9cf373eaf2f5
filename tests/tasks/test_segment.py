"""Segmentation: what is learned, what is answered in the original's pixels, what is scored, and what never counts."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageColor
from scenes import NAMES, VOID, scene
from scipy.ndimage import maximum_filter, minimum_filter
from torch import nn

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.data.augment import build
from vitrail.data.batch import Batch
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.data.view import maps_in_original, strips_in_original, weights_in_original
from vitrail.explainers.explanation import ImageExplainer
from vitrail.explainers.explanation_page import build_page
from vitrail.explainers.permutation_test import shuffle_test
from vitrail.explainers.walkthrough import Subject, trace
from vitrail.explainers.walkthrough_page import steps
from vitrail.export.traced_model import InGraph
from vitrail.infer.predictor import Predictor
from vitrail.infer.runtimes import contradicts
from vitrail.layers.pixel_map import ScaleBlock
from vitrail.models.factory import build as build_encoder
from vitrail.models.factory import create_encoder
from vitrail.models.vit import ViTConfig
from vitrail.plots import FRAME
from vitrail.runs.network import build_network
from vitrail.runs.recipe import task_part
from vitrail.runs.run_network import answering
from vitrail.tasks.base import FINGERPRINT, Ask
from vitrail.tasks.segment import loss
from vitrail.tasks.segment.areas import Areas
from vitrail.tasks.segment.report import from_details
from vitrail.tasks.segment.surfaces import Widths, edges, surface
from vitrail.tasks.segment.targets import frequency_weights
from vitrail.tasks.segment.task import Segment
from vitrail.tasks.segment.windows import hann, in_windows, starts
from vitrail.training.loop import IMAGES, weighed

SIZE = (48, 64)
TRUTH = Truth("mask", NAMES)
PLAIN = Preprocess(SIZE, "squash", 1.0, (0.5,) * 3, (0.25,) * 3)


def segment(**settings):
    return Segment(TRUTH, {"width": 32, **settings})


def network(task, size=SIZE):
    torch.manual_seed(0)
    return build_network(create_encoder("vit_digits", image=size, settings={"depth": 2}), task)


def batch_of(count, augment=None):
    views = [PLAIN.view(SIZE, augment, i) if augment else PLAIN.view(SIZE) for i in range(count)]
    images = torch.stack([view.image(scene(i)[0]) for i, view in enumerate(views)])
    masks = [view.mask(scene(i)[1], VOID) for i, view in enumerate(views)]
    return Batch(
        {"images": images}, masks, tuple(map(str, range(count))), tuple(one.geometry for one in views)
    )


def learnt(task, batch, steps, rate=3e-3):
    net = network(task)
    optimiser = torch.optim.AdamW(net.parameters(), rate)
    ready = Batch(batch.inputs, task.collate(batch.targets), batch.ids, batch.geometry)
    for step in range(steps):
        optimiser.zero_grad()
        task.training_loss(net, ready, np.random.default_rng(step), step / steps).total.backward()
        optimiser.step()
    return net.eval()


def scored(task, net, batch):
    evaluation = task.evaluation()
    with torch.no_grad():
        output = net(batch.inputs)
    evaluation.update([Row(name, name) for name in batch.ids], output, batch.targets, batch.geometry)
    return evaluation


# Learning


def test_eight_images_are_learnt_by_heart():
    task, batch = segment(), batch_of(8)
    assert scored(task, learnt(task, batch, 80), batch).scores()["miou"] >= 0.95


def test_a_rare_class_is_learnt():
    """Of a class of 0.5 % of the pixels at least half is found, though it hardly counts in an unweighed mean."""
    batch = batch_of(8)
    masks = [np.where(mask == 2, 0, mask) for mask in batch.targets]
    images = batch.images.clone()
    for i, mask in enumerate(masks):
        mask[30:34, 10 + 4 * i : 14 + 4 * i] = 2
        images[i, :, 30:34, 10 + 4 * i : 14 + 4 * i] = torch.tensor([-2.0, -1.0, 2.0]).view(3, 1, 1)
    areas = np.stack([np.bincount(mask.ravel(), minlength=256)[:3] for mask in masks])
    assert areas[:, 2].sum() / areas.sum() < 0.006
    rare = Batch({"images": images}, masks, batch.ids, batch.geometry)
    task = segment(class_weights=tuple(frequency_weights(areas).tolist()))
    evaluation = scored(task, learnt(task, rare, 80), rare)
    table = evaluation.matrix()
    assert table[2, 2] / table[2].sum() > 0.5


def test_weights_of_classes_by_their_area():
    weights = frequency_weights(np.array([[900, 90, 10, 0], [990, 0, 10, 0]]))
    np.testing.assert_allclose(weights, [np.sqrt(0.09 / 0.945), 1, 3, 1], rtol=1e-5)
    assert frequency_weights(np.array([[10**6, 10**4, 1]])).max() == 5


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "lovasz"])
def test_the_gradient_is_exactly_zero_at_void(name):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 12, 16, generator=draw, requires_grad=True)
    masks = torch.randint(0, 3, (2, 12, 16), generator=draw)
    masks[:, :, 5:9] = VOID
    given = {"cross_entropy": (torch.tensor([1.0, 2.0, 0.5]), 0.1)}.get(name, ())
    getattr(loss, name)(logits, masks, VOID, *given).backward()
    void = (masks == VOID)[:, None].expand_as(logits)
    assert torch.equal(logits.grad[void], torch.zeros_like(logits.grad[void]))
    assert logits.grad[~void].abs().sum() > 0


def test_losses_against_references():
    """Dice by hand; Lovász of certain answers is 1 − IoU, the mean over the classes that are there."""
    masks = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, VOID]]])
    answers = torch.tensor([[[0, 1, 1, 1], [0, 0, 1, 0]]])
    certain = 60.0 * F.one_hot(answers, 3).permute(0, 3, 1, 2)
    found = loss.dice(certain, masks, VOID)
    by_hand = [1 - (2 * 3 + 1) / (3 + 4 + 1), 1 - (2 * 3 + 1) / (4 + 3 + 1)]
    assert float(found) == pytest.approx(sum(by_hand), abs=1e-6)
    assert float(loss.lovasz(certain, masks, VOID)) == pytest.approx((1 - 3 / 4) + (1 - 3 / 4), abs=1e-6)


@pytest.mark.parametrize("weights", [None, (1.0, 3.0, 0.5)])
def test_a_loss_in_pieces_is_the_whole_loss(weights):
    task = segment(class_weights=weights, smoothing=0.1)
    batch = batch_of(5)
    masks = task.collate(batch.targets)
    masks[3] = VOID
    maps = torch.randn(5, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    whole = weighed(task.loss({"map": maps}, masks), *[{IMAGES: 5, **task.weights(masks)}] * 2)
    total = torch.zeros(())
    for low, high in ((0, 2), (2, 3), (3, 4), (4, 5)):
        counts = {IMAGES: high - low, **task.weights(masks[low:high])}
        total += weighed(
            task.loss({"map": maps[low:high]}, masks[low:high]), counts, {IMAGES: 5, **task.weights(masks)}
        )
    torch.testing.assert_close(total, whole, rtol=1e-5, atol=1e-6)
    assert float(task.loss({"map": maps[3:4]}, masks[3:4]).total) == 0


def test_the_encoder_rests_first_and_then_learns():
    task, batch = segment(frozen=0.5), batch_of(2)
    net, ready = network(task), Batch(batch.inputs, task.collate(batch.targets), batch.ids)
    for progress, learns in ((0.4, False), (0.5, True)):
        net.zero_grad()
        task.training_loss(net, ready, np.random.default_rng(0), progress).total.backward()
        assert all(p.grad is not None for p in net.head.parameters())
        assert any(p.grad is not None for p in net.encoder.parameters()) is learns
        assert all(p.requires_grad for p in net.parameters())


def test_lovasz_joins_late():
    task, batch = segment(lovasz=1.0), batch_of(2)
    net, ready = network(task), Batch(batch.inputs, task.collate(batch.targets), batch.ids)
    early, late = (task.training_loss(net, ready, np.random.default_rng(0), p).parts for p in (0.5, 0.9))
    assert sorted(early) == ["dice", "pixels"]
    assert sorted(late) == ["dice", "lovasz", "pixels"]
    assert set(late) <= set(task.weights(ready.targets))


def test_crops_keep_rare_classes():
    augment = build("scene")
    pixels = {}
    for rare in (0.0, 1.0):
        task = segment(rare=rare, class_weights=(0.1, 0.1, 5.0))
        shown = []
        for key in range(40):
            view = task.view(
                scene(3)[1], lambda turn, key=key: PLAIN.view(SIZE, augment, 100 * key + turn), key
            )
            shown.append((view.mask(scene(3)[1], VOID) == 2).sum())
        pixels[rare] = np.mean(shown)
    assert pixels[1.0] > 1.3 * pixels[0.0]


# The head


@pytest.mark.parametrize("head", ["pixels", "linear"])
@pytest.mark.parametrize(
    "name", ["vit_ti16", "resnet10t", "swin_t", "vvt_t", "t2t_vit_7", "supervit_s", "mixer_s32"]
)
def test_heads_stand_on_any_network(name, head):
    with torch.device("meta"):
        encoder = create_encoder(name, image=224)
        net = build_network(encoder, segment(head=head, stem=True))
        found = net({"images": torch.zeros(2, 3, 224, 224)})["map"]
    stride = 4 if head == "pixels" else encoder.spec.strides[-1]
    assert found.shape == (2, 3, 224 // stride, 224 // stride)


def test_a_network_with_a_cell_for_every_pixel_gives_a_map_of_them():
    encoder = create_encoder("wetmapformer", channels=5, image=24)
    network = build_network(encoder, segment(head="pixels", width=32))
    found = network({"images": torch.randn(2, 5, 24, 32)})["map"]
    assert found.shape[2:] == (24, 32)
    found.square().mean().backward()
    assert encoder.extractor.merge.weight.grad.any()


def test_a_map_of_overlapping_patches_covers_the_input():
    """What lights up at a place lies at that place: patches of 8 pixels, one every 4, end 2 pixels before the rim."""
    encoder = build_encoder(ViTConfig(image=(40, 56), patch=(8, 4), width=16, depth=1, heads=1))
    assert encoder.spec.overlap_margin == 2
    found = build_network(encoder, segment(head="linear"))({"images": torch.zeros(1, 3, 40, 56)})["map"]
    assert found.shape[2:] == (10, 14)


# Answers


def disc(size, centre, radius):
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize(
    ("shape", "size"), [((97, 161), (56, 70)), ((61, 47), (112, 126)), ((300, 211), (64, 48))]
)
def test_a_disc_comes_back_to_where_it_was(fit, shape, size):
    """Through the resize into the input, a map at a quarter of it, and back: threshold last, no pixel shifted."""
    task = Segment(Truth("mask", ("ground", "disc")))
    steps = Preprocess(size, fit, 1.0, (0.0,) * 3, (1.0,) * 3)
    centre = (0.43 * shape[1], 0.56 * shape[0])
    image = np.repeat((disc(shape, centre, 0.3 * min(shape)) * 255).astype(np.uint8)[..., None], 3, 2)
    pixels, geometry = steps.eval(image)
    share = F.adaptive_avg_pool2d(pixels[:1], (size[0] // 2, size[1] // 2))
    mask = task.mask(torch.cat([1 - share, share]), geometry)
    y, x = np.nonzero(mask == 1)
    assert abs(x.mean() + 0.5 - centre[0]) < 0.25
    assert abs(y.mean() + 0.5 - centre[1]) < 0.25
    assert (mask == VOID).sum() == 0


def test_strips_are_the_whole_and_never_larger():
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(7, 13, 17, generator=draw)
    geometry = Preprocess((52, 68), "pad").geometry(211, 307)
    whole, most = maps_in_original(geometry, maps), 7 * 307 * 10
    seen = []
    for rows, strip in strips_in_original(geometry, maps, most):
        assert strip.numel() <= most
        torch.testing.assert_close(strip, whole[:, rows], rtol=0, atol=0)
        seen += range(211)[rows]
    assert seen == list(range(211))
    mask = Segment(Truth("mask", tuple("abcdefg"))).mask(maps, geometry)
    np.testing.assert_array_equal(mask, whole.argmax(0))


def test_what_was_cut_off_and_what_is_unsure_is_no_class():
    task, maps = segment(), torch.zeros(3, 4, 4)
    maps[1] = 1
    cut = task.decode({"map": maps[None]}, [Preprocess((32, 32), "crop").geometry(40, 80)], Ask())[0]
    assert (cut.mask[:, :15] == VOID).all()
    assert (cut.mask[6:34, 26:54] == 1).all()
    unsure = task.decode({"map": maps[None]}, [PLAIN.geometry(20, 30)], Ask(threshold=0.9))[0]
    assert (unsure.mask == VOID).all()
    with Image.open(BytesIO(cut.files()[".mask.png"])) as image:
        np.testing.assert_array_equal(np.asarray(image), cut.mask)
    assert str(unsure) == "none of its classes"


def test_areas_in_the_original_s_pixels_and_in_mm():
    task, maps = segment(spacing=(0.5, 2.0)), torch.zeros(3, 2, 2)
    maps[2, :, 1] = 9
    answer = task.decode({"map": maps[None]}, [PLAIN.geometry(10, 40)], Ask())[0]
    rows = {row["class"]: row for row in answer.rows()}
    assert sum(row["pixels"] for row in rows.values()) == 400
    assert rows["box"]["mm2"] == rows["box"]["pixels"]
    assert answer.to_dict()["width"] == 40


def local(channels=3, classes=3):
    """A network that sees 8 pixels to each side: patches of 4, then a convolution."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 8, 4, 4), nn.GELU(), nn.Conv2d(8, classes, 3, padding=1)).eval()


@torch.no_grad()
def test_windows_are_the_whole_away_from_the_rim():
    """Where every window that counts sees all that the network looks at: here in the middle of any window."""
    net = local()
    image = torch.randn(3, 80, 112, generator=torch.Generator().manual_seed(0))
    whole = net(image[None])[0]
    found = in_windows(net, image, (32, 32))
    assert found.shape == whole.shape
    rims = torch.zeros(whole.shape[1:], dtype=torch.bool)
    for axis, length in ((0, 80), (1, 112)):
        for start in starts(length, 32, 4):
            for cell in (start // 4, start // 4 + 7):
                rims.select(axis, cell)[...] = True
    assert (~rims).float().mean() > 0.3
    torch.testing.assert_close(found[:, ~rims], whole[:, ~rims], rtol=0, atol=1e-5)
    assert (found - whole).abs()[:, rims].max() > 1e-3


def test_the_weights_of_windows_sum_to_one():
    def ones(windows):
        return torch.ones(len(windows), 2, windows.shape[2] // 4, windows.shape[3] // 4)

    torch.testing.assert_close(in_windows(ones, torch.zeros(3, 64, 88), (32, 32)), torch.ones(2, 16, 22))
    assert hann(7).min() > 0
    for length, window, unit in ((64, 32, 4), (700, 336, 7), (112, 48, 16)):
        found = starts(length, window, unit)
        assert (found[0], found[-1]) == (0, length - window)
        assert max(np.diff(found)) <= 2 * window / 3
        assert not any(at % unit for at in found[:-1])
    with pytest.raises(SettingError, match="multiple of four patches"):
        in_windows(lambda windows: torch.ones(len(windows), 2, 5, 5), torch.zeros(3, 64, 64), (32, 32))


def test_a_large_image_is_answered_in_windows_at_its_own_scale():
    task = segment(zoom=1.0)
    steps = task.steps(Preprocess((32, 32), "squash", 1.0, (0.5,) * 3, (0.25,) * 3))
    assert Preprocess.from_dict(steps.to_dict()) == steps
    whole = steps.whole((70, 45))
    assert whole.size == (72, 48)
    pixels, geometry = whole.eval(scene(1, (70, 45))[0])
    compute = answering(task, network(task, (32, 32)).eval(), size=steps.size)
    with torch.no_grad():
        output = compute(Batch({"images": pixels[None]}, None, ("",), (geometry,)))
    assert output["map"].shape == (1, 3, 18, 12)
    assert task.decode(output, [geometry], Ask())[0].mask.shape == (70, 45)


def test_windows_are_chosen_where_little_of_an_image_would_be_left():
    many = [(3000, 4000)] * 3
    settings, (line,) = Segment.for_large({}, (336, 448), many, (14,))
    assert settings == {"zoom": 0.22}
    assert "--set zoom=0" in line
    assert "cannot be explained or exported" in line
    assert Segment.for_large({"zoom": 0.0}, (336, 448), many, (14,)) == ({}, [])
    assert Segment.for_large({}, (336, 448), [(1024, 2048)], (14,)) == ({}, [])
    assert Segment.for_large({}, (350, 350), many, (14,)) == (
        {},
        [],
    )  # quarters and halves of it are no cells
    assert segment(zoom=0).steps(PLAIN) is PLAIN


# Explanations


def test_a_class_a_pixel_and_a_region_are_explained():
    task, batch = segment(), batch_of(1)
    maps = torch.zeros(1, 3, 12, 16, requires_grad=True)
    with torch.no_grad():
        maps[0, 0], maps[0, 1, 4:8, 4:8] = 2.5, 5.0
    answer = task.decode({"map": maps.detach()}, batch.geometry, Ask())[0]
    assert task.choices(answer)[0] == "ground"
    for choice, cells in (("disc", 16), ("disc at 21,22", 1), ("box in 16,16,32,32", 16), ("at 21,22", 1)):
        asked = task.focus(answer, choice)
        (slope,) = torch.autograd.grad(task.score({"map": maps}, asked).sum(), maps)
        place = task.labels.index(asked.asked)
        assert asked.asked == ("disc" if choice.startswith("at") else choice.split()[0])
        assert int((slope[0, place] > 0).sum()) == cells
        assert float(slope[0].sum()) == pytest.approx(1)
        if cells == 1:
            assert slope[0, place, 5, 5] == 1
    assert task.focus(answer, "in 14,14,32,32").asked == "disc", "the majority, not the pixel of a corner"
    assert task.focus(answer, "in 0,0,64,48").asked == "ground"
    with pytest.raises(UnknownNameError, match="disc"):
        task.focus(answer, "disk")
    with pytest.raises(SettingError, match="64 x 48"):
        task.focus(answer, "disc at 64,3")


def test_of_a_place_the_answer_there_and_its_runners_up_are_told():
    task, batch = segment(), batch_of(1)
    maps = torch.zeros(1, 3, 12, 16)
    maps[0, 0], maps[0, 1, 4:8, 4:8], maps[0, 2, 4:8, 4:8] = 1.0, 5.0, 3.0
    answer = task.decode({"map": maps}, batch.geometry, Ask())[0]
    told = {
        of: task.asked(task.focus(answer, of), {"map": maps}) for of in ("at 21,22", "box at 21,22", "disc")
    }
    assert told["disc"] is None
    pixel = told["at 21,22"]
    assert (pixel.box, pixel.choice, pixel.answer) == ((21, 22, 22, 23), "disc at 21,22", "pixel 21,22: disc")
    assert pixel.heading == "Why pixel 21,22 is disc"
    assert pixel.others == ("box at 21,22", "ground at 21,22"), "not the classes that are largest elsewhere"
    assert told["box at 21,22"].heading == "Evidence for box at pixel 21,22"
    region = task.asked(task.focus(answer, "in 0,0,32,16"), {"map": maps})
    assert region.answer.startswith("region 0,0,32,16: ground ")
    assert task.focus(answer, region.choice).region == region.box


def test_the_page_of_a_pixel_marks_it_and_explains_its_runners_up(model_file):
    torch.manual_seed(0)
    task = segment()
    predictor = Predictor(model_file("vit_digits", network(task).eval(), task, PLAIN))
    look = ImageExplainer(predictor, Image.fromarray(scene(0)[0]))
    told = build_page(look, "x.png", of="at 20,20", check=False)
    first = told.explanations[0]
    assert f"<h2>{first.asked.heading}</h2>" in told.html
    assert f"<h1>{first.asked.answer}</h1>" in told.html
    assert [one.of for one in told.explanations[-2:]] == list(first.asked.others)
    frame = np.array(ImageColor.getrgb(FRAME))
    for drawn in (first.overlay(), told.explanations[-1].overlay()):
        rows, cols = np.nonzero((np.asarray(drawn) == frame).all(-1))
        scale = drawn.width / 64
        assert rows.mean() / scale == pytest.approx(20.5, abs=0.6)
        assert cols.mean() / scale == pytest.approx(20.5, abs=0.6)


# The proof and the export


def test_an_answer_that_moved_does_not_agree():
    task = segment()
    maps = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    assert task.agree({"map": maps}, {"map": maps}).tolist() == [True]
    assert task.agree({"map": maps}, {"map": maps.roll(2, -1)}).tolist() == [False]
    large = Segment(Truth("mask", tuple(map(str, range(150)))))
    assert large.fingerprint({"map": torch.zeros(1, 150, 256, 256)}).shape[1] <= FINGERPRINT


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_an_exported_graph_answers_in_the_picture_s_pixels(fit):
    """The weights of the graph, computed from the image's sides, are those of the one way back to the original."""
    steps, task = Preprocess((32, 48), fit, 1.0), segment()
    maps = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    for shape in ((97, 61), (31, 200), (32, 48)):
        geometry = steps.geometry(*shape)
        ours, theirs = weights_in_original(geometry, 8, 12), InGraph(steps, shape).weights(8, 12)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        found = task.in_image({"map": maps}, InGraph(steps, shape))["classes"]
        mine = torch.from_numpy(task.mask(maps[0], geometry))
        assert (found[0] == mine)[mine != VOID].float().mean() > 0.999
        assert found.shape == (1, *shape)
    assert contradicts(found[0], found[0].roll(9, 0))
    assert not contradicts(found[0], found[0].clone())


@pytest.mark.parametrize("head", ["pixels", "linear"])
def test_the_walk_ends_in_the_map(head):
    """The same map as the network gives at once; without positions the mean token does not know the order."""
    task = segment(head=head)
    subject = Subject("a", network(task).eval(), PLAIN, task, trained=True, answers=True)
    walked = trace(subject, scene(1)[0])
    assert walked.way_off < 1e-5
    drawn = [step.name for step in steps(subject, walked)]
    assert drawn[-1] == "Classes"
    assert ("A finer map" in drawn) == (head == "pixels")
    found = shuffle_test(subject, walked.pixels)
    assert found.with_positions.changed
    assert not found.without.changed
    assert found.without.followed == "the mean token"


# Scores


def answered(truths, answers, names=NAMES):
    """Return an evaluation of masks that were answered with certainty."""
    task = Segment(Truth("mask", names))
    evaluation = task.evaluation()
    for i, (truth, answer) in enumerate(zip(truths, answers, strict=True)):
        truth, answer = np.array(truth, np.uint8), torch.tensor(answer)
        maps = 9.0 * F.one_hot(answer, len(names)).permute(2, 0, 1).float()
        geometry = Preprocess(truth.shape, "squash", 1.0).geometry(*truth.shape)
        evaluation.update([Row(str(i), str(i))], {"map": maps[None]}, [truth], [geometry])
    return evaluation


def test_overlap_by_hand_from_one_matrix_over_the_set():
    """Void counts nowhere; a class that no truth shows is left out of the mean and named, not 0, 1 or NaN."""
    truths = [[[0, 0, 1, 1], [0, 0, 1, VOID]], [[1, 1, 1, 1], [0, 0, 0, 0]]]
    answers = [[[0, 1, 1, 1], [0, 0, 1, 1]], [[1, 1, 1, 2], [0, 0, 0, 0]]]
    evaluation = answered(truths, answers)
    assert evaluation.matrix()[:, :3].tolist() == [[7, 1, 0], [0, 6, 1], [0, 0, 0]]
    iou = np.array([7 / 8, 6 / 8])
    scores = evaluation.scores()
    assert scores["miou"] == pytest.approx(iou.mean())
    assert scores["accuracy"] == pytest.approx(13 / 15)
    result = evaluation.result()
    assert result.numbers["dice"].value == pytest.approx((2 * iou / (1 + iou)).mean())
    assert result.details["test"]["absent"] == ["box"]
    assert "box: left out" in result.sections[0].note
    assert "over 2 classes" in result.verdict
    assert evaluation.per_image()["miou"].tolist() == pytest.approx([(3 / 4 + 3 / 4) / 2, (1 + 3 / 4) / 2])


def test_scores_of_a_resample_are_those_of_its_images():
    masks = [scene(i)[1] for i in range(4)]
    answers = [
        np.where(np.roll(mask, 2, 1) == VOID, 0, np.roll(mask, 2, 1)).astype(np.int64) for mask in masks
    ]
    whole = answered(masks, answers)
    twice = answered([masks[1]] * 2 + [masks[3]], [answers[1]] * 2 + [answers[3]])
    told, again = whole.resample(np.array([0.0, 2.0, 0.0, 1.0])), twice.resample(np.ones(3))
    assert told == pytest.approx(again, abs=1e-12, nan_ok=True)
    one, other = answered(masks[:2], answers[:2]), answered(masks[2:], answers[2:])
    for place, row in enumerate(other.kept.rows):
        other.kept.rows[place] = row._replace(id=str(place + 2))
    other.merge(one)
    assert other.scores() == pytest.approx(whole.scores(), abs=1e-12)


def test_edges_by_hand():
    """A square moved by two pixels: equal within three, and the share of edges that meet within one."""
    truth, answer = np.zeros((2, 40, 40), np.uint8)
    truth[10:30, 10:30], answer[10:30, 12:32] = 1, 1
    near = edges(answer, truth, 2, Widths(3, 2))[1]
    assert near[:4].tolist() == [76, 76, 76, 76]
    apart = edges(answer, truth, 2, Widths(1, 2))[1]
    assert apart[0] == apart[2] < apart[1] == apart[3] == 76
    both = (20 * 18) - (16 * 14) - 2 * 0  # the bands share the long sides and the ends of the short ones
    assert apart[4] < both
    assert Widths.of((240, 320)) == (3, 8)
    far, share = surface(answer == 1, truth == 1, (1.0, 0.5))
    assert far == pytest.approx(1.0)
    assert share == 1
    assert np.isnan(surface(answer == 1, truth == 5, (1.0, 1.0))).all()


@pytest.mark.parametrize(("classes", "cell"), [(5, 6), (70, 4)])
def test_edges_of_all_classes_at_once_are_those_of_each(classes, cell):
    draw = np.random.default_rng(classes)
    truth, answer = (
        np.kron(draw.integers(0, classes, (9, 11)), np.ones((cell, cell))).astype(np.uint8) for _ in range(2)
    )
    answer = np.where(draw.random(truth.shape) < 0.5, truth, answer)
    truth[:5], answer[:5] = VOID, VOID
    widths = Widths(2, 4)

    def band(there, width):
        return there & (minimum_filter(there.astype(np.uint8), 2 * width + 1, mode="nearest") == 0)

    def grown(rim):
        return maximum_filter(rim.astype(np.uint8), 2 * widths.edge + 1, mode="constant") > 0

    for place, found in enumerate(edges(answer, truth, classes, widths)):
        one, other = answer == place, truth == place
        rim, true_rim = band(one, 1), band(other, 1)
        inside, true_inside = band(one, widths.band), band(other, widths.band)
        wanted = (
            rim & grown(true_rim), rim, true_rim & grown(rim), true_rim,
            inside & true_inside, inside | true_inside, true_inside, other,
        )  # fmt: skip
        assert found.tolist() == [int(one.sum()) for one in wanted]


def test_lengths_are_told_with_intervals_where_a_spacing_is_stated():
    """A square moved by two pixels of 0.5 mm; images that state nothing count in no length."""
    evaluation, size = segment().evaluation(), (24, 24)
    geometry = Preprocess(size, "squash", 1.0).geometry(*size)
    truth = np.zeros(size, np.uint8)
    truth[4:14, 4:14] = 1
    for i in range(14):
        answer = torch.from_numpy(np.roll(truth, 2 if i % 2 else 1, 1).astype(np.int64))
        maps = 9.0 * F.one_hot(answer, 3).permute(2, 0, 1).float()
        known = replace(geometry, spacing=(0.5, 0.5)) if i else geometry
        evaluation.update([Row(str(i), str(i))], {"map": maps[None]}, [truth], [known])
    result = evaluation.result()
    far = result.numbers["hd95"]
    assert (far.unit, far.better) == ("mm", "lower")
    assert far.value == pytest.approx((7 * 1.0 + 6 * 0.5) / 13)
    assert far.low < far.value < far.high
    assert "within 1 mm" in result.numbers["surface_dice"].fact
    again = from_details(result.to_dict(), "")
    assert again.numbers["hd95"] == far
    assert again.numbers["surface_dice"].fact == result.numbers["surface_dice"].fact
    none = answered([truth] * 2, [truth.astype(np.int64)] * 2).result()
    assert "hd95" not in none.numbers
    area = segment().decode({"map": maps[None]}, [known], Ask())[0].rows()[0]
    assert area["mm2"] == area["pixels"] / 4


def test_thin_classes_are_told_apart():
    truth = np.zeros((120, 160), np.uint8)
    truth[:, 40:42], truth[60:, 80:] = 1, 2
    answer = np.where(truth == 1, 0, truth).astype(np.int64)
    answer[:60, 40:42] = 1
    result = answered([truth], [answer]).result()
    assert result.numbers["thin_recall"].value == pytest.approx(0.5)
    assert "Thin classes: disc" in result.sections[0].note


def test_calibration_counts_every_pixel():
    truth = np.zeros((20, 30), np.uint8)
    truth[:5] = VOID
    evaluation = segment().evaluation()
    maps = torch.zeros(1, 3, 20, 30)
    maps[0, 0] = 2.0
    geometry = Preprocess((20, 30), "squash", 1.0).geometry(20, 30)
    evaluation.update([Row("a", "a")], {"map": maps}, [truth], [geometry])
    (told,) = evaluation.result().details["calibration"]["bins"]
    assert told["answers"] == 450
    assert told["sure"] == pytest.approx(float(maps[0, :, 0, 0].softmax(0)[0]), abs=1e-3)
    assert evaluation.calibrate()["temperature"] < 1


def test_calibration_before_and_after_is_of_the_same_pixels():
    """Nothing is said of chance; with temperature 1 before is after, and else before is what temperature 1 tells."""
    draw = torch.Generator().manual_seed(0)
    maps = 3 * torch.randn(1, 3, 20, 30, generator=draw)
    truth = torch.randint(0, 3, (20, 30), generator=draw).numpy().astype(np.uint8)
    geometry = Preprocess((20, 30), "squash", 1.0).geometry(20, 30)
    found = {}
    for heat in (1.0, 2.5):
        evaluation = segment(temperature=heat).evaluation()
        evaluation.update([Row("a", "a")], {"map": maps}, [truth], [geometry])
        found[heat] = evaluation.result().details["calibration"]
    assert found[1.0]["ece_before"] == found[1.0]["ece_after"]
    assert found[2.5]["ece_before"] == pytest.approx(found[1.0]["ece_after"], abs=1e-5)
    assert found[2.5]["ece_after"] < found[2.5]["ece_before"] - 0.1
    assert "ece_noise" not in found[1.0]


@pytest.mark.parametrize(("images", "shown"), [(4, (4,)), (8, (6, 2)), (14, (6, 6))])
def test_no_image_is_among_the_worst_and_the_best(images, shown):
    truths = np.zeros((images, 4, 8), np.int64)
    truths[:, :, 4:] = 1
    answers = truths.copy()
    for i in range(images):
        answers[i, :2, : i % 4] = 1
    result = answered(truths, answers).result()
    galleries = [one for one in result.sections if one.kind == "overlays"]
    assert tuple(len(one.shots) for one in galleries) == shown
    ids = [shot.id for one in galleries for shot in one.shots]
    assert len(set(ids)) == len(ids) == sum(shown)
    assert galleries[0].shots[-1].caption.startswith("mIoU ")
    assert galleries[0].shots[0].confidence is None


@pytest.mark.parametrize("size", [(48, 64), (600, 800)])
def test_the_legend_names_what_either_shows_and_errors_stand_out_on_grey(size):
    task, (pixels, truth) = segment(), scene(1, size)
    truth = np.where(truth == 2, 0, truth).astype(np.uint8)
    answer = np.where(truth == 1, 2, truth).astype(np.uint8)
    areas = Areas(answer, task.labels, task.colours, VOID, PLAIN.geometry(*size))
    drawn = np.asarray(task.compare(Image.fromarray(pixels), areas, truth)).astype(int)
    scale = max(1, -(-256 // min(size)))
    height, width = scale * size[0], scale * size[1]
    top = max(13, width // 26) * 13 // 10 + 5
    legend = drawn[top + height :]
    assert all((legend == colour).all(-1).any() for colour in task.colours), "each class has its square"
    assert (legend[-2:] == 255).all(), "nothing is cut off"
    errs = drawn[top + 4 : top + height - 4, -width + 4 :]
    red = errs[..., 0] - errs[..., 1] > 60
    coloured = errs.max(-1) - errs.min(-1) > 8
    assert (red == coloured).mean() > 0.99
    assert red.any()


def test_live_images_have_a_legend():
    task, (pixels, truth) = segment(), scene(1)
    maps = torch.zeros(1, 3, 12, 16)
    maps[:, 2] = 1
    drawn = np.asarray(task.glance(Image.fromarray(pixels), {"map": maps}, PLAIN.geometry(48, 64), truth))
    legend = drawn[-24:].astype(int)
    assert all((legend == colour).all(-1).any() for colour in task.colours)


# The draft


def test_patches_take_the_class_that_most_of_them_shows():
    probe = segment().probe
    mask = np.zeros((8, 12), np.uint8)
    mask[:, 6:], mask[:3, :4] = 1, VOID
    cells = probe.cells([mask], [Preprocess((8, 12), "squash", 1.0).geometry(8, 12)], (2, 3))
    assert cells.tolist() == [[VOID, 0, 1, 0, 0, 1]] or cells.tolist() == [[VOID, 1, 1, 0, 1, 1]]
    logits = np.eye(3, dtype=np.float32)[np.minimum(cells, 2)]
    assert probe.output(logits, (2, 3))["map"].shape == (1, 3, 2, 3)
    assert probe.worth(logits, cells) == 1
    drawn, places = probe.sample(logits, cells)
    assert len(drawn) == 5
    assert VOID not in places


def test_a_fresh_head_draws_no_chequers():
    """The four cells that a token becomes begin alike, so that a constant map stays constant away from the rim."""
    block = ScaleBlock(48, 32)
    doubled = block(torch.randn(2, 48, 1, 1).expand(-1, -1, 5, 7))[..., 1:-1, 1:-1]
    torch.testing.assert_close(doubled, doubled[..., :1, :1].expand_as(doubled))


def test_a_fine_tune_teaches_the_new_head_faster_than_the_rest():
    settings = {recipe: task_part("segment", recipe)["task"]["settings"] for recipe in ("finetune", "vit")}
    rates = {name: Segment(("a", "b"), one).head_rate for name, one in settings.items()}
    assert rates == {"finetune": 10.0, "vit": 1.0}
    computed = Segment(("a", "b"), {**settings["finetune"], "head": "linear"})
    assert computed.head_rate == 1.0, "its head is computed before the first step"
