"""Small models that answer digits mostly right: random encoders with a fitted linear head."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network
from vitrail.tasks.classify.task import Classify

CLASSES = "0123"


class Small(NamedTuple):
    """A model of digits, and the rows and the folder of its images."""

    predictor: Predictor
    rows: list[Row]
    root: object


@pytest.fixture(scope="session")
def rows_of_digits(some_digits):
    """Rows of ten images each of four digits, and their folder."""
    root = some_digits(CLASSES, 10)
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*"))
    return [Row(name, name, target=name[0], split="test", hash=name) for name in files], root


@pytest.fixture(scope="session")
def small(rows_of_digits, model_file):
    """Return a model with an encoder of this name."""
    rows, root = rows_of_digits

    def make(name: str) -> Small:
        torch.manual_seed(0)
        steps = Preprocess((32, 32), "squash", 1.0, (0.5,) * 3, (0.25,) * 3)
        task = Classify(tuple(CLASSES))
        settings = {"depth": 2} if name == "vit_digits" else {}
        network = build_network(create_encoder(name, image=(32, 32), settings=settings), task).eval()
        path = model_file(name, network, task, steps)
        features = Predictor(path, "cpu").encode([root / row.path for row in rows]).numpy()
        mean, spread = features.mean(0), features.std(0) + 1e-6
        fitted = LogisticRegression(C=10).fit((features - mean) / spread, [row.target for row in rows])
        weight = fitted.coef_ / spread
        with torch.no_grad():
            network.head.linear.weight.copy_(torch.tensor(weight))
            network.head.linear.bias.copy_(torch.tensor(fitted.intercept_ - weight @ mean))
        return Small(Predictor(model_file(name, network, task, steps), "cpu"), rows, root)

    return make


@pytest.fixture(scope="session")
def vit(small):
    return small("vit_digits")


@pytest.fixture(scope="session")
def cnn(small):
    return small("resnet10t")
