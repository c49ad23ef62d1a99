"""Images to explanations, thresholds to masks, and pixels to patches, all without a page."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from pacavit.demo.classification.classified import (
    Classified,
    attended,
    best_patch,
    find_patch,
    mask,
    patch_region,
)
from pacavit.demo.models import Models
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import CheckpointError, DataError, UnknownNameError

if TYPE_CHECKING:
    from tests.demo.conftest import WrongFiles


def test_own_models_stand_before_the_packaged_ones() -> None:
    models = Models(["cifar10_nano_mlp", "cifar10_nano_mlp"])
    assert models.names[0] == "cifar10_nano_mlp"
    assert sorted(models.names) == sorted(packaged_names())
    assert models.first.info.name == "cifar10"


def test_models_that_cannot_be_loaded_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10_nano_kmeans'"):
        Models(["cifar10_nano_kmean"])
    with pytest.raises(CheckpointError, match="no run folder or weights file"):
        Models([str(tmp_path / "none.safetensors")])


def test_only_what_is_offered_is_loaded(models: Models, ship: Classified, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="choice of weights"):
        models.explain(str(tmp_path), ship.source)


@pytest.mark.parametrize("name", ["airplane", "automobile", "bird", "ship", "truck"])
def test_the_drawn_examples_are_recognized(
    models: Models, examples: dict[str, Path], name: str
) -> None:
    found = models.explain(models.names[0], examples[name])
    assert isinstance(found, Classified)
    assert found.explanation.top[0].name == name


def test_another_class_can_be_explained(models: Models, ship: Classified) -> None:
    other = models.explain(models.names[0], ship.source, label="truck")
    assert isinstance(other, Classified)
    found = other.explanation
    assert (found.top[0].name, found.explained.name) == ("ship", "truck")


WRONG = {
    "broken": "broken|not an image",
    "enormous": "more than the limit",
    "animated": "animation",
    "tiny": "less than one patch",
}


@pytest.mark.parametrize(("wrong", "told"), WRONG.items())
def test_wrong_files_are_reported_with_the_users_name(
    models: Models, wrong_files: "WrongFiles", tmp_path: Path, wrong: str, told: str
) -> None:
    path = tmp_path / "upload.png"
    wrong_files[wrong](path)
    with pytest.raises(DataError, match=told) as raised:
        models.explain(models.names[0], path, called="holiday.png")
    assert str(raised.value).startswith("holiday.png ")
    assert str(tmp_path) not in str(raised.value)


def test_masks_follow_the_threshold(ship: Classified) -> None:
    areas = [
        float(mask(ship, "class_map", "quantile", fraction).float().mean())
        for fraction in (0.1, 0.5)
    ]
    assert areas == pytest.approx([0.1, 0.5], abs=0.01)
    assert mask(ship, "class_map", "otsu", 0.1).equal(mask(ship, "class_map", "otsu", 0.9))


def test_nothing_is_inside_that_was_not_seen(photograph: Classified) -> None:
    seen = photograph.heatmap("class_map").isfinite()
    assert not seen.all()
    assert not (mask(photograph, "class_map", "quantile", 1.0) & ~seen).any()


def test_every_patch_is_found_at_its_middle(photograph: Classified) -> None:
    for clusters in photograph.explanation.stages:
        for row in range(clusters.grid.height):
            for column in range(clusters.grid.width):
                top, left, height, width = patch_region(photograph, clusters, row, column)
                x, y = left + width / 2 - 0.5, top + height / 2 - 0.5
                assert find_patch(photograph, clusters, x, y) == (row, column)
        height, width = photograph.placement.image_size
        last = clusters.grid.height - 1, clusters.grid.width - 1
        assert find_patch(photograph, clusters, 0, 0) == (0, 0)
        assert find_patch(photograph, clusters, width - 1, height - 1) == last


def test_patches_attend_to_valid_clusters(ship: Classified) -> None:
    clusters = ship.clusters(1)
    row, column = best_patch(clusters)
    found = attended(clusters, row, column)
    fractions = [fraction for _, fraction in found]
    assert fractions == sorted(fractions, reverse=True)
    assert sum(fractions) == pytest.approx(1, abs=1e-4)
    some = torch.arange(len(clusters.weights)) % 2 == 0
    assert all(index % 2 == 0 for index, _ in attended(replace(clusters, valid=some), 0, 0))
    with pytest.raises(DataError, match="no patch in row 9, column 1: stage 1 has 8 x 8"):
        attended(clusters, 8, 0)
    with pytest.raises(UnknownNameError, match="known: 0, 1"):
        ship.clusters(2)
