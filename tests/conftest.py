"""What every test gets: fixed seeds, few threads, and the real images where there are any."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pacavit import recipes
from pacavit.data import DataInfo, MaskInfo, ObjectInfo
from pacavit.detectors import Watershed
from pacavit.engine import build
from pacavit.engine.weights.format import save_weights
from pacavit.heads import PacaHead
from pacavit.recipes.schema import ModelConfig, Recipe
from pacavit.tasks.base import Task, TaskConfig
from pacavit.tasks.detection import InstanceSegmentationConfig, InstanceSegmentationTask
from pacavit.tasks.segmentation import SegmentationConfig, SegmentationTask
from pacavit_cli.main import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
# The same examples in every run: a chaotic one found by chance hides what a change has broken.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
# A pacavit_nano of few channels.
NARROW = "model.options={embed_dims = [24, 32, 48], num_heads = [2, 2, 2], stem_dims = [8, 24]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Several processes end together only if none begins the longest file last.
    seconds = {item.path: 0.0 for item in items}
    for item in items:
        if (marker := item.get_closest_marker("timeout")) is not None:
            seconds[item.path] = max(seconds[item.path], float(marker.args[0]))
        elif "slow" in item.keywords:
            seconds[item.path] = max(seconds[item.path], 1.0)
    items.sort(key=lambda item: -seconds[item.path])
    if importlib.util.find_spec("ray") is None:
        for item in items:
            if "ray" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="Ray is not installed; see `make ray`"))
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries under test may draw from the global state)
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)


LoadScript = Callable[[Path], ModuleType]


@pytest.fixture(scope="session")
def load_script() -> LoadScript:
    """Import a Python file outside of the package, under its own name, without its main()."""

    def load(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder that holds data/ (real images) and reference/ (parity tensors)."""
    folder = os.environ.get("PACAVIT_DATA")
    if not folder:
        pytest.skip("set PACAVIT_DATA to the folder that holds data/ and reference/")
    return Path(folder)


def write_pairs(
    images: Path, masks: Path, num: int = 4, *, size: tuple[int, int] = (24, 32), classes: int = 3
) -> None:
    """Write noise images and PNG masks of the same names, whose values are 0 to classes - 1."""
    rng = np.random.default_rng(zlib.crc32("/".join(images.parts[-2:]).encode()))
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for number in range(num):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
        values = rng.integers(0, classes, size, np.uint8)
        values[0, :classes] = range(classes)
        Image.fromarray(values).save(masks / f"{number}.png")


WritePairs = Callable[..., None]


@pytest.fixture(scope="session", name="write_pairs")
def _write_pairs() -> WritePairs:
    return write_pairs


def write_coco(
    root: Path, split: str = "train", num: int = 4, *, size: tuple[int, int] = (24, 32)
) -> dict[str, Any]:
    """Write noise images in COCO's layout, each with a square of class 3 and a polygon of class 7.

    Returns:
        The content of the annotation file.
    """
    rng = np.random.default_rng(zlib.crc32(split.encode()))
    folder, (height, width) = root / f"{split}2017", size
    folder.mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, num + 1):
        file = f"{split}_{number}.png"
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / file)
        images.append({"id": number, "file_name": file, "width": width, "height": height})
        for category, corners in ((3, [2, 2, 10, 2, 10, 10, 2, 10]), (7, [12, 4, 28, 4, 20, 20])):
            across, down = corners[::2], corners[1::2]
            left, top = min(across), min(down)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [left, top, max(across) - left, max(down) - top],
                    "area": 64.0 if category == 3 else 128.0,
                    "iscrowd": 0,
                    "segmentation": [corners],
                }
            )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "wedge"}, {"id": 3, "name": "square"}],
    }
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return content


WriteCoco = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session", name="write_coco")
def _write_coco() -> WriteCoco:
    return write_coco


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch of a narrow network on digits; tests must not change it.

    It is trained once, also where several processes run the tests: their folders lie side by side.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    run = base / "digits_run" / "digits"
    run.parent.mkdir(exist_ok=True)
    with FileLock(run.with_name(".lock")):
        if not (run / "report.html").exists():
            # Batches so small that one epoch teaches it most digits.
            changes = ("train.epochs=1", "train.batch_size=16", NARROW)
            words = [word for change in changes for word in ("--set", change)]
            assert main(["train", "digits", "--out", str(run), *words]) == 0
    return run


@pytest.fixture(scope="session")
def noise_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth noise of 60 x 80 pixels; tests must not change it."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(3))
    pixels = F.interpolate(coarse, (60, 80), mode="bicubic").clamp(0, 1)
    path = tmp_path_factory.mktemp("images") / "noise.png"
    Image.fromarray((255 * pixels[0]).byte().permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory, noise_image: Path) -> Path:
    """Weights of a segmentation network that was not trained, with a PaCa head, three classes.

    Its biases are such that it finds each class in ``noise_image``; tests must not change it.
    """
    config = SegmentationConfig(head_options={"channels": 16})
    info = replace(
        SCENES,
        class_names=("sky", "road", "a <b>/car"),
        masks=MaskInfo((1, 2, 3), ((0, 0, 255), (90, 90, 90), (255, 0, 0))),
    )
    task, recipe = _untrained(config, info)
    assert isinstance(task, SegmentationTask)
    head = task.model.head
    assert isinstance(head, PacaHead)
    _center(head, task.model.backbone(_normalized(noise_image)))
    path = tmp_path_factory.mktemp("segmenter") / "segmenter.safetensors"
    save_weights(path, task.model, recipe, info, {})
    return path


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory, noise_image: Path) -> Path:
    """Weights of a detector that was not trained: watershed with a PaCa head, two classes.

    Its last layers are such that it finds objects of both classes in ``noise_image``; tests must
    not change it.
    """
    config = InstanceSegmentationConfig.model_validate(
        {"detector": "watershed", "detector_options": {"head_options": {"channels": 16}}}
    )
    info = replace(
        SCENES,
        class_names=("disc", "a <b>/car"),
        objects=ObjectInfo((3, 7), ((0, 0, 255), (255, 0, 0))),
    )
    task, recipe = _untrained(config, info)
    assert isinstance(task, InstanceSegmentationTask)
    found = task.model
    assert isinstance(found, Watershed)
    assert isinstance(found.head, PacaHead)
    _center(found.head, found.backbone(_normalized(noise_image)), spread=4)
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    save_weights(path, found, recipe, info, {})
    return path


SCENES = DataInfo(
    name="scenes",
    version="made by hand",
    class_names=(),
    image_size=(48, 64),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


def _untrained(config: TaskConfig, info: DataInfo) -> tuple[Task, Recipe]:
    """A task with a narrow network, and its recipe."""
    torch.manual_seed(0)
    options = {"embed_dims": [24, 32, 48], "num_heads": [2, 2, 2], "stem_dims": [8, 24]}
    model = ModelConfig.model_validate({"name": "pacavit_nano", "options": options})
    recipe = recipes.load("digits").model_copy(update={"task": config, "model": model})
    return build.task(recipe, info).eval(), recipe


def _normalized(path: Path) -> Tensor:
    """An image file as a batch of one for networks of ``SCENES``."""
    with Image.open(path) as opened:
        pixels = torch.from_numpy(np.array(opened)).permute(2, 0, 1)[None]
    return (pixels / 255 - 0.5) / 0.25


@torch.no_grad()
def _center(head: PacaHead, maps: Sequence[Tensor], spread: float | None = None) -> None:
    """Change the last layers of a head, so that the logits of each class have mean 0.

    Args:
        head: to change.
        maps: of a backbone for an image.
        spread: standard deviation that the logits get; None leaves it as it is.
    """
    for layer in (head.to_clusters, head.classifier):
        output = head(maps)
        logits = output.logits if layer is head.classifier else output.supervised["clusters"]
        assert layer.bias is not None
        layer.bias -= logits.mean((0, 2, 3))
        if spread is not None:
            factor = spread / logits.std((0, 2, 3))
            layer.bias *= factor
            layer.weight *= factor.view(-1, *[1] * (layer.weight.ndim - 1))


@pytest.fixture(scope="session")
def fast() -> tuple[str, ...]:
    """Changes of a recipe for a training of two or three seconds; the network learns little."""
    return ("train.epochs=1", "data.val_size=20", "train.batch_size=128", NARROW)


AuthorsWeights = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="session")
def authors_weights() -> AuthorsWeights:
    """Random weights under the names that the authors' checkpoints have, table in paca-vit.md."""
    return make_authors_weights


def make_authors_weights(
    dims: Sequence[int] = (96, 192, 320, 384),
    depths: Sequence[int] = (2, 2, 4, 2),
    clusters: Sequence[int] = (100, 100, 100, 0),
    method: str = "conv",
    every: int = 0,
    teacher_depths: Sequence[int] | None = None,
    num_classes: int = 1000,
) -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def batch_norm(name: str, dim: int) -> None:
        layer(name, dim)
        shapes[f"{name}.running_mean"] = shapes[f"{name}.running_var"] = (dim,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def clustering(name: str, dim: int, number: int) -> None:
        if method == "conv":
            layer(f"{name}.0", dim, 1, 7, 7)
            layer(f"{name}.2", dim, dim, 1, 1)
            layer(f"{name}.4", number, dim, 1, 1, bias=False)
        elif method == "mlp":
            layer(f"{name}.0", 4 * dim, dim)
            layer(f"{name}.2", number, 4 * dim)
        else:
            layer(f"{name}.0", number, dim, bias=False)

    def mixer(name: str, dim: int) -> None:
        layer(f"{name}.0.fn.0", dim, 1, 7, 7)
        batch_norm(f"{name}.0.fn.2", dim)
        layer(f"{name}.1", dim, dim, 1, 1)
        batch_norm(f"{name}.3", dim)

    layer("patch_embed.proj.0", dims[0] // 2, 3, 3, 3)
    layer("patch_embed.proj.1", dims[0], dims[0] // 2, 3, 3)
    layer("patch_embed.norm", dims[0])
    for stage, (dim, depth, number) in enumerate(zip(dims, depths, clusters, strict=True), 1):
        layer(f"norm{stage}", dim)
        for block in range(depth):
            prefix = f"stage{stage}.{block}"
            for name in ("norm1_before", "norm2_before"):
                layer(f"{prefix}.{name}", dim)
            for name in "q", "k", "v", "proj":
                layer(f"{prefix}.attn.{name}", dim, dim)
            layer(f"{prefix}.mlp.fc1", 4 * dim, dim)
            layer(f"{prefix}.mlp.dwconv.dwconv", 4 * dim, 1, 3, 3)
            layer(f"{prefix}.mlp.fc2", dim, 4 * dim)
            if number:
                layer(f"{prefix}.attn.cluster_norm", dim)
            if number and not teacher_depths and (block % every if every else block) == 0:
                clustering(f"{prefix}.attn.clustering.clustering", dim, number)
        if stage < len(dims):
            layer(f"transition{stage}.proj", dims[stage], dim, 3, 3)
            layer(f"transition{stage}.norm", dims[stage])
        if teacher_depths:
            prefix = "paca_teacher"
            for block in range(teacher_depths[stage - 1]):
                mixer(f"{prefix}.block{stage}.{block}", dim)
            layer(f"{prefix}.to_clusters{stage}", number, dim, 1, 1)
            if stage < len(dims):
                layer(f"{prefix}.transition{stage}.0.conv", dims[stage], dim, 3, 3)
                shapes[f"{prefix}.transition{stage}.0.blur_filter"] = (dim, 1, 3, 3)
                batch_norm(f"{prefix}.transition{stage}.2", dims[stage])
                layer(f"{prefix}.lateral{stage}.0", dim, dims[stage], 1, 1)
                batch_norm(f"{prefix}.lateral{stage}.2", dim)
                mixer(f"{prefix}.fpn{stage}", dim)
    layer("head", num_classes, dims[-1])
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }
    return {
        name: tensor.abs() + 1 if name.endswith("running_var") else tensor
        for name, tensor in weights.items()
    }


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium: the machine's own, for Playwright's is a download of its own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine (on Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium)
        except sync_api.Error as error:
            pytest.skip(f"{chromium} does not start: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
