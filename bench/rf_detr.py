"""RF-DETR beside transformers' RfDetrForObjectDetection, with the same random weights: N at 384 px, 91 classes.

`python -m bench.rf_detr [--rounds 15] [--batches 1,4] [--seg] [--profile]`

In float32 and eager both; then our backends without those in int8, if their fingerprint is near enough to that of the
eager network, as for a model file (random weights find no box that is sure enough to be compared). `--seg` is
RF-DETR-Seg-S beside RfDetrForInstanceSegmentation. `--profile` prints where the time of both eager networks goes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import RfDetrConfig as TheirConfig
from transformers import RfDetrForInstanceSegmentation, RfDetrForObjectDetection

from bench.pairs import in_turn, machine, ratio, table
from vitrail.benchmark.peers import forward
from vitrail.infer.backend_check import DRIFT
from vitrail.infer.backends import BackendNetwork, backends_for
from vitrail.infer.openvino_backend import OfImages
from vitrail.infer.quantize_int8 import Scales
from vitrail.layers.heads import Output
from vitrail.models.factory import create_encoder
from vitrail.models.rf_detr import RfDetrConfig
from vitrail.runs.network import Network, build_network, build_task
from vitrail.tasks.base import Task
from vitrail.weights.rules import save
from vitrail.weights.tables import rf_detr

CLASSES = 91
OURS, THEIRS = "vitrail eager", "transformers eager"


class Pair:
    """The same network with the same weights, ours and theirs, and our task."""

    def __init__(self, seg: bool) -> None:
        torch.manual_seed(0)
        preset, kind, layers, queries = (
            ("rf_detr_seg_s", "instances", 4, 100) if seg else ("rf_detr_n", "detect", 2, 300)
        )
        stated = {
            "layers": layers, "hidden": 2048, "queries": queries, "groups": 1, "anchor": 0.05, "margin": 0.01
        }  # fmt: skip
        encoder = create_encoder(preset)
        self.task: Task[Any, Any] = build_task(kind, [f"class {i}" for i in range(CLASSES)], stated)
        self.ours: Network = build_network(encoder, self.task).eval().requires_grad_(False)
        with torch.no_grad():  # so that boxes move, and classes differ
            for name, parameter in self.ours.named_parameters():
                if parameter.ndim > 1 and not parameter.any():
                    nn.init.normal_(parameter, std=0.02)
                elif "offsets.weight" in name:
                    nn.init.normal_(parameter, std=0.01)
        self.theirs = _twin(self.ours, encoder.config, stated, seg)
        self.size = encoder.image_size

    def images(self, count: int) -> Tensor:
        """Return random images (b, 3, height, width)."""
        return torch.randn(count, 3, *self.size, generator=torch.Generator().manual_seed(count))


def _twin(ours: Network, config: RfDetrConfig, stated: Mapping[str, Any], seg: bool) -> nn.Module:
    backbone = {
        "model_type": "rf_detr_dinov2", "hidden_size": config.width, "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads, "patch_size": config.patch, "image_size": config.size[0],
        "num_windows": config.windows, "out_features": [f"stage{tap}" for tap in config.taps],
    }  # fmt: skip
    theirs = TheirConfig(
        backbone_config=backbone, d_model=256, decoder_layers=stated["layers"], decoder_ffn_dim=stated["hidden"],
        decoder_n_points=2, num_queries=stated["queries"], group_detr=stated["groups"], num_labels=CLASSES,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    kind = RfDetrForInstanceSegmentation if seg else RfDetrForObjectDetection
    tensors = save(rf_detr.table(), ours.encoder.state_dict(), ours.head.state_dict())
    network = kind.from_pretrained(None, config=theirs, state_dict=tensors)
    return network.eval().requires_grad_(False)  # type: ignore[no-any-return]


def our_ways(pair: Pair, images: Tensor, folder: Path) -> dict[str, Callable[[], Any]]:
    """Return our other backends that answer nearly as the eager network, by name."""
    shape = (images.shape[0], images.shape[1], images.shape[2], images.shape[3])
    with torch.inference_mode():
        expected = pair.task.fingerprint(pair.ours({"images": images}))
    ways: dict[str, Callable[[], Any]] = {}
    for plan in backends_for(pair.ours, images.device)[1:]:
        if "int8" in str(plan):
            continue
        network = BackendNetwork(pair.ours, plan, shape, folder / "network.openvino", Scales(images.cpu))
        with torch.inference_mode():
            found: Output = network({"images": images})
        apart = float((pair.task.fingerprint(found) - expected).abs().max())
        print(f"{plan}: the fingerprint differs by at most {apart:.1e}", flush=True)
        if apart <= DRIFT:
            ways[f"vitrail {plan}"] = forward(lambda images, run=network: run({"images": images}), images)
    return ways


def compare(pair: Pair, count: int, rounds: int) -> None:
    """Print the table of one batch size."""
    images = pair.images(count)
    with torch.inference_mode():
        ours, theirs = pair.ours({"images": images}), pair.theirs(images)
    apart = float((ours["boxes"] - theirs.pred_boxes).abs().max())
    print(f"\n{count} at once: boxes differ by at most {apart:.1e}", flush=True)
    ways = {OURS: forward(OfImages(pair.ours), images), THEIRS: forward(pair.theirs, images)}
    with tempfile.TemporaryDirectory() as folder:
        ways |= our_ways(pair, images, Path(folder))
        times = in_turn(ways, rounds)
    print(table(times, OURS, "images", count))
    best = min((name for name in times if name != THEIRS), key=lambda name: sum(times[name]))
    for name in dict.fromkeys((OURS, best)):
        print(f"{name} is faster than {THEIRS} by {ratio(times[name], times[THEIRS])}")


def show_profile(pair: Pair) -> None:
    """Print the operations of both networks for one image, the longest first."""
    images = pair.images(1)
    for name, run in ((OURS, forward(OfImages(pair.ours), images)), (THEIRS, forward(pair.theirs, images))):
        for _ in range(3):
            run()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(5):
                run()
        print(name)
        print(
            seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=22, max_name_column_width=40)
        )


def main() -> None:
    """Measure both networks in turn, or profile them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--seg", action="store_true")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    print(machine())
    pair = Pair(asked.seg)
    if asked.profile:
        show_profile(pair)
        return
    for count in map(int, asked.batches.split(",")):
        compare(pair, count, asked.rounds)


if __name__ == "__main__":
    main()
