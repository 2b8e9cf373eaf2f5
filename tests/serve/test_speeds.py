"""How a server learns how quick it is: lines, the pace of the machine, decoding, and what it forgets."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.serve.speeds import BASE_PIXELS, Line, Load, Seen, Speeds, fit_line

TRUE = Line(0.010, 0.004)
PIXELS, DECODE = 190_000, 0.004
RATE = DECODE / (PIXELS + BASE_PIXELS)


def made(lines=None, threads=1):
    return Speeds(lines or {"whole": TRUE}, (1, 2, 4, 8), RATE, threads)


def load(count):
    return Load(count, float(count), count * DECODE)


def saw(speeds, now, count=4, slow=1.0, point="whole", line=TRUE, decode_slow=None, kind="JPEG"):
    """Tell of a batch that took `slow` times as long as usual."""
    decode = (slow if decode_slow is None else decode_slow) * DECODE * count
    network = slow * line.seconds(count)
    expected = speeds.seconds(point, load(count), now)
    batch = Seen(point, load(count), decode, network, decode + network + 0.001, expected)
    speeds.saw(batch, {kind: (PIXELS + BASE_PIXELS) * count}, now)


def test_a_line_is_fitted_through_noisy_times():
    draw = np.random.default_rng(0)
    times = [(n, TRUE.seconds(n) * draw.lognormal(0, 0.05), 1.0) for n in (1, 2, 4, 8) for _ in range(50)]
    line = fit_line(times)
    assert line.each == pytest.approx(TRUE.each, rel=0.05)
    assert line.start == pytest.approx(TRUE.start, rel=0.3)


@pytest.mark.parametrize(
    "times",
    [
        [(4.0, 0.04, 1.0)],
        [(1.0, 0.04, 1.0), (8.0, 0.02, 1.0)],
        [(1.0, 0.001, 1.0), (2.0, 0.02, 1.0)],
        [(1.0, 0.0, 1.0)],
    ],
)
def test_a_line_is_never_negative(times):
    line = fit_line(times)
    assert line.each > 0
    assert line.start >= 0


def test_the_line_of_a_point_is_found_again_from_what_it_computes():
    wrong = {"whole": Line(0.030, 0.001), "half": Line(0.005, 0.001)}
    right, draw = Line(0.012, 0.02), np.random.default_rng(0)
    speeds = made(wrong)
    for turn in range(400):
        # The other point runs as it was measured, so the machine is not slower as a whole.
        saw(speeds, turn, int(draw.integers(1, 9)), draw.lognormal(0, 0.05), "half", wrong["half"])
        saw(speeds, turn, int(draw.integers(1, 9)), draw.lognormal(0, 0.05), "whole", right)
    for count in (1, 4, 8):
        usual = speeds.usual("whole", load(count), 400)
        assert usual == pytest.approx(right.seconds(count) + count * DECODE, rel=0.25)


def test_a_slow_machine_is_known_at_every_point_after_a_few_batches():
    speeds = made({"whole": TRUE, "half": Line(0.005, 0.002)})
    before = speeds.usual("half", load(4), 0.0)
    for turn in range(5):
        saw(speeds, turn * 0.1, slow=2.0)
    assert speeds.pace(0.5) == pytest.approx(2.0, rel=0.2)
    assert speeds.usual("half", load(4), 0.5) > 1.6 * before


def test_the_pace_is_forgotten_when_nothing_runs():
    speeds = made()
    for turn in range(10):
        saw(speeds, turn * 0.1, slow=4.0)
    paces = [speeds.pace(1.0 + wait) for wait in (0, 2, 4, 20)]
    assert paces == sorted(paces, reverse=True)
    assert paces[0] > 3
    assert paces[-1] < 1.01
    assert speeds.at_best("whole", load(1)) < 1.05 * made().at_best("whole", load(1))


def test_one_stalled_batch_does_not_bend_the_line():
    speeds = made()
    for turn in range(30):
        saw(speeds, turn * 0.1)
    before = speeds.line("whole"), speeds.at_best("whole", load(4)), speeds.decoding("JPEG", PIXELS)
    saw(speeds, 3.0, slow=200.0)
    after = speeds.line("whole"), speeds.at_best("whole", load(4)), speeds.decoding("JPEG", PIXELS)
    assert after[0].seconds(4) == pytest.approx(before[0].seconds(4), rel=0.05)
    assert after[1] == pytest.approx(before[1], rel=0.2)
    assert after[2] == pytest.approx(before[2], rel=0.2)
    # What is refused meanwhile is refused for seconds, not for ever.
    assert speeds.seconds("whole", load(4), 60.0) < 1.3 * before[1]
    for turn in range(20):
        saw(speeds, 60 + turn * 0.1)
    assert speeds.seconds("whole", load(4), 62.0) < 1.5 * before[1]


def test_a_stalled_decoder_does_not_make_images_too_slow_for_ever():
    speeds = made()
    for turn in range(30):
        saw(speeds, turn * 0.1)
    before = speeds.decoding("JPEG", PIXELS)
    saw(speeds, 3.0, decode_slow=200.0)
    assert speeds.decoding("JPEG", PIXELS) < 1.5 * before


def test_each_format_has_its_own_speed_of_decoding():
    speeds = made()
    for turn in range(200):
        saw(speeds, turn, decode_slow=1.0, kind="JPEG")
        saw(speeds, turn, decode_slow=3.0, kind="PNG")
    assert speeds.decoding("PNG", PIXELS) > 1.8 * speeds.decoding("JPEG", PIXELS)
    assert speeds.decoding("WEBP", PIXELS) == pytest.approx(DECODE)


def test_several_threads_decode_at_once():
    one, four = made(), made(threads=4)
    assert four.decode(load(8)) == pytest.approx(one.decode(load(8)) / 4)
    assert four.decode(load(1)) == one.decode(load(1))


def test_what_is_promised_of_a_batch_is_kept_by_most():
    speeds, draw, kept = made(), np.random.default_rng(0), []
    for turn in range(300):
        expected = speeds.seconds("whole", load(4), turn * 0.1)
        slow = float(draw.lognormal(0, 0.1))
        saw(speeds, turn * 0.1, slow=slow)
        kept.append(slow * (TRUE.seconds(4) + 4 * DECODE) + 0.001 <= expected)
    assert np.mean(kept[50:]) > 0.93
    usual = speeds.usual("whole", load(4), 30.0)
    assert speeds.seconds("whole", load(4), 30.0) < 1.5 * usual


def test_images_in_windows_cost_as_many_inputs_as_they_have():
    speeds = made()
    many = Load(1, 9.0, DECODE)
    assert speeds.usual("whole", many, 0.0) > 5 * speeds.usual("whole", load(1), 0.0)
    assert many.times(3) == Load(3, 27.0, pytest.approx(3 * DECODE))
