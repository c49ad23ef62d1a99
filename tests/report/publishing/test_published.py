from __future__ import annotations

import pytest

from pacavit import recipes
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import PacavitError
from pacavit.report.publishing.published import find_published, published


def test_every_published_number_has_a_recipe_that_loads() -> None:
    names = [entry.name for entry in published()]
    assert len(set(names)) == len(names) > 4
    for entry in published():
        assert recipes.load(entry.recipe, entry.changes).name == entry.recipe
        assert entry.margin is None or 0 < entry.margin < 0.02
        assert str(entry.command).startswith(f"pacavit train {entry.recipe} ")


def test_packaged_weights_are_of_published_runs() -> None:
    names = {entry.name.replace("-", "_") for entry in published()}
    assert set(packaged_names()) <= names


def test_an_unknown_result_is_reported_with_the_nearest_name() -> None:
    with pytest.raises(PacavitError, match="did you mean 'cifar10_nano-conv'"):
        find_published("cifar10_nano-comv")
    with pytest.raises(PacavitError, match="lists them"):
        find_published("??")
