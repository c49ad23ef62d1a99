"""The original models under their original names, registered with timm on import."""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model

from pacavit.models.factories import create_variant, imagenet_cfg
from pacavit.models.pacavit import PacaViT
from pacavit.models.variants import ORIGINALS, VARIANTS, release_url

__all__: list[str] = []  # timm adds the names

default_cfgs = generate_default_cfgs(
    {f"{name}.in1k": imagenet_cfg(url=release_url(name)) for name in ORIGINALS}
)


def _register(name: str) -> None:
    """A factory under an original name, for timm."""
    original = ORIGINALS[name]

    def factory(pretrained: bool = False, **settings: Any) -> PacaViT:
        defaults = {**VARIANTS[original.model], **original.settings}
        return create_variant(name, pretrained, defaults, settings)

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = original.summary
    register_model(factory)


for _name in ORIGINALS:
    _register(_name)
