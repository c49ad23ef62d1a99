"""Methods of other libraries that work on any classifier, and the controls."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import PacavitError
from pacavit.explain.core.geometry import find_pacavit, samplings, upsample
from pacavit.explain.methods.base import METHODS, Method, holds_pacavit

__all__ = [
    "Center",
    "Edges",
    "EigenCam",
    "GradCam",
    "GradCamPlusPlus",
    "HiResCam",
    "IntegratedGradients",
    "LayerCam",
    "Occlusion",
    "Random",
]


def _library(name: str) -> Any:
    """An optional library; PacavitError says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PacavitError(
            f"this method needs the library {name}; install it with: pip install 'pacavit[explain]'"
        ) from error


class _CamMethod(Method):
    """A class activation map of one layer, by the class ``cam_class`` of the package grad-cam.

    Args:
        model: any classifier.
        layer: path of the module in the network whose output is used: a map (B, C, H, W) or
            (B, H, W, C), or tokens (B, N, C) of a grid. None is the end of the last stage with
            more than one cell, in plain vision transformers the first norm of the last block.
    """

    cam_class: ClassVar[str]

    def __init__(self, model: nn.Module, *, layer: str | None = None) -> None:
        super().__init__(model)
        self.library = _library("pytorch_grad_cam")
        if layer is not None and layer not in dict(self.model.named_modules()):
            raise PacavitError(
                f"{type(self.model).__name__} has no layer {layer!r}; name one as "
                "model.named_modules() does"
            )
        self.layers = _last_layers(self.model) if layer is None else {layer: 1}

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        size = (images.shape[2], images.shape[3])
        # A map of a single cell shows nothing, so small images need an earlier stage.
        several = [name for name, stride in self.layers.items() if max(size) > stride]
        name = (several or list(self.layers))[-1]
        layer = self.model.get_submodule(name)

        def as_map(output: Any) -> Tensor:
            return _as_map(self.model, name, output, size)

        targets = self.library.utils.model_targets.ClassifierOutputTarget
        cam_class = getattr(self.library, self.cam_class)
        with cam_class(self.model, [layer], reshape_transform=as_map) as cam:
            # Disabled, because grad-cam would resize maps as if all patches were plain squares.
            cam.get_target_width_height = lambda _: None
            found = torch.from_numpy(cam(images, [targets(label) for label in classes.tolist()]))
        found = found.to(images.device)
        if holds_pacavit(self.model):
            for stage, sampling in enumerate(samplings(self.model)):
                if find_pacavit(self.model).stages[stage] is layer:
                    return upsample(found, sampling, size)
        return F.interpolate(found[:, None].float(), size=size, mode="bilinear")[:, 0]


def _as_map(model: nn.Module, name: str, output: Any, size: tuple[int, int]) -> Tensor:
    """The output of a layer for images of ``size`` (height, width) -> (B, C, H, W).

    Raises:
        PacavitError: the output is neither a map nor tokens of a grid.
    """
    if isinstance(output, Tensor) and output.ndim == 4:
        return output.permute(0, 3, 1, 2) if _is_channels_last(model, output, size) else output
    if not isinstance(output, Tensor) or output.ndim != 3:
        raise PacavitError(f"the layer {name} returns no map (B, C, H, W); choose another one")
    prefix = getattr(model, "num_prefix_tokens", 0)
    # Some networks append their class token after this layer, so the prefix may be missing.
    for tokens in (output[:, prefix:], output):
        grids = _grids(model, tokens.shape[1], size)
        if len(grids) == 1:
            return tokens.transpose(1, 2).unflatten(2, grids[0])
    raise PacavitError(
        f"the layer {name} returns tokens whose grid is not known; choose one that returns a map "
        "(B, C, H, W)"
    )


def _is_channels_last(model: nn.Module, output: Tensor, size: tuple[int, int]) -> bool:
    """Whether a map is (B, H, W, C), by its shape if only one layout fits the image.

    Otherwise timm's ``output_fmt`` decides. It describes the outputs of stages; layers inside of
    them may have the other layout.
    """
    first = _fits((output.shape[2], output.shape[3]), size)
    last = _fits((output.shape[1], output.shape[2]), size)
    if first == last:
        return getattr(model, "output_fmt", "NCHW") == "NHWC"
    return last


def _grids(model: nn.Module, num_patches: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Every (height, width) with this number of patches that fits an image, in patches."""
    embedded = getattr(getattr(model, "patch_embed", None), "dynamic_feat_size", None)
    if embedded is not None:
        height, width = embedded(size)
        if height * width == num_patches:
            return [(height, width)]
    pairs = [(side, num_patches // side) for side in range(1, num_patches + 1)]
    return [pair for pair in pairs if pair[0] * pair[1] == num_patches and _fits(pair, size)]


def _fits(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a grid has the shape of an image, up to one patch at the border."""
    if size[0] == size[1]:
        return grid[0] == grid[1]
    return abs(grid[0] * size[1] - grid[1] * size[0]) <= max(size)


def _last_layers(model: Any) -> dict[str, int]:
    """The paths of stages, from the finest, with their strides in pixels of the input.

    After the last stage the network only pools and classifies.
    """
    modules = dict(model.named_modules())
    if holds_pacavit(model):
        stages, strides = find_pacavit(model).stages, samplings(model)
        names = {module: name for name, module in modules.items()}
        return {
            names[stage]: sampling.stride for stage, sampling in zip(stages, strides, strict=True)
        }
    if hasattr(model, "num_prefix_tokens") and hasattr(model, "blocks"):
        # After the attention of the last block, only the class token gets a gradient.
        name = f"blocks.{len(model.blocks) - 1}.norm1"
        if name in modules:
            return {name: 1}
    infos = list(getattr(model, "feature_info", None) or ())
    if infos and infos[-1]["module"] in modules:
        return {info["module"]: info["reduction"] for info in infos if info["module"] in modules}
    raise PacavitError(
        f"the last layer of {type(model).__name__} is not known; name one with layer="
    )


@METHODS.register("grad_cam")
class GradCam(_CamMethod):
    """Grad-CAM: channels of the last layer, weighted by their mean gradient.

    Selvaraju et al., ICCV 2017.
    """

    cam_class = "GradCAM"


@METHODS.register("grad_cam_plusplus")
class GradCamPlusPlus(_CamMethod):
    """Grad-CAM++: positive gradients, weighted by higher derivatives.

    Chattopadhay et al., WACV 2018.
    """

    cam_class = "GradCAMPlusPlus"


@METHODS.register("hires_cam")
class HiResCam(_CamMethod):
    """HiResCAM: activations times gradients, element by element.

    Draelos et al., "Use HiResCAM instead of Grad-CAM", 2020.
    """

    cam_class = "HiResCAM"


@METHODS.register("layer_cam")
class LayerCam(_CamMethod):
    """LayerCAM: activations times positive gradients, element by element.

    Jiang et al., TIP 2021.
    """

    cam_class = "LayerCAM"


@METHODS.register("eigen_cam")
class EigenCam(_CamMethod):
    """Eigen-CAM: the first principal component of the activations; for any class.

    Muhammad and Yeasin, IJCNN 2020.
    """

    class_specific = False
    cam_class = "EigenCAM"


@METHODS.register("integrated_gradients")
class IntegratedGradients(Method):
    """Integrated gradients from the mean color, by captum; absolute sums over channels.

    Sundararajan et al., ICML 2017.

    Args:
        model: any classifier.
        steps: of the integral.
    """

    def __init__(self, model: nn.Module, *, steps: int = 32) -> None:
        super().__init__(model)
        self.library, self.steps = _library("captum.attr"), steps

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        method = self.library.IntegratedGradients(self.model)
        found: Tensor = method.attribute(
            images,
            target=classes,
            n_steps=self.steps,
            internal_batch_size=max(len(images), 16),
        )
        return found.abs().sum(1).float()


@METHODS.register("occlusion")
class Occlusion(Method):
    """Occlusion: decrease of the score when a square is replaced by the mean color, by captum.

    Zeiler and Fergus, ECCV 2014.

    Args:
        model: any classifier.
        window: side of the square as a fraction of the shorter side of the image; it moves by
            half of its side.
    """

    needs_network = False

    def __init__(self, model: nn.Module, *, window: float = 0.25) -> None:
        super().__init__(model)
        if not 0 < window <= 1:
            raise PacavitError(f"window must be above 0 and up to 1, not {window}")
        self.library, self.window = _library("captum.attr"), window

    @torch.no_grad()
    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        side = max(1, round(self.window * min(images.shape[2:])))
        step = max(1, side // 2)
        found: Tensor = self.library.Occlusion(self.model).attribute(
            images.detach(),
            target=classes,
            sliding_window_shapes=(3, side, side),
            strides=(3, step, step),
            perturbations_per_eval=4,
        )
        return found.mean(1).clamp(min=0)


class _Control(Method):
    """A map that does not depend on the network, as a lower bound for explanations."""

    class_specific = False
    needs_network = False
    works_on = "anything; a control"


@METHODS.register("random")
class Random(_Control):
    """Control: smooth noise, always the same for the same image.

    Args:
        model: is ignored.
        seed: of the noise.
        cells: along each side.
    """

    def __init__(self, model: nn.Module, *, seed: int = 0, cells: int = 8) -> None:
        super().__init__(model)
        self.seed, self.cells = seed, cells

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        noise = []
        for image in images.detach().cpu().double():
            own = int(image.abs().sum().mul(1e3)) % 2**31
            generator = torch.Generator().manual_seed(self.seed + own)
            noise.append(torch.rand(1, self.cells, self.cells, generator=generator))
        coarse = torch.stack(noise).to(images.device)
        return F.interpolate(coarse, size=images.shape[2:], mode="bilinear")[:, 0]


@METHODS.register("center", formerly=["centre"])
class Center(_Control):
    """Control: a Gaussian in the center, where photographs usually show their subject.

    Args:
        model: is ignored.
        width: standard deviation as a fraction of each side.
    """

    def __init__(self, model: nn.Module, *, width: float = 0.25) -> None:
        super().__init__(model)
        self.width = width

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        rows, columns = (
            torch.exp(-(((torch.arange(side) + 0.5) / side - 0.5) / self.width).square() / 2)
            for side in images.shape[2:]
        )
        return torch.outer(rows, columns).to(images.device).expand(len(images), -1, -1).clone()


@METHODS.register("edges")
class Edges(_Control):
    """Control: the strength of edges by Sobel filters, smoothed.

    Args:
        model: is ignored.
    """

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        gray = F.pad(images.detach().mean(1, keepdim=True).float(), (1, 1, 1, 1), mode="replicate")
        across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        kernels = torch.stack([across, across.T])[:, None].to(gray.device)
        strength = F.conv2d(gray, kernels).square().sum(1, keepdim=True).sqrt()
        return F.avg_pool2d(strength, 3, stride=1, padding=1, count_include_pad=False)[:, 0]
