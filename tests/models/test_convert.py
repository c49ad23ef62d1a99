"""Parity with the authors' implementation."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from pacavit.errors import CheckpointError
from pacavit.models import PacaViT
from pacavit.models.convert import convert_state_dict

CLUSTERINGS = {"P2CConv2d": "conv", "P2CMlp": "mlp", "P2CLinear": "linear"}


def load_reference(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata: dict[str, Any] = dict(file.metadata())
    for name in ("arch", "clusters", "onsite", "num_classes"):
        metadata[name] = json.loads(metadata[name])
    return tensors, metadata


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["conv", "mlp", "linear", "conv_blockwise"])
def test_reference_is_reproduced(name: str, shared_dir: Path) -> None:
    tensors, facts = load_reference(shared_dir / "reference" / f"{name}.safetensors")
    arch = facts["arch"]
    model: Any = PacaViT(
        num_classes=facts["num_classes"],
        embed_dims=arch["embed_dims"],
        depths=arch["depths"],
        num_heads=arch["num_heads"],
        mlp_ratios=arch["mlp_ratios"],
        clustering=CLUSTERINGS[facts["clustering"]],
        num_clusters=facts["clusters"],
        recluster_every=facts["onsite"],
    ).eval()
    weights = {
        key.removeprefix("weights."): value
        for key, value in tensors.items()
        if key.startswith("weights.")
    }
    model.load_state_dict(
        convert_state_dict(
            {"state_dict": {f"module.{key}": value for key, value in weights.items()}}
        )
    )
    used = {}
    for stage_index, stage in enumerate(model.stages):
        for block_index, block in enumerate(stage.blocks):
            block.attn.register_forward_pre_hook(
                lambda _, args, key=f"assignment.stage{stage_index + 1}.{block_index}": used.update(
                    {key: args[2].assignment}
                )
            )
    with torch.no_grad():
        logits = model(tensors["input"])
        maps = model.forward_intermediates(tensors["input"], intermediates_only=True)
    torch.testing.assert_close(logits, tensors["logits"], atol=1e-5, rtol=1e-5)
    for index, tokens in enumerate(maps):
        torch.testing.assert_close(
            tokens.flatten(2).transpose(1, 2),
            tensors[f"tokens.stage{index + 1}"],
            atol=1e-5,
            rtol=1e-5,
        )
    expected = {key for key in tensors if key.startswith("assignment.")}
    assert expected == {key for key, value in used.items() if value is not None}
    for key in expected:
        torch.testing.assert_close(used[key].weights, tensors[key], atol=1e-5, rtol=1e-5)


def test_foreign_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no weights of an original PaCa-ViT"):
        convert_state_dict({"model": {"conv1.weight": torch.zeros(1)}})
