"""Settings of retrieval. No torch, so that help and option errors appear at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from vitrail.core.config import Settings

OWN, CLIP = "own", "clip"
"""Vocabularies without a file: one that is learnt from the training captions, and that of CLIP."""


class RetrieveSettings(Settings):
    """Settings of the common space, the text tower, its vocabulary and the loss.

    `embed` is the number of values of a vector; `text_width`, `text_depth` and `text_heads` are the sizes of the text
    tower, and `context` is the largest number of tokens of a caption. `vocabulary` is "own" (learnt from the training
    captions, of at most `vocabulary_size` tokens), "clip", or the path of a tokenizer.json or of its folder. `gelu` is
    "quick" in OpenAI's networks. `text_tower` is the folder of a sentence encoder, which then is the text tower, with
    its own vocabulary and sizes, frozen but for its `text_tuned` last blocks. `hidden` is the number of hidden values
    of the projections, 0 for linear ones; by default 512 beside a sentence encoder, else 0. `loss` is CLIP's softmax
    over the batch or SigLIP's sigmoid of each pair.
    """

    pool: Literal["cls", "mean", "cls_mean", "attention"] | None = None
    embed: PositiveInt = 256
    text_width: PositiveInt = 256
    text_depth: PositiveInt = 6
    text_heads: PositiveInt = 4
    context: Annotated[int, Field(ge=3)] = 77
    vocabulary: Annotated[str, Field(min_length=1)] = OWN
    vocabulary_size: Annotated[int, Field(ge=300)] = 8192
    gelu: Literal["exact", "quick"] = "exact"
    # Files of models hold the tower itself: they are shared, and a path says something of its machine.
    text_tower: Annotated[str, Field(exclude=True)] = ""
    text_tuned: NonNegativeInt = 0
    hidden: NonNegativeInt | None = None
    loss: Literal["softmax", "sigmoid"] = "softmax"
