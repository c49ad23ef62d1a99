"""The authors' models and checkpoints: parity, names, sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open

from pacavit.attention import Attention
from pacavit.clustering import Clustering
from pacavit.errors import CheckpointError
from pacavit.models import PacaViT, count_macs
from pacavit.models.convert import (
    convert_state_dict,
    infer_settings,
    is_original,
    recognize,
)
from pacavit.models.variants import ORIGINALS

AuthorsWeights = Callable[..., dict[str, torch.Tensor]]

# Parameters, and multiply-adds at 224 in units of 1e9 where published: paca-vit.md.
PUBLISHED: dict[str, tuple[int, float | None]] = {
    "pacavit_tiny_p2cconv_100_0": (12_200_680, 3.219),
    "pacavit_small_p2cconv_100_0": (22_037_704, 5.501),
    "pacavit_base_p2cconv_100_0": (46_911_304, 9.537),
    "pacavit_small_p2cmlp_100_0": (22_637_268, 5.864),
    "pacavit_small_p2cconv_2_0": (21_978_120, 4.7),
    "pacavit_small_p2cconv_49_0": (22_006_696, 5.0),
    "pacavit_small_p2cconv_49_100": (22_227_560, 5.3),
    "pacavit_small_p2cconv_100_49": (22_210_696, 5.3),
    "pacavit_small_p2cconv_100": (22_245_448, 5.6),
    "pacavit_small_p2cconv_100_blockwise": (24_191_944, 6.1),
    "pacavit_convmixer_tiny_100": (12_483_672, None),
    "pacavit_convmixer_small_100": (21_075_064, 5.482),
    "pacavit_convmixer_base_100": (47_659_192, 9.771),
}
METHODS = {"P2CConv2d": "conv", "P2CMlp": "mlp", "P2CLinear": "linear"}


def load_reference(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata: dict[str, Any] = dict(file.metadata())
    for name in ("arch", "clusters", "onsite", "num_classes", "teacher_depths"):
        metadata[name] = json.loads(metadata[name])
    return tensors, metadata


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["conv", "mlp", "linear", "conv_blockwise", "teacher"])
def test_reference_is_reproduced(name: str, shared_dir: Path) -> None:
    tensors, facts = load_reference(shared_dir / "reference" / f"{name}.safetensors")
    arch, taught = facts["arch"], facts["teacher_depths"]
    settings: dict[str, Any] = {
        "embed_dims": tuple(arch["embed_dims"]),
        "depths": tuple(arch["depths"]),
        "clustering": "teacher" if taught else METHODS[facts["clustering"]],
        "num_clusters": tuple(facts["clusters"]),
        "recluster_every": max(facts["onsite"]),
        "teacher_options": {"depths": tuple(taught)} if taught else None,
    }
    weights = {
        f"module.{key.removeprefix('weights.')}": value
        for key, value in tensors.items()
        if key.startswith("weights.")
    }
    converted = convert_state_dict({"state_dict": weights})
    assert infer_settings(converted) == settings
    model: Any = PacaViT(
        num_classes=facts["num_classes"],
        num_heads=arch["num_heads"],
        mlp_ratios=arch["mlp_ratios"],
        **settings,
    ).eval()
    model.load_state_dict(converted)

    # Assignments as attention gets them, and as hooks on the modules that compute them see them.
    used, computed = {}, []
    for module in model.modules():
        if isinstance(module, Attention):
            key = f"assignment.stage{module.stage + 1}.{module.block}"
            module.register_forward_pre_hook(
                lambda _, args, key=key: used.update({key: args[2].assignment})
            )
        elif isinstance(module, Clustering):
            module.register_forward_hook(lambda _, args, answer: computed.append(id(answer)))
    with torch.no_grad():
        logits = model(tensors["input"])
        maps = model.forward_intermediates(tensors["input"], intermediates_only=True)
    torch.testing.assert_close(logits, tensors["logits"], atol=1e-5, rtol=0)
    for index, tokens in enumerate(maps):
        expected = tensors[f"tokens.stage{index + 1}"]
        torch.testing.assert_close(tokens.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=0)
    keys = {key for key in tensors if key.startswith("assignment.")}
    assert keys == {key for key, value in used.items() if value is not None}
    for key in keys:
        torch.testing.assert_close(used[key].weights, tensors[key], atol=1e-5, rtol=0)
        assert id(used[key]) in computed


@pytest.mark.parametrize("name", PUBLISHED)
def test_original_models_have_the_published_size_and_cost(name: str) -> None:
    parameters, gigamacs = PUBLISHED[name]
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    if gigamacs is not None:
        assert count_macs(model, (224, 224)) / 1e9 == pytest.approx(gigamacs, rel=0.02)
    assert recognize(model.state_dict())[0] == name


def test_all_original_names_are_registered() -> None:
    assert set(ORIGINALS) == set(PUBLISHED)
    for name in ORIGINALS:
        config: Any = timm.get_pretrained_cfg(name)
        assert config.url == (
            f"https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_{name}.pth"
        )
    for size in ("tiny", "small", "base"):
        config = timm.get_pretrained_cfg(f"pacavit_{size}")
        assert config.url.endswith(f"/IMNET_224_pacavit_{size}_p2cconv_100_0.pth")


@pytest.mark.parametrize(
    ("settings", "name", "model", "difference"),
    [
        ({}, "pacavit_tiny_p2cconv_100_0", "pacavit_tiny", {}),
        (
            {"clusters": (200, 200, 200, 0)},
            None,
            "pacavit_tiny",
            {"num_clusters": (200, 200, 200, 0)},
        ),
        ({"method": "linear"}, None, "pacavit_tiny", {"clustering": "linear"}),
        ({"every": 2}, None, "pacavit_tiny", {"recluster_every": (0, 0, 2, 0)}),
        ({"depths": (1, 2, 3, 1)}, None, "pacavit_tiny", {"depths": (1, 2, 3, 1)}),
        (
            {"dims": (96, 192, 384, 512), "depths": (3, 3, 18, 3)},
            "pacavit_base_p2cconv_100_0",
            "pacavit_base",
            {},
        ),
    ],
)
def test_geometry_is_read_off_the_shapes(
    settings: dict[str, Any],
    name: str | None,
    model: str,
    difference: dict[str, Any],
    authors_weights: AuthorsWeights,
) -> None:
    weights = convert_state_dict(authors_weights(**settings))
    assert recognize(weights) == (name, model, difference)
    with torch.device("meta"):
        network: Any = timm.create_model(model, **difference)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in weights.items()} == shapes


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "backbone."])
def test_wrappers_and_prefixes_are_taken_off(
    wrapper: str | None, prefix: str, authors_weights: AuthorsWeights
) -> None:
    weights = authors_weights((8, 8, 8, 8), (1, 1, 1, 1), (3, 3, 3, 0), num_classes=2)
    bare = convert_state_dict(weights)
    prefixed: dict[str, Any] = {f"{prefix}{name}": value for name, value in weights.items()}
    wrapped = prefixed if wrapper is None else {"epoch": 3, wrapper: prefixed}
    assert is_original(wrapped)
    assert convert_state_dict(wrapped).keys() == bare.keys()
    if wrapper == "model":
        wrapped["state_dict_ema"] = {}
        assert convert_state_dict(wrapped).keys() == bare.keys()


def test_foreign_and_torn_checkpoints_are_refused(authors_weights: AuthorsWeights) -> None:
    foreign = {"model": {"conv1.weight": torch.zeros(1)}}
    assert not is_original(foreign)
    with pytest.raises(CheckpointError, match="no weights of an original PaCa-ViT"):
        convert_state_dict(foreign)
    weights = authors_weights((8, 8, 8, 8), (1, 2, 1, 1), (3, 3, 3, 0), num_classes=2)
    with pytest.raises(CheckpointError, match=r"widths \(8, 8, 8, 8\)"):
        recognize(convert_state_dict(weights))
    for torn in ("stage2.", "stage2.0.", "stage3.0.norm1_before."):
        rest = {name: value for name, value in weights.items() if not name.startswith(torn)}
        with pytest.raises(CheckpointError, match=r"lacks weights of its stage [23]"):
            recognize(convert_state_dict(rest))
