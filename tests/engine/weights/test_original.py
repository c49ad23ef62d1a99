"""The authors' checkpoints become weights files."""

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pacavit import api
from pacavit.engine import load_model
from pacavit.engine.weights.original import convert_checkpoint
from pacavit.errors import CheckpointError, UnknownNameError
from pacavit.tasks.classification import ImagePrediction

AuthorsWeights = Callable[..., dict[str, torch.Tensor]]


def save(path: Path, weights: dict[str, Any], **beside: Any) -> Path:
    torch.save({"state_dict": weights, **beside}, path)
    return path


def test_a_release_becomes_weights_that_predict(
    authors_weights: AuthorsWeights, tmp_path: Path
) -> None:
    weights = authors_weights()
    arguments = argparse.Namespace(model="x")
    official = save(tmp_path / "official.pth", weights, epoch=300, args=arguments)
    state = torch.get_rng_state()
    done = api.convert(official, tmp_path / "new" / "tiny.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert (done.original, done.model) == ("pacavit_tiny_p2cconv_100_0", "pacavit_tiny")
    assert len(done.loaded) == len(weights)
    assert done.reinitialised == done.unexpected == ()
    model = load_model(done.path)
    assert torch.equal(model.task.model.state_dict()["head.bias"], weights["head.bias"])
    assert model.recipe.name == "pacavit_tiny_p2cconv_100_0"
    assert model.recipe.model.drop_path == 0.1
    assert len(set(model.info.class_names)) == 1000
    assert model.info.class_names[0] == "tench, Tinca tinca"
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    (prediction,) = api.predict(done.path, tmp_path / "a.png")
    assert isinstance(prediction, ImagePrediction)
    assert len(prediction.top) == 5


def test_the_teacher_and_other_arguments_survive(
    authors_weights: AuthorsWeights, tmp_path: Path
) -> None:
    weights = authors_weights(
        depths=(2, 2, 2, 2), clusters=(100,) * 4, teacher_depths=(2, 2, 2, 2), num_classes=5
    )
    done = convert_checkpoint(
        save(tmp_path / "official.pth", weights), tmp_path / "taught.safetensors"
    )
    assert done.original == "pacavit_convmixer_tiny_100"
    assert done.reinitialised == done.unexpected == ()
    model = load_model(done.path)
    assert model.info.class_names == tuple(f"class {index}" for index in range(5))
    network: Any = model.task.model
    assert torch.equal(
        network.teacher.laterals[1].conv.bias, weights["paca_teacher.lateral2.0.bias"]
    )


def test_a_detector_gives_its_backbone(authors_weights: AuthorsWeights, tmp_path: Path) -> None:
    weights = {
        f"backbone.{name}": tensor
        for name, tensor in authors_weights(clusters=(200, 200, 200, 0)).items()
        if not name.startswith("head.")
    }
    weights["neck.conv.weight"] = torch.zeros(2)
    done = convert_checkpoint(save(tmp_path / "det.pth", weights), tmp_path / "det.safetensors")
    assert done.original is None
    assert done.settings == {"num_clusters": (200, 200, 200, 0)}
    assert done.reinitialised == ("head.weight", "head.bias")
    assert done.unexpected == ("neck.conv.weight",)
    again = convert_checkpoint(tmp_path / "det.pth", tmp_path / "again.safetensors")
    assert again.path.read_bytes() == done.path.read_bytes()


def test_a_named_model_keeps_what_fits(authors_weights: AuthorsWeights, tmp_path: Path) -> None:
    official = save(tmp_path / "official.pth", authors_weights(clusters=(49, 49, 49, 0)))
    done = convert_checkpoint(
        official, tmp_path / "named.safetensors", model="pacavit_tiny_p2cconv_100_0"
    )
    misfits = {f"stages.{stage}.blocks.0.clustering.to_clusters.weight" for stage in range(3)}
    assert set(done.reinitialised) == set(done.unexpected) == misfits


class Bomb:
    """A pickle that would create a file if anything executed it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_files_that_are_no_checkpoints_are_refused(
    authors_weights: AuthorsWeights, tmp_path: Path
) -> None:
    small = authors_weights((8, 8, 8, 8), (1, 1, 1, 1), (3, 3, 3, 0), num_classes=2)
    whole = save(tmp_path / "whole.pth", small)
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("404: not found")
    (tmp_path / "evil_old.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    save(tmp_path / "evil.pth", {**small, "x": Bomb(tmp_path / "executed")})
    torch.save([1, 2], tmp_path / "list.pth")
    save(tmp_path / "foreign.pth", {"conv1.weight": torch.zeros(1)})
    one = {"stage1.0.attn.q.weight": torch.zeros(1), "stage1.0.norm1_before.weight": torch.zeros(1)}
    save(tmp_path / "one.pth", one)
    for name, message in (
        ("missing.pth", "no such file"),
        ("truncated.pth", "truncated or no checkpoint"),
        ("empty.pth", "truncated or no checkpoint"),
        ("text.pth", "no checkpoint of PyTorch"),
        ("evil_old.pth", "nothing in it was executed"),
        ("evil.pth", "nothing in it was executed"),
        ("list.pth", "holds a list"),
        ("foreign.pth", "no weights of an original PaCa-ViT"),
        ("whole.pth", "no model of the family has the widths"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            convert_checkpoint(tmp_path / name, tmp_path / "out.safetensors")
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"no weight of .* fits pacavit_tiny"):
        convert_checkpoint(
            tmp_path / "one.pth",
            tmp_path / "out.safetensors",
            model="pacavit_tiny_p2cconv_100_0",
        )
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_what_is_in_the_way_stays(authors_weights: AuthorsWeights, tmp_path: Path) -> None:
    official = save(tmp_path / "official.pth", authors_weights(num_classes=2))
    out = tmp_path / "there.safetensors"
    out.write_text("keep me")
    with pytest.raises(CheckpointError, match="exists; give another name"):
        convert_checkpoint(official, out)
    assert out.read_text() == "keep me"
    convert_checkpoint(official, out, overwrite=True)
    assert len(load_model(out).info.class_names) == 2
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        convert_checkpoint(official, tmp_path / "out.pth")
    with pytest.raises(UnknownNameError, match="did you mean 'pacavit_convmixer_tiny_100'"):
        convert_checkpoint(official, tmp_path / "new.safetensors", model="pacavit_convmixer_tiny")


CLUSTERING = "stage1.0.attn.clustering.clustering"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            (
                {f"{CLUSTERING}.{index}.weight": torch.zeros(4, 4)},
                "no original clustering",
            )
            for index in (1, 3, 6)
        ),
        ({f"{CLUSTERING}.4.weight": torch.tensor(1.0)}, "4.weight is a single number"),
        ({"stage1.0.norm1_before.weight": torch.tensor(1.0)}, "is a single number"),
        ({"head.weight": torch.tensor(1.0)}, "head.weight is a single number"),
        ({f"{CLUSTERING}.4.weight": torch.zeros(0, 96, 1, 1)}, ""),
    ],
)
def test_weights_of_odd_layers_and_shapes_are_one_line(
    changes: dict[str, torch.Tensor],
    message: str,
    authors_weights: AuthorsWeights,
    tmp_path: Path,
) -> None:
    official = save(tmp_path / "odd.pth", {**authors_weights(num_classes=2), **changes})
    if not message:  # no clusters: the stage has full attention
        done = convert_checkpoint(official, tmp_path / "out.safetensors")
        assert done.settings == {"num_clusters": (0, 100, 100, 0)}
        return
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_checkpoint(official, tmp_path / "out.safetensors")
    assert str(caught.value).startswith(str(official))
    assert "\n" not in str(caught.value)


def test_names_that_are_no_texts_are_no_weights(
    authors_weights: AuthorsWeights, tmp_path: Path
) -> None:
    torch.save({0: torch.zeros(2), 1: torch.zeros(2)}, tmp_path / "numbers.pth")
    with pytest.raises(CheckpointError, match=r"numbers\.pth: no weights of an original PaCa-ViT"):
        convert_checkpoint(tmp_path / "numbers.pth", tmp_path / "out.safetensors")
    weights: dict[Any, torch.Tensor] = {7: torch.zeros(2), **authors_weights(num_classes=2)}
    official = save(tmp_path / "mixed.pth", weights)
    assert not convert_checkpoint(official, tmp_path / "out.safetensors").reinitialised


def test_a_network_without_clusters_is_converted(
    authors_weights: AuthorsWeights, tmp_path: Path
) -> None:
    official = save(tmp_path / "full.pth", authors_weights(clusters=(0, 0, 0, 0), num_classes=2))
    done = convert_checkpoint(official, tmp_path / "full.safetensors")
    assert done.settings == {"num_clusters": (0, 0, 0, 0)}
    assert done.reinitialised == done.unexpected == ()
