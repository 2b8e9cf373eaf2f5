"""Any network of timm (Wightman) as an Encoder: the CNN baselines and about a thousand others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from inspect import signature
from itertools import pairwise
from math import isqrt
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.core.text import reason
from vitrail.layers.encoder import NOTHING, Encoder
from vitrail.layers.patch_embedding import check_channels, sides
from vitrail.layers.sdpa import Recorder, TokenIndex, attend
from vitrail.layers.tokens import Attention, Features, FeatureSpec, Tokens

QUERIES = ("q", "qk", "qkv", "kv", "q_proj", "query", "in_proj_qkv")
"""The names of attention projections in timm's modules; a network without any of them has no attention."""

FINEST = 4
"""Stages of a pyramid with at least this stride, in pixels, are returned as levels."""

POOLING = ("attn_pool", "global_pool")
"""timm's names of attention pooling, which runs after the features."""


class Caught(TorchFunctionMode):
    """Redirects every call of the fused kernel to `attend` for recording, and counts the `calls`.

    No hook is set and no module is changed: inside the `with` block, torch itself redirects the calls.
    """

    def __init__(self, record: Recorder) -> None:
        super().__init__()
        self.record, self.calls = record, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace `scaled_dot_product_attention`, and run all other functions unchanged."""
        given = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **given)
        self.calls += 1
        return self._attend(*args, **given)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if is_causal or enable_gqa or dropout_p or (attn_mask is not None and attn_mask.dtype == torch.bool):
            raise SettingError("The attention of this network cannot be recorded. Explain it by occlusion.")
        if scale is not None:
            query = query * (scale * query.shape[-1] ** 0.5)
        return attend(query, key, value, bias=attn_mask, record=self.record)


class _Shapes(Recorder):
    """Records the number of images, queries and keys of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, int, int]] = []

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Return zeros: on the meta device only shapes matter."""
        self.shapes.append((q.shape[0], q.shape[-2], k.shape[-2]))
        return v.new_zeros(*q.shape[:-1], v.shape[-1])


@dataclass(frozen=True, slots=True)
class TimmConfig:
    """A network by timm's name (a tag after a dot names weights); None is timm's default.

    `settings` are other arguments of timm's constructor, such as `depth` or `num_heads`, for weights of a network that
    timm can build but has no name for. `eps` is the eps of layer norms, by patterns of their names, if it is not that
    of timm.
    """

    family: ClassVar[str] = "timm"

    name: str
    image: int | tuple[int, int] | None = None
    channels: int = 3
    drop_path: float | None = None
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    eps: dict[str, float] = field(default_factory=dict, hash=False)

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) in pixels for which the network is built; without an `image`, timm's own."""
        if self.image is None:
            import timm  # a second, and only networks of timm need it

            cfg = timm.get_pretrained_cfg(self.name, allow_unregistered=True)
            return (cfg.input_size[1], cfg.input_size[2]) if cfg else (224, 224)
        return sides(self.image)


class TimmEncoder(Encoder):
    """A network of timm without its classifier: images (b, channels, height, width) -> Features.

    The tokens are timm's `forward_features`; `pooled` is timm's own pooling up to the classifier, so that no parameter
    is missing. For convolutional networks the last map is also the single level. Attention can be recorded if every
    call uses torch's fused kernel on all tokens (plain ViTs, EVA); otherwise a recorder raises a SettingError.
    """

    Config = TimmConfig

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        self.settings = _settings(config)
        shape = _shape(config, self.settings)
        self.net: Any = _create(config, self.settings)
        self.channels_last = shape.channels_last
        self.spec = FeatureSpec(
            shape.width,
            strides=shape.strides,
            prefix=_prefix(self.net, shape.prefix),
            attention="softmax" if shape.blocks else _attention(self.net),
            blocks=shape.blocks,
            pool="own",
            pooled_width=shape.pooled,
            sizes="any" if shape.elastic else "fixed",
            widths=shape.widths,
            depth=shape.depth,
            channels=config.channels,
        )

    @property
    def takes_drop_path(self) -> bool:
        """Whether its blocks can be skipped in training."""
        return _takes(self.net, "drop_path_rate")

    @property
    def convolutional(self) -> bool:
        """Whether it uses the recipes for convolutional networks, because it has no attention."""
        return self.spec.attention == "none"

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, channels, height, width) -> Features with tokens, pooled and, for convolutional networks, one level."""
        self.refuse(given)
        check_channels(images, self.config.channels)
        stride = self.spec.strides[-1]
        grid = tuple(-(-side // stride) for side in images.shape[-2:])
        out = self._features(images, record)
        # The head reads the same tensor that is returned, so that gradients with respect to it exist.
        level = out.permute(0, 3, 1, 2) if self.channels_last else out
        pooled = self.net.forward_head(
            level.permute(0, 2, 3, 1) if self.channels_last else out, pre_logits=True
        )
        if out.ndim == 3:
            return Features(Tokens(out, grid, len(self.spec.prefix)), pooled=pooled)
        tokens = Tokens(level.flatten(2).transpose(1, 2), tuple(level.shape[2:]))
        return Features(tokens, (level,), pooled)

    def tap(
        self,
        images: Tensor,
        blocks: tuple[int, ...] = (),
        *,
        given: Mapping[str, Tensor] = NOTHING,
        record: Recorder | None = None,
    ) -> Features:
        """(b, channels, height, width) -> Features with the stages of a pyramid, or the maps after `blocks`, as levels.

        The last stage of a pyramid is the same tensor as that of the tokens, so that gradients for it exist.
        """
        column = self.spec.depth > 0
        fits = len(blocks) > 0 and all(1 <= block <= self.spec.depth for block in blocks)
        if (not column and (blocks or len(self.spec.widths) < 2)) or (column and not fits):
            return super().tap(images, blocks or (0,), given=given, record=record)
        self.refuse(given)
        check_channels(images, self.config.channels)
        if record is not None:
            return self._tapped(images, blocks, self._recording(images, record))
        return self._tapped(images, blocks, nullcontext())

    def _tapped(
        self, images: Tensor, blocks: tuple[int, ...], recording: AbstractContextManager[object]
    ) -> Features:
        """Return tokens and levels of one forward pass."""
        with recording:
            if not blocks:
                whole, levels = self.net.forward_intermediates(images, output_fmt="NCHW")
                last = whole.permute(0, 3, 1, 2) if self.channels_last else whole
                levels = [*levels[-len(self.spec.widths) : -1], last]
                return Features(Tokens(last.flatten(2).transpose(1, 2), tuple(last.shape[2:])), tuple(levels))
            places = [block - 1 for block in blocks]
            whole, levels = self.net.forward_intermediates(
                images, indices=places, norm=True, output_fmt="NCHW"
            )
        grid = tuple(levels[-1].shape[-2:])
        return Features(Tokens(whole, grid, len(self.spec.prefix)), tuple(levels))

    def position_vectors(self) -> tuple[Tensor, tuple[int, int]] | None:
        """Return the vectors of its position table, (row·col, d), and the grid if it is square; else None."""
        table = getattr(self.net, "pos_embed", None)
        if not isinstance(table, Tensor) or table.ndim != 3:
            return None
        for prefix in (len(self.spec.prefix), 0):
            side = isqrt(table.shape[1] - prefix)
            if side**2 == table.shape[1] - prefix:
                return table[0, prefix:], (side, side)
        return None

    def folded(self) -> Encoder:
        """Return the network with its branches merged into single convolutions by timm, or itself if it has none."""
        from timm.utils.model import reparameterize_model

        copy = deepcopy(self).eval()
        before = _modules(copy.net)
        copy.net = reparameterize_model(copy.net, inplace=True)
        return self if _modules(copy.net) == before else copy

    def _features(self, images: Tensor, record: Recorder | None) -> Tensor:
        if record is None:
            out: Tensor = self.net.forward_features(images)
            return out
        with self._recording(images, record):
            recorded: Tensor = self.net.forward_features(images)
        return recorded

    @contextmanager
    def _recording(self, images: Tensor, record: Recorder) -> Iterator[None]:
        """Record the attention of one forward pass. SettingError if not every call can be recorded."""
        if self.spec.attention != "softmax":
            raise SettingError(
                f"The attention of timm's {self.config.name!r} cannot be recorded. "
                "Explain it by Grad-CAM or occlusion, or train one of our own networks (`vitrail models`)."
            )
        stride = self.spec.strides[-1]
        record.set_grid(tuple(-(-side // stride) for side in images.shape[-2:]), len(self.spec.prefix))
        with Caught(record) as caught:
            yield
        if caught.calls != self.spec.blocks:
            raise SettingError(
                f"timm's {self.config.name!r} has {self.spec.blocks} attention calls, of which {caught.calls} could be "
                "recorded. Explain it by occlusion."
            )


def _modules(network: nn.Module) -> list[str]:
    return [f"{name} {type(module).__name__}" for name, module in network.named_modules()]


class _Shape(NamedTuple):
    width: int
    stride: int
    prefix: int
    pooled: int
    channels_last: bool
    elastic: bool
    blocks: int  # attention calls that can be recorded: all of them, or 0
    strides: tuple[int, ...]  # of the levels of a pyramid; else the single stride
    widths: tuple[int, ...]  # of the levels of a pyramid
    depth: int  # blocks of a column whose maps can be read


def _settings(config: TimmConfig) -> dict[str, Any]:
    """Return the arguments of timm's constructor. SettingError for one that this network does not take."""
    import timm

    if not timm.is_model(config.name):
        raise UnknownNameError("network", config.name, timm.list_models(), "See `vitrail models`.")
    with torch.device("meta"):
        net = timm.create_model(config.name, num_classes=0, **config.settings)
    settings: dict[str, Any] = {**config.settings, "in_chans": config.channels}
    if config.drop_path is not None:
        if not _takes(net, "drop_path_rate"):
            raise SettingError(f"timm's {config.name!r} has no drop path. Leave drop_path out.")
        settings["drop_path_rate"] = config.drop_path
    if config.image is not None and _takes(net, "img_size"):
        settings["img_size"] = config.image
    return settings


def _takes(net: nn.Module, argument: str) -> bool:
    # Subclasses with small changes pass arguments on to their base class, so all base classes are searched.
    return any(argument in signature(kind).parameters for kind in type(net).__mro__[:-1])


def _create(config: TimmConfig, settings: Mapping[str, Any]) -> nn.Module:
    import timm

    net: nn.Module = timm.create_model(config.name, pretrained=False, num_classes=0, **settings)
    for pattern, eps in config.eps.items():
        for name, part in net.named_modules():
            if isinstance(part, nn.LayerNorm) and fnmatchcase(name, pattern):
                part.eps = eps
    return net


def _shape(config: TimmConfig, settings: Mapping[str, Any]) -> _Shape:
    """Return the shapes of a network's features. SettingError for a size that it does not accept (often too small)."""
    try:
        with torch.device("meta"):
            return _probe(_create(config, settings), config)
    except SettingError:
        raise
    except Exception as error:  # a network may raise any error for a size
        if config.image is None:
            raise
        height, width = config.size
        usual = "×".join(map(str, replace(config, image=None).size))
        raise SettingError(
            f"timm's {config.name!r} does not accept images of {height}×{width} px ({reason(error)}). Give a larger "
            f"--imgsz (it is made for {usual} px), or choose another network."
        ) from error


@torch.no_grad()
def _probe(net: Any, config: TimmConfig) -> _Shape:
    """Find the shapes of a network's features with forward passes on the meta device."""
    net.eval()
    height, width = config.size
    out = net.forward_features(torch.zeros(1, config.channels, height, width))
    if not isinstance(out, Tensor) or out.ndim not in (3, 4):
        raise SettingError(
            f"timm's {config.name!r} gives no single map or token sequence. Choose another network."
        )
    pooled = net.forward_head(out, pre_logits=True).shape[-1]
    last = getattr(net, "output_fmt", "NCHW") == "NHWC"
    if out.ndim == 4:
        row, d = (out.shape[1], out.shape[3]) if last else (out.shape[2], out.shape[1])
        stride, prefix = _stride(net, height, row), 0
    else:
        d, (stride, prefix) = out.shape[2], _grid(net, out.shape[1], height, width)
    other = torch.zeros(1, config.channels, height + 2 * stride, width + 4 * stride)
    blocks = _recordable_calls(net, torch.zeros(1, config.channels, height, width), out)
    strides, widths = _stages(net, config, out, stride)
    depth = 0 if widths else _depth(net, config, out, stride)
    return _Shape(d, stride, prefix, pooled, last, _accepts(net, other), blocks, strides, widths, depth)


def _intermediates(net: Any, config: TimmConfig, indices: list[int] | None) -> list[Tensor]:
    """Return the maps of a network's stages or blocks as (b, d, row, col); [] if it does not provide them."""
    height, width = config.size
    images = torch.zeros(1, config.channels, height, width)
    try:
        outputs = net.forward_intermediates(
            images, indices=indices, output_fmt="NCHW", intermediates_only=True
        )
    except Exception:  # not every network supports this, and each may raise another error
        return []
    maps = [output for output in outputs if isinstance(output, Tensor) and output.ndim == 4]
    return maps if len(maps) == len(outputs) else []


def _stages(
    net: Any, config: TimmConfig, out: Tensor, stride: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the strides and widths of a network's stages from stride 4 on; the last one is its output map."""
    plain: tuple[tuple[int, ...], tuple[int, ...]] = (stride,), ()
    if out.ndim != 4:
        return plain
    maps = _intermediates(net, config, None)
    strides = [round(config.size[0] / level.shape[2]) for level in maps]
    fine = [i for i, level in enumerate(strides) if level >= FINEST]
    growing = all(strides[a] < strides[b] for a, b in pairwise(fine))
    width = out.shape[3] if getattr(net, "output_fmt", "NCHW") == "NHWC" else out.shape[1]
    if len(fine) < 2 or not growing or strides[-1] != stride or fine[-1] != len(maps) - 1:
        return plain
    widths = [maps[i].shape[1] for i in fine]
    return tuple(strides[i] for i in fine), (*widths[:-1], width)


def _depth(net: Any, config: TimmConfig, out: Tensor, stride: int) -> int:
    """Return the number of blocks of a column that can be read as maps on the token grid, or 0."""
    count = len(getattr(net, "blocks", ()))
    if out.ndim != 3 or not count:
        return 0
    maps = _intermediates(net, config, list(range(count)))
    grid = tuple(-(-side // stride) for side in config.size)
    same = all(level.shape[1] == out.shape[2] and tuple(level.shape[2:]) == grid for level in maps)
    return count if len(maps) == count and same else 0


def _recordable_calls(net: nn.Module, images: Tensor, out: Tensor) -> int:
    """Return the number of attention calls if every call can be recorded and is of all tokens, else 0."""
    attentions = [
        module
        for name, module in net.named_modules()
        if any(hasattr(module, query) for query in QUERIES) and not name.startswith(POOLING)
    ]
    recorder = _Shapes()
    with Caught(recorder) as caught:
        net.forward_features(images)  # type: ignore[operator]
    whole = out.ndim == 3 and set(recorder.shapes) == {(len(images), out.shape[1], out.shape[1])}
    return caught.calls if whole and caught.calls == len(attentions) else 0


def _stride(net: Any, height: int, rows: int) -> int:
    """Return timm's stride if it is correct for this size, else the nearest integer."""
    stated = net.feature_info[-1]["reduction"] if getattr(net, "feature_info", None) else 0
    return stated if stated and -(-height // stated) == rows else round(height / rows)


def _grid(net: Any, n: int, height: int, width: int) -> tuple[int, int]:
    """Return the stride of the finest grid that `n` tokens fill, and the number of remaining tokens: the prefix."""
    for stride in range(1, max(height, width) + 1):
        rows, cols = -(-height // stride), -(-width // stride)
        if rows * cols <= n:
            break
    return _stride(net, height, rows), n - rows * cols


def _accepts(net: Any, images: Tensor) -> bool:
    try:
        net.forward_features(images)
    except Exception:  # a network may raise any error for a size
        return False
    return True


def _prefix(net: nn.Module, count: int) -> tuple[str, ...]:
    named = [
        name for name in ("cls", "dist") if isinstance(getattr(net, f"{name}_token", None), nn.Parameter)
    ]
    return tuple((named + ["reg"] * count)[:count])


def _attention(net: nn.Module) -> Attention:
    has_attention = any(hasattr(module, name) for module in net.modules() for name in QUERIES)
    return "opaque" if has_attention else "none"
