"""Named classes: the words of the command, the mean of the templates, and how predictions read."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vitrail.core.errors import UsageError
from vitrail.search.zero_shot import PLAIN, TEMPLATES, Named, class_vectors, wish_of


class Told:
    """Words whose vectors depend on the text alone."""

    def __init__(self, kind="clip"):
        self.vocabulary = SimpleNamespace(kind=kind, of_clip=kind == "clip")
        self.asked = []

    def vectors(self, texts):
        self.asked += texts
        found = np.stack([np.random.default_rng(list(text.encode())).normal(size=7) for text in texts])
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    def notes(self, text):
        return [f"{text} is odd."] if text == "odd" else []


def test_the_words_of_the_command():
    wish = wish_of(" cat, big  dog ,cat,Something else", ["a {}"])
    assert wish.names == ("cat", "big dog")
    assert wish.other == "Something else"
    assert wish.templates == ("a {}",)
    for names in ("cat", "", "something else", ",,"):
        with pytest.raises(UsageError, match="at least two"):
            wish_of(names, [])
    assert wish_of("cat,none of these", []).names == ("cat",)
    with pytest.raises(UsageError, match="has no place"):
        wish_of("cat,dog", ["a photo"])


def test_a_class_is_the_mean_of_its_texts():
    words = Told()
    made, notes = class_vectors(words, wish_of("cat,dog", ["a {}", "the {} of {}"]))
    assert words.asked == ["a cat", "the cat of cat", "a dog", "the dog of dog"]
    single = Told().vectors(["a dog", "the dog of dog"])
    mean = single.mean(0)
    np.testing.assert_allclose(made[1], mean / np.linalg.norm(mean), rtol=1e-5)
    assert not notes


def test_templates_are_for_models_of_the_web_and_notes_are_kept():
    words = Told()
    class_vectors(words, wish_of("cat,dog", []))
    assert len(words.asked) == 2 * len(TEMPLATES) == 24
    assert all("{}" in one for one in (*TEMPLATES, *PLAIN))
    own = Told("own")
    _, notes = class_vectors(own, wish_of("cat,odd", []))
    assert own.asked == ["cat", "odd"]
    assert notes[0] == "odd is odd."
    assert "--template" in notes[1]


def test_how_a_prediction_reads():
    one = Named(("cat", "dog"), (0.75, 0.25), 0.31, True, "something else")
    assert one.label == "something else"
    assert str(one) == "something else, nearest to cat 75.0%"
    assert str(Named(("cat", "dog"), (0.75, 0.25), 0.31, True)) == "none of these, nearest to cat 75.0%"
    sure = Named(("cat", "dog"), (0.75, 0.25), 0.31, None, "something else")
    assert str(sure) == "cat 75.0%"
    assert sure.rows() == [
        {"label": "cat", "probability": 0.75, "cosine": 0.31, "none_of_these": None, "nearest": "cat"}
    ]
    assert one.to_dict()["top"][1] == {"label": "dog", "probability": 0.25}
