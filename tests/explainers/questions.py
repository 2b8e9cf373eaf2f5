"""Questions to small random networks, for the tests of explainers."""

from __future__ import annotations

import torch

from vitrail.explainers.target import Subject
from vitrail.models.factory import build, config_of
from vitrail.runs.network import Classifier, build_network, build_task
from vitrail.runs.run_network import ASK


def ask(config, *, labels="abc", pool=None, head=None, seed=0):
    """Return a Subject: what speaks for the first label, in a network of these settings or of this name."""
    torch.manual_seed(seed)
    config = config_of(config, image=32) if isinstance(config, str) else config
    task = build_task("classify", list(labels), {"pool": pool})
    network = build_network(build(config), task).eval().requires_grad_(False)
    if head is not None:
        network.head = head(network.spec, len(labels)).eval().requires_grad_(False)
    for (
        parameter
    ) in network.parameters():  # some parts start at zero, which would hide what stands before them
        parameter.add_(0.05 * torch.randn_like(parameter))
    logits = torch.zeros(1, len(labels))
    logits[0, 0] = 1
    prediction = task.decode({"logits": logits}, [None], ASK)[0]
    return Subject(network, task, prediction, getattr(config, "name", "a network"))


def classifier(subject):
    """Return the network of a subject as a function from images to logits, as Captum takes it."""
    return Classifier(subject.network.encoder, subject.network.head)


def pictures(subject, count=2, size=None, seed=1):
    """Return random inputs of the size that the network is made for."""
    config = subject.network.encoder.config
    torch.manual_seed(seed)
    return torch.randn(count, config.channels, *(size or config.size))
