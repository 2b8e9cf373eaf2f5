"""A sentence encoder as text tower: a BERT whose token vectors are pooled to one vector per text.

BERT: Devlin et al. 2018, arXiv:1810.04805; the mean of its tokens: Reimers and Gurevych 2019, arXiv:1908.10084, §3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Literal

from torch import Tensor, nn

from vitrail.core.errors import MissingExtraError
from vitrail.layers.sdpa import Recorder

SentencePool = Literal["mean", "cls"]
"""How the vectors of the tokens become one: their mean, or that of the first token."""

PAD = 0
"""The id of tokens that fill a text up; BERT's vocabularies begin with it."""


class SentenceTower(nn.Module):
    """Word pieces -> one vector per text: int64 (b, n), padded at the end with 0, -> (b, width).

    `config` holds the sizes by their names in transformers' BertConfig. The tower is frozen but for its `tuned` last
    blocks, and computes without dropout. Raises MissingExtraError without transformers.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, config: Mapping[str, Any], *, pool: SentencePool = "mean", tuned: int = 0) -> None:
        super().__init__()
        self.bert = _bert(config)
        self.width: int = self.bert.config.hidden_size
        self.context: int = self.bert.config.max_position_embeddings
        self.pool, self.tuned = pool, tuned
        self.bert.requires_grad_(False)
        blocks = list(self.bert.encoder.layer)
        for block in blocks[len(blocks) - tuned :]:
            block.requires_grad_(True)

    def forward(self, tokens: Tensor, record: Recorder | None = None) -> Tensor:
        """Ids of word pieces, int64 (b, n) -> (b, width); `record` gets no attention of this tower."""
        tokens = tokens[:, : int((tokens != PAD).sum(1).max())]
        mask = tokens != PAD
        x: Tensor = self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state
        if self.pool == "cls":
            return x[:, 0]
        weights = mask.unsqueeze(2).to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1)


def require_transformers() -> None:
    """Raise a MissingExtraError if transformers is not installed; it is not imported."""
    if find_spec("transformers") is None:
        raise MissingExtraError(
            "A sentence encoder as text tower needs transformers. Install it: pip install 'vitrail[words]'"
        )


def _bert(config: Mapping[str, Any]) -> Any:
    """Return transformers' network of these sizes with random weights."""
    require_transformers()
    from transformers import BertConfig, BertModel

    sizes = {**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertModel(BertConfig(**sizes), add_pooling_layer=False)
