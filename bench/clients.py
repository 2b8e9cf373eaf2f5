"""Other programs on our files: how often they give the top answer of `vitrail predict`, and how far they drift.

`python -m bench.clients [NETWORK …]`; the networks are `lite0` and `vit` for photographs, `squash` and `pad` for small
drawings. Wants ../shared (weights and photographs) beside the repository. Photographs and odd ones (large, thin, grey,
turned by EXIF, with transparency, CMYK, 16 bit, with a palette) are decoded as each program's users decode them. OpenCV
and onnxruntime-node (found by NODE_PATH) are asked where they are installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from bench.pairs import machine
from vitrail.core.errors import VitrailError
from vitrail.data.preprocess import Preprocess
from vitrail.export.export import export
from vitrail.infer.openvino_backend import Translated
from vitrail.infer.predictor import Predictor, load
from vitrail.infer.runtimes import core
from vitrail.models.factory import describe
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.network import Network, build_network, build_task, create_model
from vitrail.runs.proof import answer
from vitrail.weights.preprocessing import published_preprocess
from vitrail.weights.pretrained import from_path

SHARED = Path(__file__).resolve().parents[2] / "shared"
UNSEEN = 270
"""Drawings that are asked, and no classifier is fitted to."""

NODE = Path(__file__).with_name("clients.cjs")

Asked = Callable[[Sequence[Path]], np.ndarray]
"""From files to the probabilities of each, in the order of the labels."""


def photographs(folder: Path) -> list[list[Path]]:
    """Write the hundred photographs as they are, and odd versions of some."""
    folder.mkdir()
    with zipfile.ZipFile(SHARED / "data" / "photos-100.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".JPEG"))
        for name in names:
            (folder / Path(name).with_suffix(".jpg").name).write_bytes(archive.read(name))
    photos = sorted(folder.iterdir())
    return [photos, odd(folder.with_name(f"odd {folder.name}"), photos)]


def odd(folder: Path, photos: Sequence[Path]) -> list[Path]:
    """Write odd versions of six photographs: eight kinds."""
    folder.mkdir()
    for i, file in enumerate(photos[::17]):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        grey = image.convert("L")
        turned = Image.Exif()
        turned[0x0112] = (3, 6, 8)[i % 3]
        image.resize((4000, 3000)).save(folder / f"{i} large.jpg", quality=90)
        image.resize((640, 23)).save(folder / f"{i} thin.png")
        grey.save(folder / f"{i} grey.png")
        image.save(folder / f"{i} turned.jpg", exif=turned, quality=95)
        ramp = Image.fromarray(np.tile(np.linspace(0, 255, image.width, dtype=np.uint8), (image.height, 1)))
        image.putalpha(ramp)
        image.save(folder / f"{i} alpha.png")
        opened = image.convert("RGB")
        opened.convert("CMYK").save(folder / f"{i} cmyk.jpg", quality=95)
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / f"{i} 16 bit.png")
        opened.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / f"{i} palette.png")
    return sorted(folder.iterdir())


def drawings(folder: Path) -> list[list[Path]]:
    """Write small drawings, a third of them a column or a row narrower, so that their margins are odd."""
    folder.mkdir()
    for i, values in enumerate(load_digits().images):
        drawn = (values * 15.9).astype(np.uint8)[: 8 - (i % 3 == 1), : 8 - (i % 3 == 2)]
        Image.fromarray(drawn).convert("RGB").save(folder / f"{i:04}.png")
    return [sorted(folder.iterdir())]


def decoded(file: Path) -> np.ndarray:
    """Decode a file with Pillow, in the words of the exported file."""
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):
        return np.repeat(
            ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)[..., None], 3, 2
        )
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def fitted(network: Network, steps: Preprocess, files: Sequence[Path], classes: Sequence[int]) -> None:
    """Fit the classifier to what the network says of these files."""
    with torch.inference_mode():
        parts = [
            torch.stack([steps.eval(decoded(file))[0] for file in files[i : i + 16]])
            for i in range(0, len(files), 16)
        ]
        pooled = torch.cat([network.head.pool(network.encoder(part)) for part in parts])
        spread = pooled.std()
        found = LogisticRegression(C=1.0, max_iter=2000).fit(pooled / spread, classes)
        network.head.linear.weight.copy_(torch.as_tensor(found.coef_) / spread)
        network.head.linear.bias.copy_(torch.as_tensor(found.intercept_))


def classifier(folder: Path, photos: Sequence[Path]) -> Path:
    """Write timm's published EfficientNet-Lite0 with its own thousand classes."""
    from timm.data import ImageNetInfo

    weights = str(SHARED / "weights" / "tf_efficientnet_lite0")
    task = build_task("classify", list(ImageNetInfo().label_names()), {})
    made = create_model("tf_efficientnet_lite0", pretrained=weights)
    network = build_network(made.encoder, task).eval()
    network.head.load_state_dict(made.head.state_dict())
    return file_of(
        folder / "tf_efficientnet_lite0", network, task, published_preprocess(from_path(Path(weights)))
    )


def vit(folder: Path, photos: Sequence[Path]) -> Path:
    """Write the published DINOv2 ViT-S/14 with a classifier of ten groups of photographs, as they are sorted."""
    groups = [f"group {i}" for i in range(10)]
    return dino(
        folder / "dinov2_s14", Preprocess((224, 224)), groups, photos, [i // 10 for i in range(len(photos))]
    )


def small(fit: str) -> Callable[[Path, Sequence[Path]], Path]:
    """Return what writes the same at 56 px with a classifier of digits, fitted to all drawings but the last 270."""

    def write(folder: Path, drawn: Sequence[Path]) -> Path:
        steps, digits = Preprocess((56, 56), fit), [str(i) for i in range(10)]  # type: ignore[arg-type]
        classes = load_digits().target[:-UNSEEN].tolist()
        return dino(folder / f"dinov2_s14 at 56 px, {fit}", steps, digits, drawn[:-UNSEEN], classes)

    return write


def dino(path: Path, steps: Preprocess, labels: list[str], files: Sequence[Path], classes: list[int]) -> Path:
    """Write the published DINOv2 ViT-S/14 with a classifier that is fitted to files."""
    weights = str(SHARED / "weights" / "dinov2-small-saliency")
    task = build_task("classify", labels, {"pool": "mean"})
    made = create_model("dinov2_s14", len(labels), pretrained=weights, image=steps.size, pool="mean")
    network = build_network(made.encoder, task).eval()
    fitted(network, steps, files, classes)
    return file_of(path, network, task, steps)


def file_of(path: Path, network: Network, task: Any, steps: Preprocess) -> Path:
    """Write a network as a training writes it."""
    header = Header(
        name=path.name.split(",")[0],
        encoder=describe(network.encoder),
        task={"name": task.name, "labels": list(task.labels), "settings": task.settings.model_dump()},
        preprocess=steps.to_dict(),
        proof=answer(network, task, steps),
    )
    path = path.with_name(f"{path.name}.safetensors")
    write_model(path, network, header)
    return path


def of_vitrail(path: Path) -> Asked:
    """Return `vitrail predict`, of a model file or an exported one."""
    predictor = load(path)
    place = {label: i for i, label in enumerate(predictor.labels)}

    def ask(files: Sequence[Path]) -> np.ndarray:
        found = np.zeros((len(files), len(place)))
        for row, one in zip(found, predictor(list(map(str, files))), strict=True):
            row[[place[label] for label in one.labels]] = one.probabilities
        return found

    return ask


def one_by_one(
    run: Callable[[np.ndarray], np.ndarray], decode: Callable[[Path], np.ndarray] = decoded
) -> Asked:
    """Return what asks a graph image by image."""
    return lambda files: np.stack([run(decode(file)) for file in files])


def in_onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return ONNX Runtime, as its users open a file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda image: session.run(["probabilities"], {"image": image})[0]


def in_openvino(path: Path, precision: str = "") -> Callable[[np.ndarray], np.ndarray]:
    """Return OpenVINO, told nothing, or in which numbers to compute."""
    settings = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    compiled = core().compile_model(str(path), "CPU", settings)
    return lambda image: compiled(image)["probabilities"].copy()


def alone(model: Path) -> Asked:
    """Return the network alone in OpenVINO and bf16, on inputs that vitrail prepares: what its bits cost it."""
    predictor = Predictor(model, "cpu")
    shape = (8, predictor.preprocess.channels, *predictor.preprocess.size)
    quick = Translated(predictor.network, shape, "bf16")

    def ask(files: Sequence[Path]) -> np.ndarray:
        parts = [
            torch.stack([predictor.ready(file).pixels for file in files[i : i + 8]])
            for i in range(0, len(files), 8)
        ]
        found = [predictor.task.probabilities({"logits": quick(part)[0]}) for part in parts]
        return torch.cat(found).numpy()

    return ask


def by_opencv(file: Path) -> np.ndarray:
    """Decode a file with OpenCV: in colour, turned upright, its blue first."""
    import cv2

    return np.ascontiguousarray(cv2.imread(str(file), cv2.IMREAD_COLOR)[..., ::-1])


def in_node(path: Path) -> Asked:
    """Return onnxruntime-node, which reads the classes beside the file."""

    def ask(files: Sequence[Path]) -> np.ndarray:
        with tempfile.TemporaryDirectory() as name:
            shown = []
            for i, file in enumerate(files):
                image = decoded(file)
                raw = Path(name, f"{i}.raw")
                raw.write_bytes(image.tobytes())
                shown.append(
                    {"file": str(raw), **dict(zip(("height", "width", "channels"), image.shape, strict=True))}
                )
            Path(name, "shown.json").write_text(json.dumps(shown))
            words = ["node", str(NODE), str(path), str(Path(name, "shown.json"))]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
        return np.array([one["probabilities"] for one in json.loads(done.stdout)["answers"]])

    return ask


def in_timm(folder: Path) -> Asked:
    """Return timm, as its users open a folder and a file."""
    import timm
    from timm.data import create_transform, resolve_model_data_config

    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    steps = create_transform(**resolve_model_data_config(network), is_training=False)

    def ask(files: Sequence[Path]) -> np.ndarray:
        with torch.inference_mode():
            return np.stack(
                [network(steps(Image.open(f).convert("RGB"))[None]).softmax(-1)[0] for f in files]
            )

    return ask


def in_transformers(folder: Path) -> Asked:
    """Return transformers, as its users open a folder and a file."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification
    from transformers.image_utils import load_image

    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    steps = AutoImageProcessor.from_pretrained(folder)

    def ask(files: Sequence[Path]) -> np.ndarray:
        with torch.inference_mode():
            inputs = [steps(load_image(str(file)), return_tensors="pt") for file in files]
            return np.stack([network(**one).logits.softmax(-1)[0] for one in inputs])

    return ask


def clients(model: Path, data: Path, files: Sequence[Path]) -> dict[str, Callable[[], Asked]]:
    """Export a model, proven on files, and return every client that is installed, opened when it is asked."""
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    for file in files:
        shutil.copy(file, data)
    base = model.with_suffix("")
    onnx, ir = (
        export(model, format, f"{base}{end}", data=data).path
        for format, end in (("onnx", ".onnx"), ("openvino", ".xml"))
    )
    found: dict[str, Callable[[], Asked]] = {
        "`vitrail predict` on the ONNX": lambda: of_vitrail(onnx),
        "ONNX Runtime, Pillow": lambda: one_by_one(in_onnxruntime(onnx)),
    }
    if find_spec("cv2") is not None:
        found["ONNX Runtime, OpenCV decodes"] = lambda: one_by_one(in_onnxruntime(onnx), by_opencv)
    if Path(f"{onnx}.json").exists() and not node_lacks():
        found["ONNX Runtime in Node"] = lambda: in_node(onnx)
    found["OpenVINO, the network alone, bf16"] = lambda: alone(model)
    for what, path in (("ONNX", onnx), ("IR", ir)):
        for precision in ("", "f32", "bf16", "f16"):
            name = f"OpenVINO, {what}, {precision or 'told nothing'}"
            found[name] = lambda path=path, precision=precision: one_by_one(in_openvino(path, precision))
    for format, opener in (("timm", in_timm), ("huggingface", in_transformers)):
        try:
            done = export(model, format, f"{base}-{format}", data=data)
        except VitrailError as error:  # a library that has no such network
            print(f"{format}: {error}", flush=True)
            continue
        for note in done.proven.notes:
            print(f"Said by export: {note}", flush=True)
        if done.proven.prepares:
            name = f"{opener.__name__.removeprefix('in_')}, its own steps"
            found[name] = lambda opener=opener, folder=done.path: opener(folder)
    return found


def node_lacks() -> bool:
    """Tell whether node or onnxruntime-node is missing."""
    try:
        return bool(
            subprocess.run(["node", "-e", "require('onnxruntime-node')"], capture_output=True).returncode
        )
    except FileNotFoundError:
        return True


def row(name: str, ask: Asked, sets: Sequence[tuple[Sequence[Path], np.ndarray]]) -> str:
    """Return a line of the table: same top answers and drift for each set of files."""
    cells = []
    for files, wanted in sets:
        found = ask(files)
        same = found.argmax(1) == wanted.argmax(1)
        kinds = {file.stem.partition(" ")[2] for file, one in zip(files, same, strict=True) if not one}
        others = f" (not: {', '.join(sorted(kinds))})" if kinds - {""} else ""
        cells.append(f"{same.sum()} of {len(files)}{others} | {abs(found - wanted).max():.1e}")
    return f"| {name} | {' | '.join(cells)} |"


NETWORKS = {
    "lite0": (photographs, classifier),
    "vit": (photographs, vit),
    "squash": (drawings, small("squash")),
    "pad": (drawings, small("pad")),
}
"""Files, and what writes the network that is asked about them."""


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for which in sys.argv[1:] or NETWORKS:
            files, make = NETWORKS[which]
            sets = files(folder / f"files {which}")
            model = make(folder, sets[0])
            sets = [some if files is photographs else some[-UNSEEN:] for some in sets]
            heads = ["photographs", "odd images"] if files is photographs else ["drawings"]
            known = of_vitrail(model)
            asked = [(files, known(files)) for files in sets]
            print(f"\n**{model.stem}**\n")
            programs = clients(model, folder / "shown", sets[0])
            print(f"\n| client | {' | drift | '.join(heads)} | drift |\n|---{'|---' * 2 * len(heads)}|")
            for client, opened in programs.items():
                print(row(client, opened(), asked), flush=True)


if __name__ == "__main__":
    main()
