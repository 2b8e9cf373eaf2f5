"""What users of other servers complain about: batches, deadlines, clients that hang up, workers that end.

The workers are pretended; `test_served_process.py` does it to real ones.
"""

from __future__ import annotations

import base64
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from pretended import FACTS, Hand, answers_at_once, at_once, images, png, pretended, until

from vitrail.serve.front import Limits
from vitrail.serve.messages import Done


def test_a_request_of_a_hundred_images_is_ten_batches_of_ten():
    with pretended(largest=10) as served:
        answer = served.predict(*images(100))
        assert answer.status_code == 200
        assert len(answer.json()["answers"]) == 100
        assert served.hand.sizes() == [10] * 10


@contextmanager
def held_until_they_wait(served, count):
    """Hold the workers until so many images wait."""

    def let_go():
        until(lambda: len(served.front.batcher.waiting) == count)
        served.hand.open.set()

    with served.hand.held():
        thread = threading.Thread(target=let_go)
        thread.start()
        yield
        thread.join()


def test_a_hundred_requests_at_once_share_batches():
    with pretended(largest=10) as served:
        first = threading.Thread(target=served.predict, args=(png(),))
        with held_until_they_wait(served, 99):
            first.start()
            until(lambda: served.hand.batches)
            answers = at_once(99, lambda number: served.predict(png()))
            first.join()
        assert {one.status_code for one in answers} == {200}
        assert served.hand.sizes() == [1, *[10] * 9, 9]


def test_a_batch_is_never_larger_than_its_maximum_counting_images_inside_requests():
    with pretended(largest=6) as served:
        answers = at_once(12, lambda number: served.predict(*images(1 + number)))
        assert [len(one.json()["answers"]) for one in answers] == list(range(1, 13))
        assert max(served.hand.sizes()) <= 6
        assert sum(served.hand.sizes()) == sum(range(1, 13))


def test_a_deadline_counts_from_the_arrival_also_after_the_batch_was_formed():
    with pretended() as served, served.hand.held():
        answer = served.predict(png(), headers={"x-deadline-ms": "200"})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert "200 ms" in answer.json()["error"]
        assert served.hand.sizes() == [1]
        assert served.hand.finished == 0


def test_a_deadline_may_be_longer_or_shorter_than_the_promise():
    with pretended(promise=0.5) as served, served.hand.held():
        late = served.predict(png(), headers={"x-deadline-ms": "100"})
        assert late.status_code == 429
        threading.Timer(1.2, served.hand.open.set).start()
        longer = served.predict(png(), headers={"x-deadline-ms": "20000"})
        assert longer.status_code == 200
        assert longer.json()["late"] is False
        assert longer.json()["total_ms"] > 500


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1e9", "nan", "inf"])
def test_a_deadline_that_makes_no_sense_is_refused(plain, value):
    answer = plain.predict(png(), headers={"x-deadline-ms": value})
    assert answer.status_code == 422
    assert "X-Deadline-Ms" in answer.json()["error"]


def test_what_cannot_be_in_time_even_on_a_free_server_is_not_tried():
    with pretended(promise=0.2) as served:
        answer = served.predict(*images(64))
        assert answer.status_code == 422
        assert "retry-after" not in answer.headers
        assert "64 images" in answer.json()["error"]
        assert "X-Deadline-Ms" in answer.json()["error"]
        assert not served.hand.batches


def test_an_answer_that_is_later_than_the_promise_is_delivered_and_says_so():
    with pretended(promise=0.2) as served:
        served.hand.answer = lambda batch: time.sleep(0.4) or answers_at_once(batch)
        answer = served.predict(png())
        assert answer.status_code == 200
        assert answer.json()["late"] is True
        assert "vitrail_late_images_total 1.0" in served.get("/metrics").text


def test_a_stalled_batch_closes_the_server_for_a_moment_only():
    with pretended(promise=0.2) as served:
        served.hand.answer = lambda batch: time.sleep(1.0) or answers_at_once(batch)
        assert served.predict(png()).json()["late"] is True
        served.hand.answer = answers_at_once
        until(lambda: served.front.team.free)
        assert served.predict(png()).status_code == 200  # an idle server always tries
        for _ in range(10):
            assert served.predict(png()).status_code == 200
        found = at_once(4, lambda number: served.predict(png()))
        assert {one.status_code for one in found} == {200}


def test_a_full_server_refuses_at_once_and_says_when_to_try_again():
    body = png()
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with pretended(promise=0.2, largest=4) as served:
        with served.hand.held():
            waiting = [served.raw(head, body) for _ in range(80)]  # an image takes 4 ms
            until(lambda: "busy" in served.get("/metrics").text)
            refused = served.predict(body)
            for one in waiting:
                one.close()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "200 ms" in refused.json()["error"]
        until(lambda: served.front.team.free)
        assert served.predict(body).status_code == 200


def test_a_queue_has_an_end():
    some = images(128)
    with pretended() as served:
        with served.hand.held(), ThreadPoolExecutor(8) as pool:
            found = [pool.submit(served.predict, *some) for _ in range(6)]
            until(lambda: sum(one.done() for one in found) == 2)  # four wait: 512 images
            served.hand.open.set()
        assert sorted(one.result().status_code for one in found) == [200] * 4 + [429] * 2
        assert 'vitrail_refused_images_total{reason="full"} 256.0' in served.get("/metrics").text


def test_clients_that_hang_up_leave_no_place_taken():
    body = png(size=(31, 17))
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with pretended(largest=8) as served:
        with served.hand.held():
            held = [served.raw(head, body) for _ in range(50)]
            until(
                lambda: (
                    served.hand.batches and len(served.front.batcher.waiting) >= 50 - served.hand.sizes()[0]
                )
            )
            for one in held:
                one.close()
            until(lambda: not served.front.batcher.waiting)
        wave = at_once(20, lambda number: served.predict(png()))
        assert [one.status_code for one in wave] == [200] * 20
        assert sum(served.hand.sizes()[1:]) == 20  # nothing was computed for those who had gone
        assert served.front.batcher.computing == 0


def test_the_parts_of_the_time_add_up_to_all_of_it():
    def slow(batch):
        time.sleep(0.03)
        return answers_at_once(batch)._replace(decode=0.01, network=0.02)

    with pretended() as served:
        served.hand.answer = slow
        apart = []
        for _ in range(9):
            found = served.predict(png()).json()
            one = found["answers"][0]
            apart.append(abs(found["total_ms"] - one["queue_ms"] - one["decode_ms"] - one["network_ms"]))
            assert one["decode_ms"] == 10
            assert one["network_ms"] == 20
        assert sorted(apart)[4] < 2


def test_a_worker_that_ends_gives_its_images_to_another_one():
    with pretended(workers=2, largest=4) as served:
        served.hand.ends_of = lambda batch: len(served.hand.batches) == 1
        answer = served.predict(*images(4))
        assert answer.status_code == 200
        assert all("bytes" in one for one in answer.json()["answers"])
        until(lambda: served.front.team.alive == 2)
        assert "vitrail_worker_restarts 1.0" in served.get("/metrics").text


def test_without_a_worker_requests_get_503_until_it_is_back():
    with pretended(promise=10) as served:
        served.hand.started.clear()
        served.hand.ends_of = lambda batch: len(served.hand.batches) == 1
        box = []
        waiter = threading.Thread(target=lambda: box.append(served.predict(png())))
        waiter.start()
        until(lambda: served.front.team.alive == 0)
        refused = served.predict(png())
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert served.get("/health/ready").status_code == 503
        assert served.get("/health/live").status_code == 200
        assert served.get("/health/started").status_code == 200
        served.hand.started.set()
        waiter.join(20)
        assert box[0].status_code == 200  # what was accepted is answered by the new one
        assert served.get("/health/ready").status_code == 200
        assert served.predict(png()).status_code == 200


def test_an_image_that_ends_two_workers_is_given_up_and_its_neighbours_are_answered():
    with pretended(largest=4) as served:
        served.hand.ends_of = lambda batch: any(b"deadly" in one.data for one in batch.pictures)
        answer = served.predict(png(), png() + b"deadly", png())
        assert answer.status_code == 200
        told = answer.json()["answers"]
        assert ["error" in one for one in told] == [False, True, False]
        assert "twice" in told[1]["error"]
        assert served.front.team.restarts == 2


def test_a_batch_that_fails_in_a_way_nobody_thought_of_is_answered():
    with pretended() as served:
        served.hand.answer = lambda batch: Done((), 0.0, 0.1)
        assert served.predict(png()).status_code == 503
        served.hand.answer = answers_at_once
        assert served.predict(png()).status_code == 200


def test_images_with_other_options_share_no_batch():
    with pretended(largest=10) as served:
        first = threading.Thread(target=served.predict, args=(png(),))
        with held_until_they_wait(served, 12):
            first.start()
            until(lambda: served.hand.batches)
            options = [{"threshold": 0.5} if number % 2 else {} for number in range(12)]
            found = at_once(12, lambda number: served.predict(png(), params=options[number]))
            first.join()
        assert {one.status_code for one in found} == {200}
        assert served.hand.sizes() == [1, 6, 6]
        assert {batch.options.threshold for batch in served.hand.batches} == {None, 0.5}


@pytest.mark.parametrize("point", ["whole", "quarter"])
def test_a_request_gets_the_point_that_it_names(point):
    with pretended(promise=1.0) as served:
        found = served.predict(png(), params={"point": point})
        assert found.json()["answers"][0]["point"] == point
        assert served.predict(png(), params={"point": "tenth"}).status_code == 422


def test_four_ways_to_send_an_image_give_the_same_bytes():
    data = png("olive")
    text = base64.b64encode(data).decode()
    ways = [
        {"content": data},
        {"content": data, "headers": {"content-type": "image/png"}},
        {"content": data, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"files": {"file": ("a.png", data)}},
        {"json": {"images": [text]}},
        {"json": {"images": [{"data": text, "name": "a.png"}]}},
        {"json": {"images": [f"data:image/png;base64,{text}"]}},
    ]
    binary = (
        b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":%d}}]}'
    )
    head = binary % (len(data) + 4)
    with pretended() as served:
        for way in ways:
            assert served.post("/predict", **way).json()["answers"][0]["bytes"] == len(data)
        assert served.put("/predict/a.png", content=data).json()["answers"][0]["name"] == "a.png"
        inputs = [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]
        assert served.post("/v2/models/toy/infer", json={"inputs": inputs}).status_code == 200
        length = {"inference-header-content-length": str(len(head))}
        body = head + struct.pack("<I", len(data)) + data
        assert served.post("/v2/models/toy/infer", content=body, headers=length).status_code == 200
        assert {batch.pictures[0].data for batch in served.hand.batches} == {data}


def test_images_as_lists_of_numbers_are_refused(plain):
    for pixels in ([[1, 2], [3, 4]], [1, 2, 3]):
        answer = plain.post("/predict", json={"images": [pixels]})
        assert answer.status_code == 422
        assert "BASE64" in answer.json()["error"]


def test_one_broken_image_among_good_ones_has_an_error_of_its_own(plain):
    found = plain.predict(png(), b"broken", png())
    assert found.status_code == 200
    assert ["error" in one for one in found.json()["answers"]] == [False, True, False]
    found = plain.predict(b"broken", b"broken too")
    assert found.status_code == 422
    assert "0.png" in found.json()["error"]
    assert len(found.json()["answers"]) == 2


def test_requests_without_a_promise_wait_as_long_as_they_may():
    with pretended(limits=Limits(seconds=0.5)) as served:
        with served.hand.held():
            assert served.predict(png()).status_code == 429
        assert served.predict(png()).json()["late"] is False


def test_the_metrics_contain_what_was_served():
    with pretended() as served:
        served.predict(*images(3))
        served.predict(png(), params={"point": "quarter"})
        served.get("/nothing/here")
        text = served.get("/metrics").text
        assert 'vitrail_images_total{point="whole"} 3.0' in text
        assert 'vitrail_images_total{point="quarter"} 1.0' in text
        assert 'vitrail_requests_total{code="200",path="/predict"} 2.0' in text
        assert 'vitrail_requests_total{code="404",path="other"} 1.0' in text
        assert "vitrail_batch_images_count 2.0" in text
        assert 'vitrail_seconds_count{part="queue"} 4.0' in text
        assert "vitrail_workers 1.0" in text


def test_the_card_says_what_is_served():
    with pretended(promise=0.25, largest=8) as served:
        card = served.get("/card").json()
        assert [one["point"] for one in card["points"]] == [one.name for one in FACTS.points]
        assert card["points"][0]["interval"] == [0.8, 0.95]
        assert (card["promise_ms"], card["largest_batch"]) == (250, 8)
        assert card["labels"] == ["cat", "dog"]
        assert card["limits"]["images"] == 128


def test_the_states_are_apart_while_the_model_opens():
    hand = Hand()
    hand.started.clear()
    with pretended(hand=hand, wait=False) as served:
        assert served.get("/health/live").status_code == 200
        for path in ("/health/started", "/health/ready", "/v2/health/ready", "/card"):
            assert served.get(path).status_code == 503, path
        early = served.predict(png())
        assert early.status_code == 503
        assert int(early.headers["retry-after"]) >= 1
        hand.started.set()
        until(lambda: served.get("/health/ready").status_code == 200)
        assert served.get("/health/started").json()["started"] is True
        assert served.predict(png()).status_code == 200


def test_a_model_that_cannot_be_opened_is_live_and_never_started():
    hand = Hand()
    hand.failure = "toy is not a model. Name a run."
    with pretended(hand=hand, wait=False) as served:
        until(lambda: "toy is not" in served.get("/health/started").json()["error"])
        assert served.get("/health/live").status_code == 200
        assert served.get("/health/ready").status_code == 503
