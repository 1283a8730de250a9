"""Published weights by name: ``timm:vit_small_patch16_224``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from vit.layers import CrossAttention, Mlp, SelfAttention, Size, SwiGLU
from vit.models.cnn import CNN, stem_of, timm_config
from vit.models.loading import Loaded, load_weights
from vit.models.parts import head_of
from vit.models.seats import parts_without_seat
from vit.models.timm_spec import activation
from vit.models.vit import ViT
from vit.models.weights import Weights, compact, from_timm


def load_init(net: nn.Module, source: str, allow: Sequence[str] = ()) -> Loaded:
    """Start a ViT or CNN from timm's weights; only a head of another class count (and a CNN's small stem) stays new.

    The download, its cache and the summing of input channels for other than RGB images are timm's.

    Args:
        net: filled in place.
        source: ``timm:NAME``, NAME with or without timm's tag.
        allow: further parts that may start new.

    Raises:
        ValueError: another source, an unknown name, no network, parts that timm's net lacks or computes with another
            number of heads, or weights that do not fit (each is named).
    """
    kind, _, name = source.partition(":")
    if kind != "timm" or not name:
        raise ValueError(f"weights come from timm:NAME, such as timm:vit_small_patch16_224; got {source!r}")
    if isinstance(net, ViT):
        return _load_vit(net, name, allow)
    if isinstance(net, CNN):
        return _load_cnn(net, name, allow)
    raise ValueError(f"{source} fits a ViT or a CNN, got a {type(net).__name__}")


def load_timm_weights(net: ViT, weights: Weights, source: str, grid: Size | None, allow: Sequence[str]) -> Loaded:
    """Weights under timm's names into a plain ViT.

    Raises:
        ValueError: parts of the net that timm's lacks, or weights that do not fit (each is named).
    """
    foreign = [part for part in parts_without_seat(net) if part.startswith("backbone")]  # the head may start new
    if foreign:
        raise ValueError(f"{source} expected a plain ViT to fill, got parts with no seat there: {compact(foreign)}")
    return load_weights(net, from_timm(weights, grid), grid, new=(*head_of(net), *allow), source=source)


def _load_vit(net: ViT, name: str, allow: Sequence[str]) -> Loaded:
    donor = _download(name, net.backbone.in_chans)
    weights = donor.state_dict()
    if "patch_embed.proj.weight" not in weights:
        raise ValueError(f"timm:{name} is no plain ViT: expected a name such as timm:vit_small_patch16_224")
    patch = weights["patch_embed.proj.weight"].shape[-2:]
    _, height, width = timm_config(name).input_size
    _check_heads(net, donor, name)
    _check_activations(net, donor, name)
    grid = (height // patch[0], width // patch[1])
    return load_timm_weights(net, weights, f"timm:{name}", grid, allow)


def _check_activations(net: ViT, donor: Any, name: str) -> None:
    """Nor does any tell what is between them; that of a head's own MLP counts where timm's net has one to load."""
    expected = {"backbone": activation(donor.blocks[0].mlp.act)}
    if donor.global_pool == "map":
        expected["head"] = activation(donor.attn_pool.mlp.act)
    for part, theirs in expected.items():
        ours = [(path, "SiLU" if isinstance(module, SwiGLU) else activation(module.act))
                for path, module in net.named_modules()
                if isinstance(module, Mlp | SwiGLU) and path.startswith(f"{part}.")]  # fmt: skip
        wrong = [f"{path} ({own})" for path, own in ours if own != theirs]
        if wrong:
            raise ValueError(f"timm:{name} expected the activation {theirs}, got {compact(wrong)}")


def _check_heads(net: ViT, donor: Any, name: str) -> None:
    """No weight's shape tells the number of heads; a head's own attention counts where timm's net has one to load."""
    expected = donor.blocks[0].attn.num_heads
    pooled = donor.attn_pool is not None
    wrong = [
        f"{path} ({module.num_heads})"
        for path, module in net.named_modules()
        if isinstance(module, SelfAttention | CrossAttention) and (pooled or path.startswith("backbone."))
        if module.num_heads != expected
    ]
    if wrong:
        raise ValueError(f"timm:{name} expected num_heads {expected}, got {compact(wrong)}")


def _load_cnn(net: CNN, name: str, allow: Sequence[str]) -> Loaded:
    if name.partition(".")[0] != net.name.partition(".")[0]:
        raise ValueError(f"timm:{name} fits a CNN of that name, got {net.name}")
    weights = {f"net.{key}": value for key, value in _download(name, net.in_chans).state_dict().items()}
    stem = [f"net.{stem_of(name)}"] if net.small_stem else []
    return load_weights(net, weights, new=[*stem, *head_of(net), *allow], source=f"timm:{name}")


def _download(name: str, in_chans: int) -> nn.Module:
    import timm

    if not timm_config(name).has_weights:
        raise ValueError(f"timm:{name} cannot be had: nobody has published weights of that name")
    try:
        with _offline_when_unreachable():
            return timm.create_model(name, pretrained=True, in_chans=in_chans)
    except FileNotFoundError as error:
        raise ValueError(f"timm:{name} is not in the local cache and the network cannot be reached") from error
    except Exception as error:  # hub, HTTP and timm errors share no base class
        reason = str(error).partition("\n")[0]
        raise ValueError(f"timm:{name} cannot be had: {reason}") from error


@contextmanager
def _offline_when_unreachable() -> Iterator[None]:
    """Without a network the hub's client retries for most of a minute, warning each time; offline it fails at once."""
    from huggingface_hub import constants, get_session

    before = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever stands between: the cache is what is left
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
