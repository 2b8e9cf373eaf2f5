"""Features of a frozen network: photographs to vectors, ours beside the way before and timm; then four convnets.

`python -m bench.features [ROUNDS]`, by default 5. DINOv2 ViT-S/14 at 224 px with real weights; wants ../shared (weights
and photographs) beside the repository. "Before" is what a draft did until then: one process reads while the network
runs under autocast. The convnets have random weights, which change no speed, unless theirs are in ../shared.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.data import DataLoader

from bench import toy
from bench.draft import SHARED, photographs
from bench.pairs import in_turn, machine, ratio
from vitrail.data.decode import decode
from vitrail.data.loader import ImageDataset, Share, evaluation
from vitrail.data.manifest import Manifest, Row
from vitrail.data.prepare import prepare
from vitrail.data.preprocess import Preprocess
from vitrail.data.targets import NoTargets
from vitrail.data.truth import Truth
from vitrail.infer.feature_backends import FeatureBackends, feature_network
from vitrail.layers.encoder import Encoder
from vitrail.layers.pooling import Pool
from vitrail.models.factory import create_encoder
from vitrail.runs.device import fast_bf16
from vitrail.training.feature_cache import BATCH, Frozen, pool_kind
from vitrail.weights.pretrained import from_path

CPU = torch.device("cpu")
IMAGES = 192
CONVNETS = ("resnet50", "tf_efficientnet_lite0", "mobilenetv3_large_100", "convnext_tiny")


def before(frozen: Frozen, manifest: Manifest, rows: list[Row]) -> int:
    """Compute the features as before; return how many images there were."""
    pool = Pool(frozen.encoder.spec, pool_kind(frozen.encoder.spec))
    images = ImageDataset(rows, manifest.root, frozen.preprocess, NoTargets(Truth("none")))
    done = 0
    for batch in evaluation(images, BATCH, Share(), 1):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16(CPU)):
            done += len(pool(frozen.encoder(batch.images)).float())
    return done


def timm_features(manifest: Manifest, rows: list[Row]) -> Callable[[bool], int]:
    """Return timm's features of the images, as its users compute them, in float32 or under autocast."""
    import timm
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    network = timm.create_model("vit_small_patch14_dinov2", img_size=224).eval()
    transform = create_transform(**resolve_data_config({"input_size": (3, 224, 224)}, model=network))

    class Photographs(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, at: int) -> torch.Tensor:
            pixels: torch.Tensor = transform(Image.open(manifest.root / rows[at].path).convert("RGB"))
            return pixels

    def run(bf16: bool) -> int:
        done = 0
        for pixels in DataLoader(Photographs(), BATCH, num_workers=1):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                done += len(network.forward_features(pixels).float())
        return done

    return run


def columns(rounds: int, folder: Path) -> Iterator[str]:
    """Measure the photographs; yield the rows of a table."""
    photographs(folder / "photos")
    manifest = prepare(folder / "photos").manifest
    rows = manifest.rows()
    encoder = from_path(SHARED / "weights" / "dinov2-small-saliency").build(image=(224, 224))
    frozen = Frozen(encoder, Preprocess.for_size(224), CPU)
    plan = frozen.backend(manifest, rows)
    seen = frozen.backends.seen[plan]
    yield f"chosen for {len(rows):,} photographs: {plan}, {seen.off:.3f} of the spread off float32\n"
    few = rows[:IMAGES]
    theirs = timm_features(manifest, few)
    things: dict[str, Callable[[], object]] = {
        "ours": lambda: list(frozen.compute(manifest, few, plan)),
        "before: one process reads, autocast": lambda: before(frozen, manifest, few),
        "timm, float32": lambda: theirs(False),
        "timm, autocast": lambda: theirs(True),
    }
    for other in frozen.backends.plans:
        if other != plan:
            things[f"ours, {other}"] = lambda other=other: list(frozen.compute(manifest, few, other))
    times = in_turn(things, rounds, 1)
    yield "| photographs to features | images/s | ours is faster by |"
    yield "|---|---|---|"
    for name, seconds in times.items():
        faster = "–" if name == "ours" else str(ratio(times["ours"], seconds))
        yield f"| {name} | {IMAGES / median(seconds):.1f} | {faster} |"


def prepared(folder: Path) -> torch.Tensor:
    """Return prepared photographs: on noise the features of an untrained network are all alike."""
    steps = Preprocess.for_size(224)
    windows = toy.windows(BATCH) if not (folder / "photos").is_dir() else ()
    paths = sorted((folder / "photos").rglob("*.jpg"))[:: 1000 // BATCH][:BATCH]
    arrays = [decode(path, 3).image for path in paths] or [np.asarray(one.image) for one in windows]
    return torch.stack([steps.eval(array)[0] for array in arrays])


def convnet(name: str) -> Encoder:
    """Return a convnet, with real weights if they are in ../shared."""
    torch.manual_seed(0)
    weights = SHARED / "weights" / name
    return from_path(weights).build() if weights.is_dir() else create_encoder(name, image=(224, 224)).eval()


def convnets(rounds: int, folder: Path) -> Iterator[str]:
    """Measure every backend of the convnets on prepared images; yield the rows of a table."""
    yield "\n| 16 at once, 224 px | chosen for 1,000 | images/s of each backend | faster than the best of the four by |"
    yield "|---|---|---|---|"
    images = prepared(folder)
    for name in CONVNETS:
        encoder = convnet(name)
        network = feature_network(encoder, Pool(encoder.spec, pool_kind(encoder.spec)))
        found = FeatureBackends(network, (BATCH, 3, 224, 224), CPU, folder / f"{name}.json")
        chosen = found.choose(dict.fromkeys(found.plans, 1_000), lambda: images)
        ways = {plan: found.network_of(plan) for plan in found.plans}
        with torch.inference_mode():
            times = in_turn({str(p): partial(run, {"images": images}) for p, run in ways.items()}, rounds)
        eager = [str(plan) for plan in ways if plan.engine == "eager"]
        best = min(eager, key=lambda plan: median(times[plan]))
        each = "; ".join(f"{plan} {BATCH / median(seconds):.1f}" for plan, seconds in times.items())
        yield f"| {name} | {chosen} | {each} | {ratio(times[str(chosen)], times[best])} |"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        os.environ["VITRAIL_CACHE"] = str(Path(name) / "cache")
        if SHARED.is_dir():
            for line in columns(rounds, Path(name)):
                print(line, flush=True)
        else:
            print("skipped: ../shared is not here")
        for line in convnets(2 * rounds, Path(name)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
