"""Objects keep their numbers: simulated boxes with noise, misses, false alarms and occlusions, against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment

from vitrail.data.boxes import iou_table, make_found
from vitrail.infer.motion import ahead, corrected, start
from vitrail.infer.tracking import Tracker
from vitrail.plots.boxes import DrawnBox
from vitrail.plots.tracks import draw_tracks

RATE = 30.0


def box(x: float, y: float, side: float = 30.0) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def followed(frames, high: float = 0.5, rate: float = RATE):
    """Return for each frame the numbers by the place of the box."""
    tracker = Tracker(high, rate)
    numbers = []
    for seconds, boxes in frames:
        found = make_found(*(list(zip(*boxes, strict=True)) or [(), (), ()]))
        numbers.append({one.place: one.id for one in tracker.update(seconds, found)})
    return numbers


def one_object(number: int, gone: range = range(0), score: float = 0.9):
    return [(t / RATE, [] if t in gone else [(box(40 + 4 * t, 60), 0, score)]) for t in range(number)]


def test_a_filter_that_sees_a_steady_motion_expects_the_next_box():
    motion = start(np.array(box(0, 0)))
    for t in range(1, 30):
        motion = corrected(ahead(motion, 1), np.array(box(3 * t, -2 * t)))
    assert ahead(motion, 1).box() == pytest.approx(box(90, -60), abs=1.0)
    assert ahead(ahead(motion, 2), 3).box() == pytest.approx(ahead(motion, 5).box())
    assert np.linalg.eigvalsh(motion.covariance).min() > 0


@pytest.mark.parametrize(("hidden", "same"), [(10, True), (28, True), (40, False)])
def test_an_object_keeps_its_number_if_it_is_hidden_for_less_than_a_second(hidden, same):
    numbers = followed(one_object(90, range(20, 20 + hidden)))
    before, after = numbers[19][0], numbers[20 + hidden + 2][0]
    assert (before == after) is same
    assert all(not one for one in numbers[20 : 20 + hidden])


def test_a_low_score_continues_an_object_and_begins_none():
    weak = [(t / RATE, [(box(40 + 4 * t, 60), 0, 0.9 if t < 10 else 0.2)]) for t in range(20)]
    assert [one.get(0) for one in followed(weak)] == [1] * 20
    assert not any(followed(one_object(20, score=0.2)))


def test_a_false_alarm_of_one_frame_gets_no_number():
    frames = one_object(20)
    frames[10] = (frames[10][0], [*frames[10][1], (box(300, 300), 0, 0.85)])
    assert {number for one in followed(frames) for number in one.values()} == {1}


def test_objects_of_two_classes_that_cross_keep_their_numbers():
    frames = [(t / RATE, [(box(40 + 5 * t, 60), 0, 0.9), (box(240 - 5 * t, 60), 1, 0.8)]) for t in range(41)]
    assert all(one == {0: 1, 1: 2} for one in followed(frames))


def test_times_between_frames_count_not_frames():
    """A clip of which every third frame is left out now and then: the motion is in seconds."""
    kept = [t for t in range(120) if t < 30 or t % 5 in (0, 1)]
    frames = [(t / RATE, [(box(40 + 6 * t, 60), 0, 0.9)]) for t in kept]
    assert all(one == {0: 1} for one in followed(frames))


def simulated(seed: int, objects: int = 6, length: int = 150):
    """Return frames of noisy boxes of objects that move, turn and hide each other, and the true boxes by number."""
    draw = np.random.default_rng(seed)
    at = draw.uniform(60, 540, (objects, 2))
    speed = draw.uniform(-3, 3, (objects, 2))
    frames, truth = [], []
    for t in range(length):
        speed += draw.normal(0, 0.1, speed.shape)
        speed[(at < 40) & (speed < 0)] *= -1
        speed[(at > 560) & (speed > 0)] *= -1
        at = at + speed
        true = {i: box(*at[i], 48) for i in range(objects)}
        corners = np.array([true[i] for i in range(objects)])
        overlaps = np.triu(iou_table(corners, corners), 1).max(0)  # those of a lower number stand in front
        boxes = [
            ((corners[i] + draw.normal(0, 1.5, 4)).tolist(), 0, 0.9 - 0.7 * min(1.0, 2 * overlaps[i]))
            for i in range(objects)
            if overlaps[i] < 0.4 and draw.random() > 0.05
        ]
        boxes += [(box(*draw.uniform(0, 600, 2), 48), 0, 0.6)] if draw.random() < 0.1 else []
        frames.append((t / RATE, boxes))
        truth.append(true)
    return frames, truth


def identity_f1(frames, truth, high: float) -> tuple[float, int]:
    """Return IDF1 (Ristani et al. 2016) at IoU 0.5, and how many numbers were given."""
    numbers = followed(frames, high)
    hits: dict[tuple[int, int], int] = {}
    predicted = 0
    for (_, boxes), ids, true in zip(frames, numbers, truth, strict=True):
        found = make_found(*(list(zip(*boxes, strict=True)) or [(), (), ()]))
        predicted += len(ids)
        for place, number in ids.items():
            overlaps = iou_table(found.xyxy[place][None], np.array(list(true.values())))[0]
            best = int(overlaps.argmax())
            if overlaps[best] >= 0.5:
                hits[best, number] = hits.get((best, number), 0) + 1
    given = sorted({number for one in numbers for number in one.values()})
    table = np.array([[hits.get((i, number), 0) for number in given] for i in truth[0]])
    rows, cols = linear_sum_assignment(table, maximize=True)
    return 2 * table[rows, cols].sum() / (predicted + sum(map(len, truth))), len(given)


def test_simulated_objects_keep_their_numbers_through_noise_and_occlusion():
    scores, given = zip(*(identity_f1(*simulated(seed), 0.5) for seed in range(5)), strict=True)
    assert np.mean(scores) > 0.9
    assert max(given) <= 12


def test_the_same_boxes_get_the_same_numbers():
    frames, _ = simulated(3)
    assert followed(frames) == followed(frames)


def test_drawings_of_a_clip_have_one_size_and_outlines_replace_frames():
    frame = Image.new("RGB", (64, 48), "black")
    ring = np.array([[20.0, 10.0], [40.0, 10.0], [30.0, 30.0]])
    shape = DrawnBox((20, 10, 40, 30), "1 car", "#00ff00", shape=(ring,))
    plain = draw_tracks(frame, [])
    drawn = draw_tracks(frame, [shape, DrawnBox((-5, -5, 200, 200), "2 car", "#ff0000")])
    assert drawn.size == plain.size
    scale = drawn.width // 64
    assert drawn.getpixel((30 * scale, 30 * scale)) == (0, 255, 0)
    assert drawn.getpixel((40 * scale - 2, 30 * scale - 2)) == (0, 0, 0), "no frame where there is an outline"
