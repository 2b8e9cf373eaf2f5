"""Masked pretraining by the command line: images without labels in, an encoder for a training with labels out."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vitrail.cli.verbs import VERBS
from vitrail.data.layouts import sniff
from vitrail.data.manifest import TEST, TRAIN
from vitrail.infer.predictor import load
from vitrail.runs.run import Run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import resume, train
from vitrail.weights.resolve import find_weights

IMAGES = 30
NETWORK = ("--model", "vit_digits_narrow", "--set", "depth=1", "--device", "cpu")
STEPS = ("--batch", "8", "--micro", "8", "--precision", "float32")


def image(number, side=32):
    """Stripes of a direction and colours of their own."""
    draw = np.random.default_rng(number)
    y, x = np.mgrid[:side, :side] / side
    tilt, phases = draw.uniform(1, 4, 2), draw.uniform(0, 6, 3)
    bands = [128 + 100 * np.sin(6 * (tilt[0] * x + tilt[1] * y) + phase) for phase in phases]
    return Image.fromarray(np.stack(bands, -1).round().astype(np.uint8))


def good(done):
    assert done.returncode == 0, done.stderr
    return done


def told(vitrail, source):
    return json.loads(good(vitrail("check", source, "--task", "pretrain", "--json")).stdout)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "unlabelled"
    folder.mkdir()
    for number in range(IMAGES):
        image(number).save(folder / f"p{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    for number in range(24):
        (folder / ("dark", "light")[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(image(number + 100)) // 2 + 120 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(
            folder / ("dark", "light")[number % 2] / f"{number}.png"
        )
    return folder


def options(**changed):
    usual = {
        "task": "pretrain", "model": "vit_digits_narrow", "set": "depth=1", "epochs": 4, "batch": 8, "micro": 8,
        "precision": "float32", "device": "cpu", "seed": 5,
    }  # fmt: skip
    return TrainOptions(**{**usual, **changed})


@pytest.fixture(scope="module")
def run(flat, tmp_path_factory):
    return train(flat, options(out=str(tmp_path_factory.mktemp("runs") / "unlabelled"))).folder


# Data


def test_a_folder_without_labels_says_what_can_be_done_with_it(flat, vitrail):
    for words in (("check", flat), ("train", flat, *NETWORK)):
        done = vitrail(*words)
        assert done.returncode != 0
        assert "no labels" in done.stderr
        assert "--task pretrain" in done.stderr
        assert "Traceback" not in done.stderr


def arrangements(flat: Path, folder: Path) -> dict[str, Path]:
    """The same images in many ways."""
    files = sorted(flat.iterdir())
    for number, file in enumerate(files):
        for place in (f"parts/batch_{number % 3}", "one/only", f"classes/{'ab'[number % 2] * 3}", "table"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / place)
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        for file in files:
            archive.write(file, f"inside/{file.name}")
    with (folder / "table" / "sizes.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(
            [("image", "bytes"), *((file.name, 7 * at) for at, file in enumerate(files))]
        )
    with (folder / "list.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("image",), *((f"table/{file.name}",) for file in files)])
    names = ("parts", "one", "classes", "packed.zip", "table", "list.csv")
    return {name: folder / name for name in names}


def test_every_arrangement_of_images_is_read(flat, vitrail, tmp_path):
    for name, source in arrangements(flat, tmp_path).items():
        found = told(vitrail, source)
        assert (found["kept"], found["truth"], found["classes"]) == (IMAGES, "none", []), name
        assert sum(sum(split.values()) for split in found["splits"].values()) == IMAGES
        assert all(split for split in found["splits"].values())


def test_masks_beside_the_images_are_no_images_to_learn_from(tmp_path, vitrail):
    for place in ("set/images", "set/masks"):
        (tmp_path / place).mkdir(parents=True)
    for number in range(12):
        image(number).save(tmp_path / "set/images" / f"{number}.png")
        mask = np.zeros((32, 32), np.uint8)
        mask[4:20, 4 : 10 + number] = 1
        Image.fromarray(mask).save(tmp_path / "set/masks" / f"{number}.png")
    found = told(vitrail, tmp_path / "set")
    assert found["kept"] == 12
    assert any("mask" in note for note in found["notes"])


def test_splits_and_groups_that_the_source_knows_are_kept(flat, tmp_path):
    for number, file in enumerate(sorted(flat.iterdir())):
        place = tmp_path / "splits" / ("train" if number < 20 else "val" if number < 25 else "test")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    found = sniff(tmp_path / "splits", task="pretrain")
    assert sorted({entry.split for entry in found.found}) == ["test", "train", "val"]
    with (tmp_path / "people.csv").open("w", newline="") as handle:
        files = sorted(flat.iterdir())
        rows = [(str(file), f"k{at // 3}") for at, file in enumerate(files)]
        csv.writer(handle).writerows([("image", "patient"), *rows])
    shutil.copytree(flat, tmp_path / "unlabelled")
    table = tmp_path / "unlabelled" / "people.csv"
    with table.open("w", newline="") as handle:
        rows = [(file.name, f"k{at // 3}") for at, file in enumerate(files)]
        csv.writer(handle).writerows([("image", "patient"), *rows])
    assert len({entry.group for entry in sniff(table, task="pretrain").found}) == 10


def test_duplicates_and_groups_never_stand_on_both_sides(flat, tmp_path, vitrail):
    for file in flat.iterdir():
        for copy in ("first", "second"):
            (tmp_path / "twice").mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / "twice" / f"{copy}-{file.name}")
    words = ("--epochs", "1", *NETWORK, *STEPS, "--out", tmp_path / "run")
    good(vitrail("train", tmp_path / "twice", "--task", "pretrain", *words))
    manifest = Run(tmp_path / "run").manifest(tmp_path / "twice")
    sides = {}
    for row in manifest.rows():
        sides.setdefault(row.id.partition("-")[2], set()).add(row.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert {len(manifest.rows(split)) for split in (TRAIN, TEST)} > {0} or manifest.rows(TEST)


def test_bad_images_are_named_and_left_out(flat, tmp_path, vitrail):
    shutil.copytree(flat, tmp_path / "odd")
    draw = np.random.default_rng(0)
    (tmp_path / "odd" / "empty.jpg").touch()
    (tmp_path / "odd" / "cut.png").write_bytes((flat / "p00.png").read_bytes()[:300])
    for number in range(3):
        grey = draw.integers(0, 256, (32, 32)).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "odd" / f"grey{number}.png")
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "odd" / f"deep{number}.png")
    Image.new("RGB", (32, 32), (90, 90, 90)).save(tmp_path / "odd" / "one colour.png")
    Image.new("RGB", (3, 400), (9, 200, 90)).save(tmp_path / "odd" / "thin.png")
    found = told(vitrail, tmp_path / "odd")
    assert found["quarantined"] == 2
    said = " ".join(one["text"] for one in found["findings"])
    for word in ("empty.jpg", "cut.png", "grey repeated", "16 bits scaled to 8"):
        assert word in said
    words = ("--epochs", "1", *NETWORK, *STEPS, "--out", tmp_path / "run", "--json")
    report = json.loads(good(vitrail("train", tmp_path / "odd", "--task", "pretrain", *words)).stdout)
    assert np.isfinite(report["test"]["explained"])


@pytest.mark.parametrize(("count", "missing"), [(1, "add 2 at least"), (2, "add 1 at least")])
def test_too_few_images_are_counted(count, missing, tmp_path, vitrail):
    for number in range(count):
        image(number).save(tmp_path / f"{number}.png")
    assert told(vitrail, tmp_path)["kept"] == count
    done = vitrail("train", tmp_path, "--task", "pretrain", *NETWORK)
    assert done.returncode != 0
    assert missing in done.stderr


# Training


def test_the_run_has_scores_a_page_a_card_and_live_images(run):
    report = json.loads((run / "report.json").read_text())
    assert (report["task"], report["weights"]) == ("pretrain", "none")
    assert "--task pretrain" in report["reproduce"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Hidden patches" in page
    assert "mean and the spread of the true one" in page
    assert (run / "live.png").is_file()
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "--weights model.safetensors --tune full" in card
    assert "vitrail predict" not in card


def test_the_next_command_is_a_training_with_labels(flat, vitrail, tmp_path):
    done = good(
        vitrail(
            "train", flat, "--task", "pretrain", "--epochs", "1", *NETWORK, *STEPS, "--out", tmp_path / "a"
        )
    )
    assert "next    vitrail train photos/ --weights" in done.stdout
    assert "hidden patches, guess and truth" in done.stderr


def test_scores_are_the_same_again(run, flat, vitrail):
    report = json.loads((run / "report.json").read_text())
    again = json.loads(good(vitrail("eval", run, "--json")).stdout)
    assert again["test"] == pytest.approx(report["test"])
    new = json.loads(good(vitrail("eval", run, flat, "--json")).stdout)
    assert "used in training" in new["verdict"]


def test_it_learns(flat, tmp_path):
    """Stripes go on where they were seen, so hidden patches can be guessed."""
    few = train(flat, options(epochs=60, lr=0.003, augment="none", out=str(tmp_path / "learnt")))
    events = [event for event in few.history() if event["event"] == "score"]
    assert max(event["explained"] for event in events) > events[0]["explained"] + 0.1


def test_a_dry_run_tells_the_plan(flat, vitrail):
    words = ("--task", "pretrain", *NETWORK, *STEPS, "--dry-run", "--json")
    plan = json.loads(good(vitrail("train", flat, *words)).stdout)
    recipe = plan["recipe"]
    assert (recipe["recipe"], recipe["model"]["weights"]) == ("pretrain", "none")
    training = recipe["training"]
    assert (training["tune"], training["augment"], training["ema"]) == ("scratch", "large_crop", 0)


def test_a_time_is_kept(flat, tmp_path, vitrail):
    words = ("--task", "pretrain", *NETWORK, *STEPS, "--time", "2s", "--out", tmp_path / "timed", "--json")
    report = json.loads(good(vitrail("train", flat, *words)).stdout)
    assert report["finished"]
    assert report["cost"]["steps"] >= 1


def test_a_run_goes_on_equal_bit_by_bit(flat, run, tmp_path):
    class Stopped(Exception):
        pass

    def stop(event):
        if event.kind == "step" and event.step == 7:
            raise Stopped

    with pytest.raises(Stopped):
        train(flat, options(out=str(tmp_path / "stopped")), listeners=[stop])
    resume(tmp_path / "stopped")
    whole, again = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "stopped"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "swin_t"), "ViT, DeiT, MAE"),
        (("--model", "vit_s16", "--network", "image=32,patch=8,position=relative"), "position=relative"),
        (("--model", "vit_digits", "--stride", "2"), "--stride"),
        (("--model", "vit_digits", "--elastic"), "--elastic"),
        (("--model", "vit_digits", "--mixup", "0.2"), "mixup"),
        (("--model", "vit_digits", "--set", "mask=1"), "mask"),
        (("--model", "mae_digits", "--set", "width=32"), "--network decoder"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(words, said, flat, vitrail):
    done = vitrail("train", flat, "--task", "pretrain", "--device", "cpu", *words, "--epochs", "1")
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_draft_of_images_alone_is_refused(flat, vitrail):
    done = vitrail("train", flat, "--task", "pretrain", "--tune", "draft", "--device", "cpu")
    assert done.returncode != 0
    assert "no draft" in done.stderr
    assert "Traceback" not in done.stderr


# What comes of it


@pytest.mark.parametrize("verb", ["predict", "explain", "export", "serve", "points", "compare"])
def test_a_pretrained_run_predicts_nothing_and_says_the_way_out(verb, run, flat, vitrail, tmp_path):
    words = {
        "predict": ("predict", run, flat / "p00.png"),
        "explain": ("explain", run, flat / "p00.png", "--out", tmp_path),
        "export": ("export", run, "--out", tmp_path / "a.onnx"),
        "serve": ("serve", run, "--port", "0"),
        "points": ("eval", run, "--points", "all"),
        "compare": ("compare", "--runs", run, shutil.copytree(run, tmp_path / "copy")),
    }[verb]
    assert words[0] in VERBS
    done = vitrail(*words)
    assert done.returncode != 0
    assert "predicts nothing about an image" in done.stderr
    assert "--tune full" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("tune", ["full", "head", "draft"])
def test_another_task_takes_the_encoder_without_the_decoder(tune, run, labelled, vitrail, tmp_path):
    steps = () if tune == "draft" else ("--epochs", "1", *STEPS)
    words = ("--weights", run, "--tune", tune, *steps, "--device", "cpu", "--out", tmp_path / "tuned")
    done = good(vitrail("train", labelled, *words))
    assert "the decoder of its pretraining is left out" in done.stderr
    pretrained, tuned = (
        load_file(run / "model.safetensors"),
        load_file(tmp_path / "tuned" / "model.safetensors"),
    )
    assert {name for name in tuned if name.startswith("encoder.")} == {
        name for name in pretrained if name.startswith("encoder.")
    }
    assert not any(name.startswith(("head.blocks", "head.predict")) for name in tuned)
    if tune != "full":
        assert all(torch.equal(tuned[n], pretrained[n]) for n in tuned if n.startswith("encoder."))
    recipe = Run(tmp_path / "tuned").recipe()
    assert (recipe.model.name, recipe.model.imgsz) == ("vit_digits_narrow", (32, 32))
    if tune == "full":
        assert recipe.recipe == "after_pretraining"
        assert recipe.task.settings["pool"] == "mean"
    assert load(tmp_path / "tuned").predict(image(3))


def test_pretraining_goes_on_from_its_own_weights_with_the_decoder(run, flat, tmp_path, vitrail):
    words = ("--task", "pretrain", "--weights", run, "--epochs", "1", *STEPS, "--out", tmp_path / "further")
    done = good(vitrail("train", flat, *words, "--device", "cpu"))
    assert "tensors taken" in done.stderr
    assert Run(tmp_path / "further").recipe().recipe == "pretrain_further"


def test_another_network_than_that_of_the_weights_is_refused(run, labelled, vitrail):
    done = vitrail("train", labelled, "--weights", run, "--model", "vit_s16", "--tune", "full")
    assert done.returncode != 0
    assert "does not hold a vit_s16" in done.stderr


def test_its_inside_can_be_seen(run, flat, vitrail, tmp_path):
    good(vitrail("inspect", run, "--out", tmp_path / "inside"))
    good(vitrail("inspect", run, "--pipeline", flat / "p00.png", "--out", tmp_path / "steps"))


def test_weights_of_others_can_be_continued(shared, flat, tmp_path):
    weights = shared("weights/dinov2-small-saliency")
    found = train(
        flat,
        options(model=None, weights=str(weights), tune="full", imgsz="28", epochs=1, set="width=64,depth=1",
                out=str(tmp_path / "further")),
    )  # fmt: skip
    assert found.recipe().model.name == "dinov2_s14"
    taken = find_weights(str(found.folder))
    assert taken.config.family == "dinov2"
    assert taken.task == "pretrain"


def test_labelled_images_are_pretrained_on_without_their_labels(labelled, tmp_path, vitrail):
    words = ("--task", "pretrain", "--epochs", "1", *NETWORK, *STEPS, "--out", tmp_path / "run")
    done = good(vitrail("train", labelled, *words))
    assert "are left aside" in done.stderr
    assert not any(row.target for row in Run(tmp_path / "run").manifest(labelled).rows())
