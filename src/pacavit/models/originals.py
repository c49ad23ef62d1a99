"""The original models by the names of the original code, registered with timm on import."""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model

from pacavit.models.convert import ORIGINALS, release_url
from pacavit.models.pacavit import PacaViT, create_variant, imagenet_cfg
from pacavit.models.variants import VARIANTS

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

    settings_text = ", ".join(f"{key}={value!r}" for key, value in original.settings.items())
    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = (
        f"The original name of {original.model}({settings_text}); Grainger et al. 2023."
    )
    register_model(factory)


for _name in ORIGINALS:
    _register(_name)
