"""Read a config.json of timm by building its network, without values, and inspecting it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.core.errors import WeightsError
from vitrail.layers.block import Gelu, gelu
from vitrail.layers.pooling import AttentionPool
from vitrail.models.timm_wrapper import TimmConfig
from vitrail.weights.stated_config import Said

RUNTIME = ("num_classes", "pretrained", "checkpoint_path", "scriptable", "exportable", "device", "dtype")
"""Arguments of timm that do not affect a network without its classifier."""

POOLS = {"token": "cls", "avg": "mean", "map": "attention"}
"""timm's names of pools → our names with the same meaning."""


class TimmFolder(NamedTuple):
    """The network of a config.json, as timm builds it, and settings that do not follow from its tensors.

    `alike` is True if one of our networks is of this kind; `otherwise` states how this network computes differently;
    then it is used as a timm network. `pool` is what the classifier reads, if we have a name for it.
    """

    config: TimmConfig
    said: Said
    alike: bool
    otherwise: str
    pool: str | None


def timm_folder(stated: Mapping[str, Any]) -> TimmFolder | None:
    """Return the network of a timm config.json; None if the installed timm does not have it.

    Raise WeightsError if timm cannot build it with the stated `model_args`.
    """
    import timm

    name, arguments = stated.get("architecture"), stated.get("model_args") or {}
    if not isinstance(name, str) or not timm.is_model(name):
        return None
    if not isinstance(arguments, Mapping):
        raise WeightsError(
            f"config.json says model_args = {arguments!r}, which are no settings; copy it again."
        )
    settings = {key: value for key, value in arguments.items() if _lasting(key, value)}
    size, channels = settings.pop("img_size", None), settings.pop("in_chans", None)
    image = tuple(size) if isinstance(size, list) else size
    config = TimmConfig(name, image, channels or _channels(stated), settings=settings)
    net = _built(config)
    sizes = tuple(one for one in (_made_for(net), _input(stated)) if one)
    alike, pool = type(net).__name__ in OURS, POOLS.get(getattr(net, "global_pool", ""))
    return TimmFolder(config, _said(net, sizes), alike, _otherwise(net), pool)


def unknown_network(stated: Mapping[str, Any]) -> str:
    """Return a sentence if a config.json names a network that the installed timm does not have; else ""."""
    import timm

    name = stated.get("architecture")
    if not isinstance(name, str) or timm.is_model(name):
        return ""
    return (
        f" Its config.json names {name!r}, which timm {timm.__version__} does not know; another version may."
    )


def _lasting(name: str, value: Any) -> bool:
    """Return whether an argument changes the network; dropout rates matter only in training."""
    dropped = name in RUNTIME or name.endswith("drop_rate") or name in ("drop_path_rate", "drop_block_rate")
    return not dropped and value is not None and (name, value) != ("global_pool", "")


def _channels(stated: Mapping[str, Any]) -> int:
    cfg = stated.get("pretrained_cfg", stated)
    size = cfg.get("input_size") if isinstance(cfg, Mapping) else None
    return size[0] if isinstance(size, list | tuple) and len(size) == 3 else 3


def _input(stated: Mapping[str, Any]) -> tuple[int, int] | None:
    cfg = stated.get("pretrained_cfg", stated)
    size = cfg.get("input_size") if isinstance(cfg, Mapping) else None
    return (size[1], size[2]) if isinstance(size, list | tuple) and len(size) == 3 else None


def _built(config: TimmConfig) -> nn.Module:
    import timm

    arguments = dict(config.settings) | ({} if config.image is None else {"img_size": config.image})
    try:
        with torch.device("meta"):
            net: nn.Module = timm.create_model(
                config.name, num_classes=0, in_chans=config.channels, **arguments
            ).eval()
    except Exception as error:  # any exception of timm here is caused by the config.json
        why = str(error).partition("\n")[0][:120] or type(error).__name__
        raise WeightsError(
            f"config.json names {config.name} with model_args = {arguments}, and timm cannot build that ({why}); "
            "mend config.json, or name a file without one."
        ) from error
    return net


def _made_for(net: Any) -> tuple[int, int] | None:
    """Return the image size of the network in pixels."""
    embed = getattr(net, "patch_embed", None) or getattr(net, "stem", None)
    size = getattr(embed, "img_size", None)
    return (int(size[0]), int(size[1])) if isinstance(size, tuple) else None


def _said(net: nn.Module, sizes: tuple[tuple[int, int], ...]) -> Said:
    attention = next((m for m in net.modules() if isinstance(getattr(m, "num_heads", None), int)), None)
    heads = getattr(attention, "num_heads", None) if type(net).__name__ in COLUMNS else None
    eps = {part.eps for part in net.modules() if isinstance(part, nn.LayerNorm)}
    gelu = next(iter(set(_activations(net))), None)
    return Said(
        "config.json",
        heads,
        sizes=sizes,
        gelu=gelu if gelu in get_args(Gelu) else None,  # type: ignore[arg-type]
        norm_eps=next(iter(eps)) if len(eps) == 1 else None,
    )


COLUMNS = ("VisionTransformer", "VisionTransformerDistilled")
OURS = (*COLUMNS, "SwinTransformer", "MlpMixer")
"""timm's classes that compute the same as our networks, without changed options."""

PARTS = (
    "PatchEmbed",
    "HybridEmbed",
    "Attention",
    "WindowAttention",
    "Block",
    "MixerBlock",
    "SwinTransformerBlock",
    "Mlp",
    "GluMlp",
    "SwiGLU",
    "SwiGLUPacked",
    "AttentionPoolLatent",
)
"""Building blocks of these classes → their allowed parts."""


def _otherwise(net: Any) -> str:
    """Return how a network computes differently from ours with the same tensors, or ""."""
    if type(net).__name__ not in OURS:
        return f"it is timm's {type(net).__name__}"
    checks = (
        (
            "its norms add different numbers",
            len({m.eps for m in net.modules() if isinstance(m, nn.LayerNorm)}) > 1,
        ),
        ("its norms are no layer norms", not any(isinstance(m, nn.LayerNorm) for m in net.modules())),
        ("its blocks are others", any(not _usual(m) for m in _inside(net))),
        ("it has another activation", not set(_activations(net)) <= {*get_args(Gelu), "silu"}),
        ("it has several activations", len(set(_activations(net))) > 1),
        ("it normalises before its blocks", not (_nothing(net, "norm_pre") or _is_clip(net))),
        ("it normalises what was pooled", not _nothing(net, "fc_norm")),
        ("it has no places", type(net).__name__ in COLUMNS and net.pos_embed is None),
        ("its pool has other heads", not _pools(net)),
    )
    return next((why for why, is_so in checks if is_so), "")


def _inside(net: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks, attentions and MLPs, without the parts of a hybrid's stem."""
    for name, part in net.named_modules():
        owner = name.rpartition(".")[2]
        if owner in ("attn", "mlp", "mlp_tokens", "mlp_channels") or (
            owner.isdigit() and ".backbone." not in name
        ):
            yield part


def _usual(part: Any) -> bool:
    """Return whether a block, an attention or an MLP is the standard one, without extra layers."""
    if type(part).__name__ in ("SwinTransformerStage", "Sequential"):
        return True
    between = ("q_norm", "k_norm", "norm") if hasattr(part, "qkv") or hasattr(part, "fc1") else ()
    scale = getattr(part, "head_dim", None)
    layers = (getattr(part, name, None) for name in ("qkv", "proj", "fc1", "fc2"))
    return (
        type(part).__name__ in PARTS
        and all(layer.bias is not None for layer in layers if isinstance(layer, nn.Linear))
        and all(_nothing(part, name) for name in between)
        and (scale is None or not hasattr(part, "scale") or abs(part.scale - scale**-0.5) < 1e-9)
    )


def _nothing(part: Any, name: str) -> bool:
    return isinstance(getattr(part, name, nn.Identity()), nn.Identity)


def _activations(net: nn.Module) -> Iterator[Gelu | str]:
    """Yield the activation of each MLP: exact, tanh, silu, or another."""
    for part in net.modules():
        act = getattr(part, "act", None)
        if isinstance(act, nn.Module) and hasattr(part, "fc1"):
            yield _kind(act)


def _kind(act: nn.Module) -> Gelu | str:
    x = torch.linspace(-4, 4, 65)
    found: Tensor = act(x.clone())
    known = {**{name: gelu(name)(x) for name in get_args(Gelu)}, "silu": F.silu(x)}
    return next((name for name, y in known.items() if torch.allclose(found, y, rtol=0, atol=1e-6)), "another")


def _is_clip(net: Any) -> bool:
    """Return whether a column that normalises before its blocks is CLIP's: patches without bias, and a class token."""
    return net.patch_embed.proj.bias is None and net.num_prefix_tokens == 1


def _pools(net: Any) -> bool:
    """Return whether an attention pool, if there is one, computes the same as ours."""
    pool = getattr(net, "attn_pool", None)
    if pool is None:
        return True
    width = int(net.embed_dim)
    with torch.device("meta"):
        ours = AttentionPool(width)
    return (
        type(pool).__name__ == "AttentionPoolLatent"
        and pool.num_heads == ours.heads
        and pool.mlp.fc1.out_features == 4 * width
        and set(_activations(net)) == {"exact"}
        and (net.num_prefix_tokens == 0 or net.pool_include_prefix)
    )
