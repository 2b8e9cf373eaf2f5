"""What the policy of a server decides, on a simulated machine: no clock, no process."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import DECODING, GOOD, LINES, Image, Machine, poisson, speeds_of

from vitrail.serve.arrivals import ArrivalRate
from vitrail.serve.policy import Arrivals, Moment, Point, SlackFit, feasible

FULL = 1 / 0.031
"""Images a second that the whole network answers in batches."""


def moment(deadlines, now=0.0, free_at=(0.0,), promise=0.1, groups=None, points=None):
    images = [
        Image(now, one, DECODING, points[i] if points else "", groups[i] if groups else "")
        for i, one in enumerate(deadlines)
    ]
    return Moment(now, images, list(free_at), Arrivals(), promise)


def policy(names=tuple(LINES), largest=16):
    return SlackFit([Point(name, GOOD[name]) for name in names], speeds_of(names), largest)


def test_much_time_is_spent_on_accuracy_and_little_on_the_cheapest_point():
    assert policy().decide(moment([1.0], promise=1.0)).point == "whole"
    assert policy().decide(moment([0.02])).point == "quarter"
    middle = policy().decide(moment([0.03]))
    assert middle.point == "half"


def test_a_batch_never_has_more_than_the_largest_nor_two_groups():
    decided = policy(largest=10).decide(moment([100.0] * 100, promise=100.0))
    assert decided.count == 10
    groups = ["a", "a", "a", "b", "a"]
    assert policy().decide(moment([9.0] * 5, promise=9.0, groups=groups)).count == 4
    rng = np.random.default_rng(0)
    machine = Machine(largest=5)
    served = machine.serve(poisson(2 * FULL, 10), lambda number: {"group": int(rng.integers(3))})
    assert served.batches
    for _, _, images in served.batches:
        assert 1 <= len(images) <= 5
        assert len({one.group for one in images}) == 1


def test_a_request_gets_the_point_that_it_names():
    named = {3: "whole", 7: "third", 8: "quarter"}
    machine = Machine(promise=0.3)
    served = machine.serve(
        poisson(0.8 * FULL, 20),
        lambda number: {"point": named.get(number % 10, ""), "group": named.get(number % 10, "")},
    )
    asked = [(image.point, point) for image, point, _ in served.answers if image.point]
    assert len(asked) > 100
    assert all(wanted == point for wanted, point in asked)


def test_an_admitted_image_is_in_time_when_the_machine_is_as_expected():
    for rate in (0.8, 1.5, 3.0, 6.0):
        served = Machine(noise=0.0).serve(poisson(rate * FULL, 15))
        assert served.shed == 0
        assert all(end <= image.deadline for image, _, end in served.answers), rate
    assert served.refused  # the last rate is more than the cheapest point can answer


def test_so_it_is_when_requests_want_different_options():
    """Images of two groups share no batch: a queue of both takes more batches than one of as many images."""
    times = poisson(3 * FULL, 15)
    alone = Machine(noise=0.0).serve(times)
    served = Machine(noise=0.0).serve(times, lambda number: {"group": number % 2})
    assert served.shed == 0
    assert all(end <= image.deadline for image, _, end in served.answers)
    assert served.in_time > 0.9 * alone.in_time  # each takes along what waits of its kind


def test_what_is_feasible_counts_every_worker():
    waiting = [0.1] * 12
    one, two = moment(waiting), moment(waiting, free_at=(0.0, 0.0))
    assert not feasible(one, speeds_of(LINES), "quarter", 6)
    assert feasible(two, speeds_of(LINES), "quarter", 6)


@pytest.mark.parametrize("rate", [0.8, 1.4])
def test_the_promise_is_kept_and_answers_are_better_than_at_a_fixed_point(rate):
    times = poisson(rate * FULL, 60)
    dial = Machine().serve(times)
    fixed = {name: Machine([name]).serve(times) for name in LINES}
    assert fixed["quarter"].in_time >= 0.99
    assert dial.in_time >= 0.98
    equal = [one.good for one in fixed.values() if one.in_time >= dial.in_time - 0.002]
    assert dial.good > max(equal)


def test_a_machine_that_becomes_twice_as_slow_is_noticed_within_a_few_batches():
    machine = Machine(slow=lambda now: 2.0 if 10 <= now < 20 else 1.0)
    served = machine.serve(poisson(0.8 * FULL, 30))
    slow = [point for now, point, _ in served.batches if 10 <= now < 20]
    before = [point for now, point, _ in served.batches if now < 10]
    assert np.mean([GOOD[point] for point in slow[4:]]) < np.mean([GOOD[point] for point in before])
    assert "whole" not in slow[4:]
    late = [image for image, _, end in served.answers if end > image.deadline]
    assert len(late) <= 12
    missed = [at for at in served.refused if at > 22]
    assert len(missed) <= 5  # and forgotten when it is over


def test_with_one_point_it_is_a_fixed_point():
    served = Machine(["half"]).serve(poisson(1.2 * FULL, 10))
    assert {point for _, point, _ in served.batches} == {"half"}
    assert served.in_time > 0.9


def test_images_that_were_missed_give_others_more_room_and_it_is_taken_back():
    one = policy()
    start = one.room
    for _ in range(3):
        one.learned(False)
    tight = one.room
    assert tight < start
    for _ in range(3000):
        one.learned(True)
    assert one.room > start


def test_arrivals_are_counted_for_two_seconds():
    arrivals = ArrivalRate()
    assert arrivals.now(0.0).rate == 0
    for now in np.arange(100.0, 104.0, 0.05):
        arrivals.came(float(now), 1)
    steady = arrivals.now(103.99)
    assert steady.rate == pytest.approx(20, rel=0.1)
    assert steady.burst == 1
    arrivals.came(104.0, 60)
    assert arrivals.now(104.0).burst > 10
    assert arrivals.now(104.0).most(0.1) > 2 * steady.most(0.1)
    assert arrivals.now(110.0).rate == 0
