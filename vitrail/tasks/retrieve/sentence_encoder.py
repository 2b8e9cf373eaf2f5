"""Read a sentence encoder from the files of its folder: its sizes, its pooling and its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from vitrail.core.errors import SettingError, WeightsError
from vitrail.layers.sentence_tower import PAD, SentenceTower

CONFIG, TENSORS, WORDS = "config.json", "model.safetensors", "tokenizer.json"
POOLING = "1_Pooling/config.json"

SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps",
)  # fmt: skip
"""What a model file keeps of the configuration."""

POOLINGS: Mapping[str, str] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
"""The poolings that a tower has, by their names in the files of sentence-transformers."""

WORKING = "BERT encoders work: all-MiniLM-L6-v2, all-MiniLM-L12-v2, bge-small-en-v1.5, e5-small-v2, gte-small"


def sentence_config(folder: str) -> dict[str, Any]:
    """Return the sizes of a sentence encoder, by their names in BertConfig, and its `pool`.

    Raises:
        SettingError: the folder lacks a file, or its network has another architecture or pooling.
    """
    place = Path(folder)
    missing = [name for name in (CONFIG, TENSORS, WORDS) if not (place / name).is_file()]
    if missing:
        what = "lacks" if place.is_dir() else "is not a folder with"
        raise SettingError(
            f"--text-tower {folder} {what} {', '.join(missing)}. Name the folder of a sentence encoder with the "
            f"files {CONFIG}, {TENSORS} and {WORDS}. {WORKING}."
        )
    config = _read(place / CONFIG)
    _refuse_other(folder, config)
    return {**{name: config[name] for name in SIZES if name in config}, "pool": _pool(folder)}


def load_sentence_encoder(tower: nn.Module, folder: str) -> None:
    """Load the tensors of a folder into a tower of its sizes.

    Raises:
        WeightsError: the file cannot be read, or does not fit the sizes that the folder states.
    """
    assert isinstance(tower, SentenceTower), "the text tower is the sentence encoder of this folder"
    path = Path(folder) / TENSORS
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read ({error}). Copy it again.") from None
    own = tower.bert.state_dict()
    named = {key.removeprefix("bert."): tensor.float() for key, tensor in tensors.items()}
    wrong = [key for key, tensor in own.items() if key not in named or named[key].shape != tensor.shape]
    if wrong:
        raise WeightsError(
            f"{path} does not fit {CONFIG} beside it: {wrong[0]} is missing or has another shape, and so are "
            f"{len(wrong) - 1} others. Copy the folder again."
        )
    tower.bert.load_state_dict({key: named[key] for key in own})


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{path} cannot be read ({error}). Copy the folder again.") from None
    if not isinstance(values, dict):
        raise SettingError(f"{path} holds no settings. Copy the folder again.")
    return values


def _refuse_other(folder: str, config: Mapping[str, Any]) -> None:
    kind = config.get("model_type", "of an unknown type")
    if kind != "bert":
        raise SettingError(f"--text-tower {folder} is {kind}, which is not read. {WORKING}.")
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute" or config.get("is_decoder") or config.get("pad_token_id", PAD) != PAD:
        raise SettingError(
            f"--text-tower {folder} is an unusual BERT (a decoder, {positions} positions, or padded with another "
            f"token than {PAD}), which is not read. {WORKING}."
        )
    if absent := [name for name in SIZES[:4] if not isinstance(config.get(name), int)]:
        raise SettingError(f"{Path(folder) / CONFIG} lacks {', '.join(absent)}. Copy the folder again.")


def _pool(folder: str) -> str:
    path = Path(folder) / POOLING
    if not path.is_file():
        return "mean"
    stated = [name for name, on in _read(path).items() if name.startswith("pooling_mode_") and on is True]
    if len(stated) != 1 or stated[0] not in POOLINGS:
        raise SettingError(
            f"--text-tower {folder} pools its tokens by {', '.join(stated) or 'nothing'}, which is not read. Those "
            f"that pool by the mean or the first token work. {WORKING}."
        )
    return POOLINGS[stated[0]]
