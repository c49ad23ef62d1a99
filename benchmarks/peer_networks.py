"""The networks that ``trained_peers.py`` trains, as changes of a recipe for 32 x 32 images."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NETWORKS", "Network"]

# Settings of the recipe that name layers of nano.
_OTHER_NAMES = ("train.lr_scales={}",)
# timm's stems halve an image twice: enlarged images have maps of the sizes that nano's have.
_ENLARGED = ("task.image_size=64",)
_ENLARGED_NOTE = "images are enlarged to 64 x 64, since its stem halves them twice"
_TWO_BLOCKS = "model.options={depths=[2,2,1],transition_convs=1}"
_TWO_BLOCKS_NOTE = (
    "two blocks in the first two stages, as it exchanges information in every second block, and "
    "one convolution in each transition"
)


@dataclass(frozen=True)
class Network:
    """A network beside others.

    Attributes:
        kind: "clusters", "attention" or "timm".
        changes: of the recipe.
        note: in what it differs from the body of nano, for the page of results.
    """

    kind: str
    changes: tuple[str, ...]
    note: str = ""


def _clusters(name: str) -> Network:
    return Network("clusters", (f"model.clustering={name}",))


def _attention(name: str, *changes: str, note: str = "") -> Network:
    return Network("attention", (f"model.attention={name}", *changes), note)


def _timm(name: str, options: str, fallback: str, *changes: str, note: str = "") -> Network:
    """A model of timm; ``fallback`` are its first and last weights, which Muon leaves to AdamW."""
    return Network(
        "timm",
        (
            f"model.name={name}",
            f"model.options={{{options}}}",
            f"train.optimizer_options.fallback_list=[{fallback}]",
            *_OTHER_NAMES,
            *changes,
        ),
        note,
    )


NETWORKS: dict[str, Network] = {
    "paca, conv": _clusters("conv"),
    "paca, mlp": _clusters("mlp"),
    "paca, kmeans": _clusters("kmeans"),
    "paca, gmm": _clusters("gmm"),
    "paca, super_tokens": _clusters("super_tokens"),
    "paca, dpc_knn": _clusters("dpc_knn"),
    "full": _attention("full"),
    "spatial_reduction": _attention("spatial_reduction"),
    "pooled": _attention("pooled"),
    "windows": _attention("windows", _TWO_BLOCKS, note=_TWO_BLOCKS_NOTE),
    "local_subsampled": _attention(
        "local_subsampled",
        _TWO_BLOCKS,
        note=_TWO_BLOCKS_NOTE,
    ),
    "linformer": _attention(
        "linformer",
        "model.attention_options={num_keys=16}",
        note="16 keys, as many as clusters",
    ),
    "lsh": _attention("lsh"),
    "big_bird": _attention("big_bird"),
    "slow_fast": _attention("slow_fast"),
    "agent": _attention("agent"),
    "context_cluster": _attention("context_cluster"),
    "DeiT": _timm(
        "deit_tiny_patch16_224",
        "img_size=32,patch_size=4,embed_dim=128,depth=8,num_heads=4",
        "'patch_embed.proj.weight','head.weight'",
        note="8 blocks of 128 channels, patches of 4 x 4",
    ),
    "PVTv2": _timm(
        "pvt_v2_b0",
        "embed_dims=[64,128,320],depths=[2,2,2],num_heads=[1,2,5],mlp_ratios=[4,4,4],"
        "sr_ratios=[4,2,1]",
        "'patch_embed.proj.weight','head.weight'",
        *_ENLARGED,
        note=f"three stages; {_ENLARGED_NOTE}",
    ),
    "Swin": _timm(
        "swin_tiny_patch4_window7_224",
        "img_size=32,patch_size=2,window_size=4,embed_dim=64,depths=[2,2,4],num_heads=[2,4,8]",
        "'patch_embed.proj.weight','head.fc.weight'",
        note="three stages, patches of 2 x 2, windows of 4 x 4",
    ),
    "ConvNeXt": _timm(
        "convnext_atto",
        "dims=[64,128,256,512],depths=[2,2,5,2]",
        "'stem.0.weight','head.fc.weight'",
        *_ENLARGED,
        note=_ENLARGED_NOTE,
    ),
    "ResNet": _timm(
        "resnet18",
        "channels=[64,128,192,256]",
        "'conv1.weight','fc.weight'",
        *_ENLARGED,
        note=f"ResNet-18 with narrower last stages; {_ENLARGED_NOTE}",
    ),
}
"""By the name in tables; the first is what all others are compared with."""
