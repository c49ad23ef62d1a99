from __future__ import annotations

from pathlib import Path

import pytest

from pacavit.compare import make_plan
from pacavit.compare.plan import split_values
from pacavit.errors import PacavitError


def test_every_value_is_trained_with_every_seed(tmp_path: Path) -> None:
    plan = make_plan(
        "digits",
        ["model.clustering=conv, kmeans"],
        seeds=[0, 5],
        changes=["train.epochs=2"],
        out=tmp_path,
    )
    runs = [(run.value, run.seed, run.folder.name) for run in plan.runs]
    assert runs == [
        ("conv", 0, "conv-seed0"),
        ("kmeans", 0, "kmeans-seed0"),
        ("conv", 5, "conv-seed5"),
        ("kmeans", 5, "kmeans-seed5"),
    ]
    last = plan.runs[-1].recipe
    assert (last.model.clustering, last.train.seed, last.train.epochs) == ("kmeans", 5, 2)


def test_values_of_several_fields_are_rows_of_their_own(tmp_path: Path) -> None:
    over = ["model.clustering=conv,grid", "model.attention=full"]
    plan = make_plan("digits", over, seeds=[0], changes=[], out=tmp_path)
    assert plan.fields == ("model.clustering", "model.attention")
    assert [run.label for run in plan.runs] == ["conv", "grid", "attention=full"]
    assert plan.runs[2].folder.name == "attention_full-seed0"
    assert [run.recipe.model.attention for run in plan.runs] == [None, None, "full"]
    with pytest.raises(PacavitError, match=r"field model.clustering is given 2 times"):
        make_plan("digits", [over[0], over[0]], seeds=[0], changes=[], out=tmp_path)


def test_any_field_is_compared_and_gives_folders_with_plain_names(tmp_path: Path) -> None:
    over = 'model.clustering_options={"temperature" = 0.1},{"temperature" = 0.2}'
    plan = make_plan("digits", [over], seeds=[0], changes=["model.clustering=kmeans"], out=tmp_path)
    assert [run.folder.name for run in plan.runs] == [
        "temperature_0.1-seed0",
        "temperature_0.2-seed0",
    ]
    assert len({run.folder for run in plan.runs}) == 2


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a,b", ["a", "b"]),
        (" a , b ", ["a", "b"]),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ('{a = "x,y"},2', ['{a = "x,y"}', "2"]),
        ("", [""]),
    ],
)
def test_commas_inside_brackets_belong_to_values(text: str, values: list[str]) -> None:
    assert split_values(text) == values


@pytest.mark.parametrize(
    ("over", "seeds", "message"),
    [
        ("model.clustering", [0], "is not FIELD=a,b,c"),
        ("model.clustering=conv,,mlp", [0], "is not FIELD=a,b,c"),
        ("=conv", [0], "is not FIELD=a,b,c"),
        ("model.clustering=conv,mlp,conv", [0], "value conv is given 2 times"),
        ("model.clustering=conv", [1, 1], "seed 1 is given 2 times"),
        ("model.clustering=conv", [], "at least one seed"),
        ("model.clustering=conv,kmens", [0], "did you mean 'kmeans'"),
        ("model.clustring=conv", [0], "did you mean 'model.clustering'"),
        ("train.seed=1,2", [0], "give seeds instead"),
        ("train.epochs=2,x", [0], "train.epochs"),
    ],
)
def test_wrong_plans_are_refused_before_anything_is_trained(
    tmp_path: Path, over: str, seeds: list[int], message: str
) -> None:
    with pytest.raises(PacavitError, match=message):
        make_plan("digits", [over], seeds=seeds, changes=[], out=tmp_path)
    assert not list(tmp_path.iterdir())
