"""Apple's GPU (mps) without a Mac: a simulated device that refuses what the real one refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pacavit import api
from pacavit.clustering import CLUSTERINGS
from pacavit.clustering.functional import _agglomerative, _dbscan
from pacavit.data import Batch
from pacavit.engine import load_model, train
from pacavit.engine.system import pick_device, put_metrics
from pacavit.explain import METHODS, ImageExplanation, explain_images
from pacavit.heads import HEADS
from pacavit.models import build_pyramid
from pacavit.recipes import Recipe
from pacavit.tasks.classification import Predictions
from pacavit.tasks.multilabel import MultilabelMetrics
from pacavit.tasks.segmentation import SegmentationConfig, SegmentationTask, Segmenter

AnyTensor = TypeVar("AnyTensor", bound=Tensor)
MakeRecipe = Callable[..., Recipe]
MPS = torch.device("mps")
NARROW: dict[str, Any] = {
    "embed_dims": (24, 32, 48),
    "num_heads": (2, 2, 2),
    "stem_dims": (8, 24),
}
# Functions whose tensors may lie on different devices.
_MOVING = {
    *("__deepcopy__", "__getitem__", "__set__", "__setitem__", "_has_compatible_shallow_copy_type"),
    *("copy_", "to", "type_as", "zeros_like"),
}


class AppleGpu(TorchFunctionMode):
    """Computes on the CPU, and marks tensors as being on ``mps``.

    Results of marked tensors are marked. As on the real device, float64, mixing with tensors of the
    CPU other than scalars, and conversion to NumPy are errors.

    Attributes:
        computed: names of the functions that were called with marked tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.computed: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        own = args[0] if args and isinstance(args[0], Tensor) else None
        if func is torch.device or name == "_parse_to":
            return func(*args, **(kwargs or {}))
        if func == Tensor.device.__get__:
            return MPS if _marked(own) else func(*args)
        if func == Tensor.data.__set__ and own is not None:  # type: ignore[attr-defined]
            own = _mark(own) if _marked(args[1]) else own
        tensors = list(_tensors([*args, kwargs]))
        on_device = [tensor for tensor in tensors if _marked(tensor)]
        if on_device:
            self.computed.add(name)
            self._check(name, tensors, on_device)
        asked = [
            device for value in [*args, *(kwargs or {}).values()] if (device := _device(value))
        ]
        if name == "to" and len(tensors) > 1:
            asked = [MPS if _marked(tensors[1]) else torch.device("cpu")]
        if name == "cpu":
            asked = [torch.device("cpu")]
        if name == "register_hook" and on_device:
            args = (own, partial(self._call_hook, args[1]))
        args, kwargs = _on_cpu(args), _on_cpu(kwargs or {})
        found = func(*args, **kwargs)
        if asked:
            wanted = asked[-1].type == "mps"
        elif name == "__deepcopy__" or (name.endswith("_") and not name.endswith("__")):
            wanted = _marked(own)
        else:
            wanted = bool(on_device)
        for tensor in _tensors(found):
            if wanted and tensor.dtype == torch.float64:
                raise TypeError(f"{name}: the MPS framework doesn't support float64")
        if asked and isinstance(found, Tensor) and found is own and wanted != (_marked(own)):
            found = found.detach().clone().requires_grad_(found.requires_grad)
        if wanted:
            for tensor in _tensors(found):
                _mark(tensor)
        return found

    def _call_hook(self, hook: Callable[[Tensor], Any], gradient: Tensor) -> Any:
        """Call a hook on a gradient, with this mode, which is off in a backward pass."""
        with self:
            return hook(_mark(gradient))

    def _check(self, name: str, tensors: list[Tensor], on_device: list[Tensor]) -> None:
        if name in ("numpy", "__array__"):
            raise TypeError("can't convert mps:0 device type tensor to numpy")
        others = [one for one in tensors if not _marked(one) and one.dim() > 0]
        if others and name not in _MOVING:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, mps or cpu")


def _mark(tensor: AnyTensor) -> AnyTensor:
    tensor._on_mps = True  # type: ignore[attr-defined]
    return tensor


def _marked(value: Any) -> bool:
    return getattr(value, "_on_mps", False)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _device(value: Any) -> torch.device | None:
    if isinstance(value, torch.device):
        return value
    return torch.device(value) if isinstance(value, str) and value in ("mps", "cpu") else None


def _on_cpu(value: Any) -> Any:
    if _device(value) is not None:
        return torch.device("cpu")
    if isinstance(value, dict):
        return {name: _on_cpu(each) for name, each in value.items()}
    return tuple(map(_on_cpu, value)) if type(value) is tuple else value


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[AppleGpu]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.zeros(4, dtype=torch.uint8))
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())
    copy_parameter = nn.Parameter.__deepcopy__

    def deepcopy(self: nn.Parameter, memo: Any) -> nn.Parameter:
        copied: nn.Parameter = copy_parameter(self, memo)
        return _mark(copied) if _marked(self) else copied

    monkeypatch.setattr(nn.Parameter, "__deepcopy__", deepcopy)
    with AppleGpu() as device:
        yield device


def test_the_simulated_device_refuses_what_the_real_one_does(gpu: AppleGpu) -> None:
    device = pick_device("auto")
    assert device == MPS
    x = torch.randn(3, 4).to(device)
    assert x.device == (x + 1).device == torch.zeros(2, device=device).device == MPS
    assert x.cpu().device == torch.device("cpu")
    assert x.cpu().double().numpy().shape == (3, 4)
    with pytest.raises(TypeError, match="float64"):
        x.double()
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(2, dtype=torch.float64, device=device)
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.zeros(4)
    assert nn.Linear(2, 2).to(device).weight.device == MPS


def test_a_run_trains_and_is_measured(
    gpu: AppleGpu, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    settings = {"device": "auto", "keep": "best", "class_weights": "balanced"}
    run = train(make_recipe(**settings), tmp_path / "run", progress=False)
    assert {"conv2d", "cross_entropy"} <= gpu.computed
    assert json.loads((run / "environment.json").read_text())["device"] == "mps"
    calibrated = load_model(run).calibration
    assert calibrated is None or calibrated.temperature > 0
    gpu.computed.clear()
    assert api.evaluate(run, tta="flip").num_images == 30
    assert "conv2d" in gpu.computed


@pytest.mark.parametrize("name", [name for name in CLUSTERINGS if name != "teacher"])
def test_every_clustering_computes(
    gpu: AppleGpu, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The mode is off inside of custom operations, which would see a tensor of the CPU.
    for module, operation in (
        (_dbscan, "_connect"),
        (_dbscan, "_reach"),
        (_agglomerative, "_cluster"),
    ):
        monkeypatch.setattr(module, operation, getattr(module, operation)._init_fn)
    network = timm.create_model(
        "pacavit_nano",
        num_classes=3,
        clustering=name,
        num_clusters=(4, 4, 0),
        **NARROW,
    ).to(MPS)
    logits = network(torch.randn(2, 3, 32, 32).to(MPS))
    assert logits.device == MPS
    logits.sum().backward()
    network.eval()(torch.randn(2, 3, 32, 32).to(MPS))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "d_rise"])
def test_every_method_explains(
    gpu: AppleGpu, digits_run: Path, tmp_path: Path, method: str
) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (32, 32), 99).save(path)
    (found,) = explain_images(load_model(digits_run), [path], method=method, device=MPS)
    assert isinstance(found, ImageExplanation)
    assert "conv2d" in gpu.computed


def test_several_labels_are_measured(gpu: AppleGpu) -> None:
    metrics = put_metrics(MultilabelMetrics(3, 0.5), MPS)
    probabilities = torch.rand(8, 3).to(MPS)
    metrics.update(
        Predictions(probabilities, probabilities), torch.eye(3)[[0, 1, 2, 0] * 2].to(MPS)
    )
    assert 0 <= metrics.compute()["mAP"].item() <= 1


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_masks_are_learned_and_measured(gpu: AppleGpu, head: str, weights: Tensor | None) -> None:
    backbone = build_pyramid("pacavit_nano", num_clusters=(4, 4, 0), **NARROW)
    network = HEADS.create(head, backbone.channels, backbone.strides, 3, options={})
    config = SegmentationConfig.model_validate({"name": "segmentation"})
    task = SegmentationTask(Segmenter(backbone, network), config, 3).to(MPS)
    if weights is not None:
        task.set_class_weights(weights)
    masks = torch.randint(0, 3, (2, 32, 32), dtype=torch.uint8).to(MPS)
    batch = Batch(torch.randn(2, 3, 32, 32).to(MPS), masks, torch.arange(2))
    assert task.loss_weight(batch).item() > 0
    loss = torch.stack(list(task(batch).values())).sum()
    assert loss.device == MPS
    loss.backward()
    metrics = put_metrics(task.eval().metrics(), MPS)
    metrics.update(task.predict(batch), masks)
    assert 0 <= metrics.compute()["mIoU"].item() <= 1
