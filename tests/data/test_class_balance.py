from __future__ import annotations

import numpy as np

from vitrail.data.class_balance import class_weights, positive_weights, sampling_weights
from vitrail.data.manifest import Row
from vitrail.tasks.classify.targets import labels_of

ROWS = [Row(str(i), str(i), "", "a" if i < 9 else "b") for i in range(12)]
MANY = [Row(str(i), str(i), "", target) for i, target in enumerate(("a|b", "a", "a", ""))]


def test_every_class_weighs_the_same_in_the_loss() -> None:
    weights = class_weights(ROWS, ("a", "b"), labels_of)
    np.testing.assert_allclose(weights * [9, 3], [6, 6], rtol=1e-6)
    np.testing.assert_allclose(class_weights(ROWS, ("a", "absent", "b"), labels_of)[1], 1)


def test_every_class_is_drawn_as_often() -> None:
    chances = sampling_weights(ROWS, labels_of)
    np.testing.assert_allclose([chances[:9].sum(), chances[9:].sum()], [0.5, 0.5])


def test_several_labels_a_row() -> None:
    np.testing.assert_allclose(positive_weights(MANY, ("a", "b"), labels_of), [1 / 3, 3])
    np.testing.assert_allclose(sampling_weights(MANY, labels_of), np.array([1, 1 / 3, 1 / 3, 1]) / (8 / 3))
