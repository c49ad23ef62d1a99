"""Old names of options go on working, with one warning each; so do plug-ins written before."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from pacavit.clustering import CLUSTERINGS, Clustering, DBSCANClustering
from pacavit.engine import load_model
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.models import PacaViT
from pacavit.testing import check_clustering
from pacavit.types import Grid
from pacavit.utils.registry import load_plugin

RENAMED = [
    ("kmeans", "place", "position_weight", 0.5),
    ("hierarchical", "place", "position_weight", 0.5),
    ("hierarchical", "rest", "outliers", "nearest"),
    ("dbscan", "place", "position_weight", 0.5),
    ("dbscan", "rest", "outliers", "cluster"),
]


@pytest.fixture(scope="module")
def plugin() -> None:
    load_plugin(Path(__file__).parent / "plugin_of_version_0_1.py")


@pytest.mark.parametrize(("name", "old", "new", "value"), RENAMED)
def test_an_old_name_is_accepted_with_one_warning(
    name: str, old: str, new: str, value: Any
) -> None:
    message = f"option '{old}' of .*Clustering is now called '{new}'"
    for build in (
        lambda: CLUSTERINGS.create(name, 8, 4, options={old: value}),
        lambda: CLUSTERINGS.get(name)(8, 4, **{old: value}),
    ):
        with pytest.warns(FutureWarning, match=message) as found:
            module = build()
        assert len(found) == 1
        assert getattr(module, new) == value


def test_both_names_of_an_option_are_refused() -> None:
    with pytest.raises(RecipeError, match="'rest' and 'outliers' of DBSCANClustering are the same"):
        DBSCANClustering(8, 4, rest="nearest", outliers="nearest")  # type: ignore[call-arg]


def test_an_unknown_option_is_still_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'outliers'"):
        CLUSTERINGS.create("dbscan", 8, 4, options={"outlier": "nearest"})


def test_a_network_of_several_stages_warns_once() -> None:
    """A recipe and the recipe inside stored weights reach the network by this argument."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        model = PacaViT(
            embed_dims=(8, 12, 16),
            depths=(1, 1, 1),
            num_heads=(1, 1, 1),
            num_clusters=(4, 4, 4),
            clustering="dbscan",
            clustering_options={"rest": "cluster"},
        )
    assert [each.category for each in found] == [FutureWarning]
    used = [module for module in model.modules() if isinstance(module, DBSCANClustering)]
    assert [module.outliers for module in used] == ["cluster"] * 3


@pytest.mark.parametrize("name", ["hierarchical", "dbscan", "kmeans"])
def test_packaged_weights_load_without_a_warning(name: str) -> None:
    load_model(f"cifar10_nano_{name}")  # warnings are errors


def test_a_plug_in_renames_its_options_by_the_same_attribute() -> None:
    class Mine(Clustering):
        renamed_options: ClassVar[dict[str, str]] = {"sharpness": "scale"}

        def __init__(self, dim: int, num_clusters: int, *, scale: float = 1.0) -> None:
            super().__init__(dim, num_clusters)
            self.scale = scale

    class Heir(Mine):
        pass

    for cls in (Mine, Heir):
        with pytest.warns(FutureWarning, match=f"'sharpness' of {cls.__name__} is now called 'sc"):
            assert cls(8, 4, sharpness=3.0).scale == 3.0  # type: ignore[call-arg]


def test_a_subclass_of_today_may_have_and_hand_on_an_old_name() -> None:
    class Narrow(DBSCANClustering):
        def __init__(self, dim: int, num_clusters: int, *, place: float = 0.25) -> None:
            super().__init__(dim, num_clusters, place=place)  # type: ignore[call-arg]

    with pytest.warns(FutureWarning, match="'place' of Narrow is now called 'position_weight'"):
        assert Narrow(8, 4, place=0.5).position_weight == 0.5


@pytest.mark.usefixtures("plugin")
def test_a_plug_in_of_today_keeps_its_contract_and_its_own_options() -> None:
    options = {"scale": 2.0, "place": 1.0, "rest": "cluster", "hard": False}
    check_clustering(CLUSTERINGS.get("of_version_0_1"), options)
    module: Any = CLUSTERINGS.create("of_version_0_1", 8, 4, options=options)
    assert module.own == (1.0, "cluster")
    hard = CLUSTERINGS.create("of_version_0_1", 8, 4, options={"hard": True})
    assert hard(torch.randn(2, 6, 8), Grid(2, 3)).valid is not None


@pytest.mark.usefixtures("plugin")
def test_the_old_attribute_of_the_base_class_still_works() -> None:
    with pytest.warns(FutureWarning, match="'place' of Placed is now called 'position_weight'"):
        module: Any = CLUSTERINGS.create("placed_of_version_0_1", 8, 4, options={"place": 0.25})
    module(torch.randn(1, 6, 8), Grid(2, 3))
    assert (module.width, module.position_weight, module.place) == (10, 0.25, 0.25)

    with pytest.warns(FutureWarning, match="'place' of InBody is now called 'position_weight'"):

        class InBody(Clustering):
            place = 0.75

            def labels(self, x: Tensor, grid: Grid) -> Tensor:
                assert x.shape[2] == 10
                return torch.zeros(x.shape[:2], dtype=torch.int64)

    found = InBody(8, 4)
    found(torch.randn(1, 6, 8), Grid(2, 3))
    assert (found.position_weight, found.place) == (0.75, 0.75)
