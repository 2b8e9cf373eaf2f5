"""Our corruptions and attacks against imagecorruptions-imaug 1.1.5 and adversarial-robustness-toolbox 1.20.1.

`python -m bench.robustness_oracles`, in an environment of its own that has both, and torch: neither is a dependency
(OpenCV, numba and scikit-image come with the first). A way to have one, beside the project's own environment:

    python -m venv oracle
    oracle/bin/pip install imagecorruptions-imaug==1.1.5
    oracle/bin/pip install --no-deps adversarial-robustness-toolbox==1.20.1 six tqdm
    PYTHONPATH=.:.venv/lib/python3.11/site-packages oracle/bin/python -m bench.robustness_oracles

Corruptions: photographs of ../shared at 224 px, difference in grey values of 255. What is drawn at random is drawn
alike where both draw in the same order (noise of one generator), else the spread of the change is compared; the
direction of the motion blur is set. Attacks: a small network of random weights, with steps of equal length and number
from the images themselves, one start; difference of the pixels.
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from bench.pairs import machine
from vitrail.robustness.attacks import STEP, Look, fgsm, pgd, within_ball
from vitrail.robustness.corruptions import KINDS, corrupt

SHARED = Path(__file__).resolve().parents[2] / "shared"
THEIRS = {
    "Gaussian noise": "gaussian_noise", "shot noise": "shot_noise", "defocus blur": "defocus_blur",
    "motion blur": "motion_blur", "brightness": "brightness", "contrast": "contrast", "pixelate": "pixelate",
    "JPEG": "jpeg_compression",
}  # fmt: skip
RANDOM = ("Gaussian noise", "shot noise")


def photographs(count: int) -> list[np.ndarray]:
    with zipfile.ZipFile(SHARED / "data" / "photos-100.zip") as packed:
        names = [
            name for name in sorted(packed.namelist()) if name.lower().endswith((".jpg", ".jpeg", ".png"))
        ]
        images = [Image.open(BytesIO(packed.read(name))).convert("RGB") for name in names[:count]]
    return [np.asarray(image.resize((224, 224))) for image in images]


def corruptions(images: list[np.ndarray]) -> None:
    from imagecorruptions import corrupt as theirs

    print(
        "| corruption | severity | mean difference | 99th percentile | largest | mean change, ours | theirs |"
    )
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        for severity in (1, 2, 3):
            apart, own, other = [], [], []
            for seed, image in enumerate(images):
                ours = corrupt(kind, severity, image, seed).astype(float)
                with same_direction(seed):
                    found = theirs(image, corruption_name=THEIRS[kind], severity=2 * severity - 1)
                apart.append(np.abs(ours - found))
                own.append(np.abs(ours - image).mean())
                other.append(np.abs(found.astype(float) - image).mean())
            whole = np.stack(apart)
            numbers = (
                ["–"] * 3
                if kind in RANDOM
                else [f"{whole.mean():.2f}", f"{np.percentile(whole, 99):.0f}", f"{whole.max():.0f}"]
            )
            print(
                f"| {kind} | {severity} | {' | '.join(numbers)} | {np.mean(own):.1f} | {np.mean(other):.1f} |",
                flush=True,
            )


class same_direction:
    """Make the other library draw the direction that ours draws with a seed."""

    def __init__(self, seed: int) -> None:
        self.angle = np.random.default_rng(seed).uniform(-45, 45)

    def __enter__(self) -> None:
        self.kept = np.random.uniform
        np.random.uniform = lambda *a, **k: self.angle

    def __exit__(self, *_: object) -> None:
        np.random.uniform = self.kept


class Plain:
    """A small network as a target that counts nothing as fooled, so that attacks go to their end."""

    def __init__(self, network: nn.Module, pixels: torch.Tensor, truth: torch.Tensor) -> None:
        self.network, self.pixels, self.truth = network, pixels, truth

    def look(self, pixels: torch.Tensor, which: torch.Tensor) -> Look:
        changed = pixels.clone().requires_grad_()
        loss = nn.functional.cross_entropy(self.network(changed), self.truth[which], reduction="sum")
        return Look(torch.autograd.grad(loss, changed)[0], torch.ones(len(which), dtype=torch.bool))

    def right(self, pixels: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(which), dtype=torch.bool)


def attacks() -> None:
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2),
        nn.GELU(),
        nn.Conv2d(16, 32, 3, 2),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )
    pixels, truth = torch.rand(64, 3, 32, 32), torch.randint(10, (64,))
    other = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (3, 32, 32), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    target = Plain(network, pixels, truth)
    print(
        "\n| attack | epsilon, of 255 | largest difference of a pixel | fooled by ours | by theirs |\n"
        "|---|---|---|---|---|"
    )
    for grey in (1, 4, 16):
        epsilon = grey / 255
        found = FastGradientMethod(other, eps=epsilon).generate(pixels.numpy(), truth.numpy())
        which = torch.arange(len(pixels))
        ours = within_ball(pixels + epsilon * target.look(pixels, which).gradient.sign(), pixels, epsilon)
        row("FGSM", grey, network, truth, ours, torch.from_numpy(found))
        method = ProjectedGradientDescent(
            other,
            norm=np.inf,
            eps=epsilon,
            eps_step=STEP * epsilon,
            max_iter=20,
            num_random_init=0,
            verbose=False,
        )
        found = method.generate(pixels.numpy(), truth.numpy())
        ours = pgd(target, epsilon, pixels, 20, torch.ones(len(pixels), dtype=torch.bool)).pixels
        row("PGD-20", grey, network, truth, ours, torch.from_numpy(found))
    assert fgsm(target, [0.1]).shape == (1, 64)


def row(
    name: str, grey: int, network: nn.Module, truth: torch.Tensor, ours: torch.Tensor, other: torch.Tensor
) -> None:
    with torch.no_grad():
        fooled = [f"{(network(one).argmax(1) != truth).float().mean():.1%}" for one in (ours, other)]
    print(f"| {name} | {grey} | {(ours - other).abs().max():.1e} | {' | '.join(fooled)} |")


def main() -> None:
    print(machine())
    corruptions(photographs(12))
    attacks()


if __name__ == "__main__":
    main()
