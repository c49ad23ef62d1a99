"""From image files to explanations: aligned with the original, and wrong files told in a line."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pacavit import api, recipes
from pacavit.data import MemoryImages
from pacavit.engine import build
from pacavit.engine.weights.format import save_weights
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.errors import DataError, PacavitError, UnknownNameError
from pacavit.explain import (
    THRESHOLDS,
    FailedImage,
    ImageExplanation,
    binary_mask,
    cluster_mask,
    explain_images,
    explain_split,
    find_class,
    render,
)
from pacavit.explain.classification import ClassificationExplainer
from pacavit.recipes.schema import ModelConfig
from pacavit.report.explanation import classification as pages
from pacavit.utils import pictures

CPU = torch.device("cpu")
MakeModel = Callable[..., LoadedModel]
DrawSquare = Callable[[tuple[int, int], tuple[int, int, int, int]], Path]

# Size of the image and box of the square; a quarter of a patch more than whole patches.
SQUARES = [
    ((32, 32), (10, 6, 26, 22)),
    ((64, 96), (20, 28, 52, 60)),
    ((120, 64), (50, 12, 82, 44)),
    ((16, 16), (5, 3, 13, 11)),
]


def explain_one(model: LoadedModel, path: Path, **options: Any) -> ImageExplanation:
    (explanation,) = explain_images(model, [path], device=CPU, **options)
    assert isinstance(explanation, ImageExplanation)
    return explanation


def middle(light: Tensor) -> tuple[float, float]:
    """Where the light is, on the average, in pixels."""
    rows, columns = light.sum(1), light.sum(0)
    row, column = (
        float((side * torch.arange(len(side))).sum() / side.sum()) for side in (rows, columns)
    )
    return row, column


@pytest.mark.parametrize("paper_stem", [False, True])
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize(("size", "box"), SQUARES)
@pytest.mark.parametrize(
    "method", ["class_map", "cluster_contributions", "relevance", "occlusion", "grad_cam"]
)
def test_the_bright_square_lights_up_where_it_is(
    bright_model: MakeModel,
    draw_square: DrawSquare,
    method: str,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    crop: bool,
    paper_stem: bool,
) -> None:
    model = bright_model(paper_stem=paper_stem, crop=crop)
    path = draw_square(size, box)
    explanation = explain_one(model, path, method=method, label=1)
    light = explanation.restored(method)
    assert light.shape == size
    light = light.nan_to_num()
    light = (light - 0.3 * light.max()).clamp(min=0)
    pixel = min(size) / 32  # of the network's input
    tolerance = 2.5 if method == "occlusion" else 1.25
    expected = ((box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2)
    assert middle(light) == pytest.approx(expected, abs=tolerance * pixel)


@pytest.mark.parametrize("paper_stem", [False, True])
@pytest.mark.parametrize("method", ["class_map", "cluster_contributions", "relevance"])
def test_two_stages_light_the_square_up_where_it_is(
    bright_model: MakeModel, draw_square: DrawSquare, method: str, paper_stem: bool
) -> None:
    """On the average over every place of a square relative to a coarse patch, far from edges."""
    model = bright_model(paper_stem=paper_stem, depths=(1, 1), image_size=64)
    off = []
    for shift in range(8):
        box = (12 + shift, 28 + shift, 44 + shift, 60 + shift)
        path = draw_square((64, 96), box)
        light = explain_one(model, path, method=method, label=1).restored(method).nan_to_num()
        row, column = middle((light - 0.3 * light.max()).clamp(min=0))
        off.append((row - box[0] - 15.5, column - box[1] - 15.5))
    assert torch.tensor(off).mean(0).tolist() == pytest.approx((0, 0), abs=0.1)


def test_titles_tell_of_which_blocks_a_map_is(
    bright_model: MakeModel, draw_square: DrawSquare
) -> None:
    path = draw_square((32, 32), (10, 6, 26, 22))
    one, two = (explain_one(bright_model(depths=depths), path) for depths in ((1,), (1, 2)))
    assert one.title("class_map") == "class map, stage 0"
    assert two.title("class_map") == "class map, stage 1, summed over its blocks"
    assert two.title("attention_map") == "attention map, stage 1, summed over its blocks"
    assert two.title("cluster_contributions") == "cluster contributions, stages 0 and 1"
    figure = render.cluster_gallery(two, two.stages[1])
    assert "clusters of stage 1, block 1, and their fraction" in figure.get_suptitle()


def test_an_explanation_contains_classes_maps_and_stages(
    bright_model: MakeModel, draw_square: DrawSquare
) -> None:
    path = draw_square((64, 96), (20, 28, 52, 60))
    explanation = explain_one(bright_model(), path)
    assert explanation.path == path
    assert explanation.image.shape == (3, 64, 96)
    assert [guess.name for guess in explanation.top] == [explanation.explained.name, "bright"]
    shown = ["cluster_contributions", "relevance", "class_map", "attention_map"]
    assert list(explanation.maps) == shown
    assert explanation.choice.methods == ("cluster_contributions", "relevance")
    restored = explanation.restored("cluster_contributions")
    assert restored[:, 16:80].isfinite().all()
    assert restored[:, :16].isnan().all()
    (clusters,) = explanation.stages
    assert clusters.attention.shape == (256, 2)
    torch.testing.assert_close(clusters.weights.sum(1), torch.ones(2))
    bright = clusters.partition.unflatten(0, clusters.grid) == 0
    assert bright.sum() == 64
    assert bright[5:13, 3:11].sum() >= 48
    light = explain_one(bright_model(), path, label=1).restored("cluster_contributions")
    mask = binary_mask(light[None])[0]
    assert mask[24:48, 32:56].all()
    assert mask.sum() < 1.3 * 32 * 32


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize(("size", "box"), SQUARES)
def test_the_mask_of_the_best_cluster_covers_the_square(
    bright_model: MakeModel,
    draw_square: DrawSquare,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    crop: bool,
) -> None:
    explanation = explain_one(bright_model(crop=crop), draw_square(size, box), label=1)
    (clusters,) = explanation.stages
    assert clusters.ranking()[0] == 0
    mask = cluster_mask(explanation)
    assert mask.shape == size
    pixel = -(-min(size) // 32)  # of the network's input; the edges are blurred by as much
    top, left, bottom, right = box
    inside = slice(top + pixel, bottom - pixel), slice(left + pixel, right - pixel)
    assert mask[inside].all()
    assert mask.sum() < 1.5 * (bottom - top) * (right - left)
    assert not cluster_mask(explanation, 0, 1)[inside].any()
    quarter = cluster_mask(explanation, threshold="quantile", value=0.05)
    assert quarter.sum() < mask.sum()


def test_masks_of_clusters_that_are_not_there(
    bright_model: MakeModel, draw_square: DrawSquare
) -> None:
    path = draw_square((32, 32), (8, 8, 20, 20))
    explanation = explain_one(bright_model(), path)
    for stage, cluster, told in (
        (1, None, "stage 1 has no clusters; choose among: 0"),
        (None, 2, "stage 0 has no cluster 2 in this image; choose among: 0, 1"),
        (0, -1, "no cluster -1"),
    ):
        with pytest.raises(PacavitError, match=told):
            cluster_mask(explanation, stage, cluster)
    with pytest.raises(PacavitError, match="no stage with clusters"):
        cluster_mask(explain_one(bright_model(clusters=0), path))


def test_models_without_clusters_are_explained_by_other_methods(
    bright_model: MakeModel, draw_square: DrawSquare
) -> None:
    model, path = bright_model(clusters=0), draw_square((32, 32), (8, 8, 20, 20))
    explanation = explain_one(model, path)
    assert list(explanation.maps) == ["relevance"]
    assert explanation.stages == ()
    with pytest.raises(PacavitError, match="no stage with clusters"):
        explain_images(model, [path], device=CPU, method="class_map")
    with pytest.raises(UnknownNameError, match="unknown option 'stage' of explanation method"):
        explain_images(model, [path], device=CPU, method="edges", stage=0)
    with pytest.raises(PacavitError, match="stage 3 has no clusters; choose among: 0"):
        explain_images(bright_model(), [path], device=CPU, stage=3)


def test_wrong_files_are_reported_and_do_not_stop_the_others(
    bright_model: MakeModel, draw_square: DrawSquare, tmp_path: Path
) -> None:
    good = draw_square((32, 32), (8, 8, 20, 20))
    broken, tiny, animated = (tmp_path / name for name in ("broken.png", "tiny.png", "a.gif"))
    broken.write_bytes(good.read_bytes()[:60])
    Image.new("RGB", (40, 1)).save(tiny)
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    frames[0].save(animated, save_all=True, append_images=frames[1:])
    paths = [broken, tiny, animated, tmp_path / "missing.png", good]
    found = list(explain_images(bright_model(), paths, device=CPU))
    errors = [one.error for one in found if isinstance(one, FailedImage)]
    assert isinstance(found[-1], ImageExplanation)
    for error, path, told in zip(
        errors,
        paths,
        ("broken image", "less than one patch", "animation", "no image"),
        strict=False,
    ):
        assert str(path) in error
        assert told in error
        assert "\n" not in error


def test_classes_by_name_and_by_index(bright_model: MakeModel) -> None:
    info = bright_model().info
    assert find_class("bright", info) == find_class("1", info) == find_class(1, info) == 1
    with pytest.raises(UnknownNameError, match="did you mean 'bright'"):
        find_class("brights", info)
    with pytest.raises(UnknownNameError, match="unknown class '--1'"):
        find_class("--1", info)
    for index in (2, "-1", 99):
        with pytest.raises(DataError, match="out of range: made has the classes 0 to 1"):
            find_class(index, info)


def test_pictures_have_the_size_they_should(
    bright_model: MakeModel, draw_square: DrawSquare
) -> None:
    explanation = explain_one(bright_model(), draw_square((64, 96), (20, 28, 52, 60)), label=1)
    (clusters,) = explanation.stages
    masks = render.map_masks(explanation, "cluster_contributions")
    of_cluster = render.cluster_masks(explanation, clusters)
    assert set(masks) == set(of_cluster) == set(THRESHOLDS)
    assert all(mask.shape == (64, 96) for mask in (*masks.values(), *of_cluster.values()))
    assert masks["otsu"][36, 44]
    assert torch.equal(of_cluster["otsu"], cluster_mask(explanation))
    assert render.display_size((64, 96)) == (213, 320)
    assert render.display_size((3000, 1000)) == (640, 213)
    for figure in (
        render.overlay(explanation, "cluster_contributions", "class map"),
        render.cluster_gallery(explanation, clusters),
    ):
        assert pictures.figure_bytes(figure).startswith(b"\x89PNG")
    colors = render.cluster_colors(clusters)
    assert len(set(colors)) == 2


def test_pictures_are_saved_as_they_are() -> None:
    """Small ones and large ones, which are compressed otherwise, and masks with one bit a pixel."""
    for size in ((40, 30), (900, 800)):
        picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        with Image.open(BytesIO(pictures.png_bytes(picture))) as saved:
            assert torch.equal(torch.from_numpy(np.array(saved)).permute(2, 0, 1), picture)
        mask = picture[0] > 99
        with Image.open(BytesIO(pictures.png_bytes(mask))) as saved:
            assert saved.mode == "1"
            assert torch.equal(torch.from_numpy(np.array(saved)), mask)
    assert render.thumbnail(mask, (9, 8)).dtype is torch.bool


@pytest.mark.parametrize("count", [1, 2])
def test_even_a_single_image_shows_that_it_is_under_way(
    bright_model: MakeModel,
    draw_square: DrawSquare,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    paths = [draw_square((32, 32), (8, 8, 20, 20))] * count
    for terminal, progress in (("1", True), ("1", False), ("", True)):
        monkeypatch.setenv("FORCE_COLOR", terminal)
        found = explain_images(bright_model(), paths, device=CPU, progress=progress)
        assert len(list(found)) == count
        shown = capsys.readouterr().err
        assert ("explaining" in shown) == (progress and (terminal == "1" or count > 1))


def test_images_of_a_split_are_explained_as_files_are(
    bright_model: MakeModel, draw_square: DrawSquare
) -> None:
    model = bright_model()
    from_file = explain_one(model, draw_square((32, 64), (4, 26, 32, 64)))
    images = torch.stack([torch.zeros_like(from_file.image), from_file.image])
    split = MemoryImages(images, torch.tensor([0, 1]))
    found, dark = explain_split(model, split, [1, 0], device=CPU)
    assert (found.path, dark.path) == (Path("image 1"), Path("image 0"))
    assert torch.equal(found.image, from_file.image)
    assert (found.explained, found.placement) == (from_file.explained, from_file.placement)
    method, expected = next(iter(from_file.maps.items()))
    assert list(found.maps) == [method, "relevance"]  # a report shows no others
    assert tuple(found.maps) == found.choice.methods == from_file.choice.methods
    assert torch.equal(found.maps[method], expected)
    assert torch.equal(found.stages[0].partition, from_file.stages[0].partition)


def saved(model: str, folder: Path, **options: Any) -> Path:
    """Random weights of a network for digits, as our own file."""
    torch.manual_seed(0)
    recipe = recipes.load("digits").model_copy(
        update={"model": ModelConfig.model_validate({"name": model, **options})}
    )
    path = folder / f"{model}.safetensors"
    info = build.data_source(recipe).info
    save_weights(path, build.model(recipe.model, 10), recipe, info, {})
    return path


@pytest.mark.parametrize(
    ("model", "options", "method"),
    [
        ("resnet10t", {}, "grad_cam"),
        (
            "deit_tiny_patch16_224",
            {"options": {"img_size": 32, "patch_size": 4, "depth": 2}},
            "relevance",
        ),
        ("pacavit_nano", {"num_clusters": 0, "clustering": None}, "relevance"),
    ],
)
def test_without_a_method_every_network_is_explained(
    tmp_path: Path, draw_square: DrawSquare, model: str, options: dict[str, Any], method: str
) -> None:
    weights = saved(model, tmp_path, **options)
    path = draw_square((40, 64), (8, 8, 24, 24))
    (image,) = api.explain(weights, path, tmp_path / "why")
    assert image.error is None
    assert image.folder is not None
    assert (image.folder / f"{method}.png").is_file()
    (explanation,) = explain_images(load_model(weights), [path], device=CPU)
    assert isinstance(explanation, ImageExplanation)
    found = explanation.maps[method]
    assert list(explanation.maps) == [method]
    assert found.isfinite().all()
    assert found.max() > found.min()


def test_an_error_of_the_system_inside_of_inference_is_no_failed_write(
    tmp_path: Path, draw_square: DrawSquare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error", "kernel.so")

    path = draw_square((32, 32), (8, 8, 24, 24))
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationExplainer, "explain", fail)
        with pytest.raises(OSError, match=r"Input/output error: 'kernel\.so'"):
            api.explain("cifar10_nano_conv", path, tmp_path / "why")
    monkeypatch.setattr(pages, "write_pictures", fail)
    with pytest.raises(PacavitError, match=r"cannot write .*why: Input/output error"):
        api.explain("cifar10_nano_conv", path, tmp_path / "why", overwrite=True)
