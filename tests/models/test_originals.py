"""timm builds the authors' models by their names and loads their files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import pacavit.models  # noqa: F401 - registers the models
from pacavit.errors import CheckpointError

AuthorsWeights = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def released(authors_weights: AuthorsWeights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the one the authors released of pacavit_tiny_p2cconv_100_0."""
    path = tmp_path_factory.mktemp("released") / "IMNET_224_pacavit_tiny_p2cconv_100_0.pth"
    torch.save({"state_dict": authors_weights()}, path)
    return path


def load(name: str, file: Path, **settings: Any) -> Any:
    overlay = {"file": str(file)}
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **settings)


@pytest.mark.parametrize("name", ["pacavit_tiny", "pacavit_tiny_p2cconv_100_0.in1k"])
def test_released_files_are_converted_on_load(
    name: str, released: Path, authors_weights: AuthorsWeights
) -> None:
    model, weights = load(name, released), authors_weights()
    assert torch.equal(model.head.weight, weights["head.weight"])
    block = model.stages[1].blocks[0]
    assert torch.equal(
        block.clustering.to_clusters.weight,
        weights["stage2.0.attn.clustering.clustering.4.weight"].flatten(1),
    )
    assert torch.equal(block.norm2.weight, weights["stage2.0.norm2_before.weight"])


def test_another_class_count_gives_a_fresh_head(
    released: Path, authors_weights: AuthorsWeights
) -> None:
    model = load("pacavit_tiny", released, num_classes=7)
    assert model.head.weight.shape == (7, 384)
    assert torch.equal(model.stages[3].norm.bias, authors_weights()["norm4.bias"])
    maps = load("pacavit_tiny", released, features_only=True)
    assert torch.equal(maps.model.stages[3].norm.bias, authors_weights()["norm4.bias"])


def test_other_input_channels_adapt_the_stem(released: Path) -> None:
    assert load("pacavit_tiny", released, in_chans=1).stages[0].embed.proj.weight.shape[1] == 1


def test_another_architecture_is_an_error(released: Path) -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        load("pacavit_tiny", released, num_clusters=(49, 49, 49, 0))
    with pytest.raises(CheckpointError, match="is missing"):
        load("pacavit_tiny", released, clustering="teacher", num_clusters=100)


@pytest.mark.parametrize("adapted", [{}, {"num_classes": 7}, {"features_only": True}])
@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"clustering": "mlp"}, r"clustering\.fc1\.weight is missing"),
        ({"depths": (2, 2, 3, 2)}, r"stages\.2\.blocks\.3\..* is unexpected"),
    ],
)
def test_no_layer_stays_random_but_the_head(
    adapted: dict[str, Any], settings: dict[str, Any], fault: str, released: Path
) -> None:
    with pytest.raises(CheckpointError, match=f"do not fit the model: .*{fault}"):
        load("pacavit_tiny", released, **adapted, **settings)


def test_maps_of_the_first_stages_have_their_weights(
    released: Path, authors_weights: AuthorsWeights
) -> None:
    maps = load("pacavit_tiny", released, features_only=True, out_indices=(0, 1))
    assert len(maps.model.stages) == 2
    assert torch.equal(maps.model.stages[1].norm.bias, authors_weights()["norm2.bias"])


def test_our_own_weights_load_as_they_are(tmp_path: Path) -> None:
    model: Any = timm.create_model("pacavit_nano")
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        tmp_path / "own.safetensors",
    )
    again = load("pacavit_nano", tmp_path / "own.safetensors")
    assert torch.equal(again.head.weight, model.head.weight)


def test_the_caller_wins_over_an_original_name() -> None:
    with torch.device("meta"):
        model: Any = timm.create_model("pacavit_convmixer_base_100", depths=(1, 1, 1, 1))
    assert [len(stage.blocks) for stage in model.stages] == [1, 1, 1, 1]
    assert [len(stage) for stage in model.teacher.stages] == [2, 2, 4, 2]
