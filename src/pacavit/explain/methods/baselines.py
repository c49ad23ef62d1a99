"""Peers that work on any classifier, by the libraries that keep them, and the controls."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import PacavitError
from pacavit.explain.core.geometry import find_pacavit, samplings, upsample
from pacavit.explain.methods.base import METHODS, Method, holds_pacavit, prefix_tokens

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
    """A class activation map of one layer, by the package grad-cam, whose class a subclass names.

    Args:
        model: any classifier.
        layer: path of the module in the network whose answer, (B, C, H, W) or the tokens of a
            plain vision transformer, is looked at; None is the end of the last stage or block.
    """

    cam_class: ClassVar[str]

    def __init__(self, model: nn.Module, *, layer: str | None = None) -> None:
        super().__init__(model)
        self.library = _library("pytorch_grad_cam")
        name = _last_layer(self.model) if layer is None else layer
        try:
            self.layer = self.model.get_submodule(name)
        except AttributeError:
            raise PacavitError(
                f"{type(self.model).__name__} has no layer {name!r}; name one as "
                "model.named_modules() does"
            ) from None
        self.name = name

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        size = (images.shape[2], images.shape[3])
        plain = not holds_pacavit(self.model) and hasattr(self.model, "num_prefix_tokens")

        def as_map(answer: Any) -> Tensor:
            if not isinstance(answer, Tensor) or answer.ndim not in (3, 4):
                raise PacavitError(
                    f"the layer {self.name} answers no map (B, C, H, W); choose another one"
                )
            if answer.ndim == 4:
                return answer
            if not plain:
                raise PacavitError(
                    f"the layer {self.name} answers tokens whose grid is not known; choose one "
                    "that answers a map (B, C, H, W)"
                )
            embed: Any = self.model.patch_embed
            patches = answer[:, prefix_tokens(self.model) :]
            return patches.transpose(1, 2).unflatten(2, embed.dynamic_feat_size(size))

        targets = self.library.utils.model_targets.ClassifierOutputTarget
        cam_class = getattr(self.library, self.cam_class)
        with cam_class(self.model, [self.layer], reshape_transform=as_map) as cam:
            # grad-cam would enlarge maps as if patches were plain; ours know where theirs lie.
            cam.get_target_width_height = lambda _: None
            found = torch.from_numpy(cam(images, [targets(label) for label in classes.tolist()]))
        found = found.to(images.device)
        if holds_pacavit(self.model):
            for stage, sampling in enumerate(samplings(self.model)):
                if find_pacavit(self.model).stages[stage] is self.layer:
                    return upsample(found, sampling, size)
        return F.interpolate(found[:, None].float(), size=size, mode="bilinear")[:, 0]


def _last_layer(model: Any) -> str:
    """The path of the module after which a network only pools and classifies."""
    if holds_pacavit(model):
        stages = find_pacavit(model).stages
        return next(name for name, module in model.named_modules() if module is stages[-1])
    if hasattr(model, "num_prefix_tokens") and hasattr(model, "blocks"):
        # After the last block's attention, of a class token alone comes a gradient.
        return f"blocks.{len(model.blocks) - 1}.norm1"
    info = getattr(model, "feature_info", None)
    if info:
        return str(info[-1]["module"])
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
    """Eigen-CAM: the first principal component of the activations; for no class.

    Muhammad and Yeasin, IJCNN 2020.
    """

    class_specific = False
    cam_class = "EigenCAM"


@METHODS.register("integrated_gradients")
class IntegratedGradients(Method):
    """Integrated gradients from the mean colour, by captum; absolute sums over channels.

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
    """Occlusion: how far the score falls when a square turns into the mean colour, by captum.

    Zeiler and Fergus, ECCV 2014.

    Args:
        model: any classifier.
        window: side of the square, as a share of the shorter side of the image; it moves by half
            of itself.
    """

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
    """A map that knows nothing of the network: what explains must beat it."""

    class_specific = False
    works_on = "anything; a control"


@METHODS.register("random")
class Random(_Control):
    """Control: smooth noise, the same whenever the image is.

    Args:
        model: is not asked.
        seed: of the noise.
        cells: along each side.
    """

    def __init__(self, model: nn.Module, *, seed: int = 0, cells: int = 8) -> None:
        super().__init__(model)
        self.seed, self.cells = seed, cells

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        noise = []
        for image in images.detach().double():
            own = int(image.abs().sum().mul(1e3)) % 2**31
            generator = torch.Generator().manual_seed(self.seed + own)
            noise.append(torch.rand(1, self.cells, self.cells, generator=generator))
        coarse = torch.stack(noise).to(images.device)
        return F.interpolate(coarse, size=images.shape[2:], mode="bilinear")[:, 0]


@METHODS.register("center", formerly=["centre"])
class Center(_Control):
    """Control: a bump in the middle, where photographers put things.

    Args:
        model: is not asked.
        width: standard deviation, as a share of each side.
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
    """Control: the strength of edges, Sobel's, smoothed; what any detector of edges would say.

    Args:
        model: is not asked.
    """

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        grey = F.pad(images.detach().mean(1, keepdim=True).float(), (1, 1, 1, 1), mode="replicate")
        across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        kernels = torch.stack([across, across.T])[:, None].to(grey.device)
        strength = F.conv2d(grey, kernels).square().sum(1, keepdim=True).sqrt()
        return F.avg_pool2d(strength, 3, stride=1, padding=1, count_include_pad=False)[:, 0]
