"""The models of the family by name, registered with timm on import."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from pacavit.errors import CheckpointError
from pacavit.models.convert import convert_state_dict, is_original, name_faults
from pacavit.models.mixers import drop_idle_defaults
from pacavit.models.pacavit import PacaViT
from pacavit.models.variants import VARIANTS, release_url
from pacavit.utils.text import first_few

__all__ = ["create_variant", "imagenet_cfg"]  # timm adds the models


def imagenet_cfg(**settings: Any) -> dict[str, Any]:
    """Timm's default configuration of a model."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stages.0.embed.proj",
        "classifier": "head",
        "fixed_input_size": False,
        "license": "apache-2.0",
    } | settings


def _small_cfg() -> dict[str, Any]:
    """Timm's default configuration of a model for 32 x 32 images, CIFAR-10's mean and std."""
    return imagenet_cfg(
        num_classes=10,
        input_size=(3, 32, 32),
        pool_size=(4, 4),
        crop_pct=1.0,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.247, 0.2435, 0.2616),
        first_conv="stages.0.embed.convs.0.0",
    )


default_cfgs = generate_default_cfgs(
    {
        "pacavit_tiny.in1k": imagenet_cfg(url=release_url("pacavit_tiny_p2cconv_100_0")),
        "pacavit_small.in1k": imagenet_cfg(url=release_url("pacavit_small_p2cconv_100_0")),
        "pacavit_base.in1k": imagenet_cfg(url=release_url("pacavit_base_p2cconv_100_0")),
        "pacavit_nano.untrained": _small_cfg(),
        "pacavit_mini.untrained": _small_cfg(),
        "pacavit_large32.untrained": _small_cfg(),
    }
)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Convert original weights; timm calls it on every state dict that it loads.

    Raises:
        CheckpointError: a layer other than the head is missing or unexpected. timm itself does not
            check that if the number of classes differs, or for ``features_only``.
    """
    weights = convert_state_dict(state_dict) if is_original(state_dict) else state_dict
    faults = name_faults(model.state_dict(), weights)
    faults = [fault for fault in faults if not fault.startswith("head.")]
    if faults:
        raise CheckpointError(f"the pretrained weights do not fit the model: {first_few(faults)}")
    return weights


_ARGUMENTS = frozenset(inspect.signature(PacaViT).parameters)


def create_variant(
    variant: str, pretrained: bool, defaults: Mapping[str, Any], settings: Mapping[str, Any]
) -> PacaViT:
    """Build a variant; the caller's settings take precedence over the variant's defaults.

    Clustering defaults are dropped where the caller's settings leave no stage with clusters.
    """
    num_stages = len(settings.get("embed_dims", defaults["embed_dims"]))
    settings = {**drop_idle_defaults(defaults, settings, num_stages), **settings}
    model: Any = build_model_with_cfg(
        PacaViT,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": tuple(range(num_stages)), "feature_cls": "getter"},
        **settings,
    )
    model.settings = {name: settings[name] for name in settings if name in _ARGUMENTS}
    return model


@register_model
def pacavit_tiny(pretrained: bool = False, **settings: Any) -> PacaViT:
    """PaCa-ViT tiny, 12.2 M parameters; Grainger et al. 2023."""
    return create_variant("pacavit_tiny", pretrained, VARIANTS["pacavit_tiny"], settings)


@register_model
def pacavit_small(pretrained: bool = False, **settings: Any) -> PacaViT:
    """PaCa-ViT small, 22.0 M parameters; Grainger et al. 2023."""
    return create_variant("pacavit_small", pretrained, VARIANTS["pacavit_small"], settings)


@register_model
def pacavit_base(pretrained: bool = False, **settings: Any) -> PacaViT:
    """PaCa-ViT base, 46.9 M parameters; Grainger et al. 2023."""
    return create_variant("pacavit_base", pretrained, VARIANTS["pacavit_base"], settings)


@register_model
def pacavit_nano(pretrained: bool = False, **settings: Any) -> PacaViT:
    """PaCa-ViT for 32 x 32 images on a CPU, 1.9 M parameters."""
    return create_variant("pacavit_nano", pretrained, VARIANTS["pacavit_nano"], settings)


@register_model
def pacavit_mini(pretrained: bool = False, **settings: Any) -> PacaViT:
    """PaCa-ViT for 32 x 32 images on a small GPU."""
    return create_variant("pacavit_mini", pretrained, VARIANTS["pacavit_mini"], settings)


@register_model
def pacavit_large32(pretrained: bool = False, **settings: Any) -> PacaViT:
    """PaCa-ViT for 32 x 32 images on a large GPU."""
    return create_variant("pacavit_large32", pretrained, VARIANTS["pacavit_large32"], settings)
