"""What of a task's network other engines than torch can run, and how the task uses such an engine.

A graph maps images to tensors of fixed meaning. What follows from them, such as probabilities, the
pixels of the original or a watershed, stays with the task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

from torch import Tensor, nn

from pacavit.errors import PacavitError
from pacavit.heads import HeadOutput, SegmentationHead
from pacavit.models import Pyramid

__all__ = [
    "CLUSTER_LOGITS",
    "LOGITS",
    "ClassifierGraph",
    "DenseGraph",
    "Engine",
    "EngineClassifier",
    "EngineHead",
    "EngineNetworks",
    "Graph",
    "dense_graph",
    "run_dense",
]

LOGITS, CLUSTER_LOGITS = "logits", "cluster_logits"
"""Names of outputs."""

Engine: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]
"""Images (B, 3, height, width), normalized -> the outputs of a graph, in its order."""


class Graph(nn.Module):
    """Images (B, 3, height, width), normalized -> tensors.

    Attributes:
        outputs: name of each tensor.
        channels: of the maps that the head of a dense task gets; empty for classifiers.
        strides: of these maps.
    """

    outputs: tuple[str, ...]
    channels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs."""
        raise NotImplementedError


class ClassifierGraph(Graph):
    """Images -> logits (B, classes).

    Args:
        network: of the task.
    """

    outputs = (LOGITS,)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.network(images),)


class DenseGraph(Graph):
    """Images -> logits (B, K, H, W) of pixels, and those of the clusters if the head has some.

    Args:
        backbone: maps of several resolutions.
        head: of these maps.
    """

    def __init__(self, backbone: Pyramid, head: SegmentationHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.channels, self.strides = backbone.channels, backbone.strides
        self.outputs = (LOGITS,) if head.cluster_logits is None else (LOGITS, CLUSTER_LOGITS)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The logits."""
        output: HeadOutput = self.head(self.backbone(images))
        name = self.head.cluster_logits
        return (output.logits,) if name is None else (output.logits, output.supervised[name])


class EngineClassifier(nn.Module):
    """A classifier that an engine runs: (B, 3, height, width) -> (B, classes).

    Args:
        engine: of a ``ClassifierGraph``.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        return self.engine(images)[0]


class _Images(Pyramid):
    """Passes images on to an ``EngineHead``, in place of a backbone.

    Args:
        channels: of the maps of the backbone.
        strides: of these maps.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__(nn.Identity(), channels, strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The images."""
        return [images]


class EngineHead(SegmentationHead):
    """A backbone and its head that an engine runs: images (B, 3, height, width) -> logits.

    Args:
        engine: of a ``DenseGraph``.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__((), (), 0)
        self.engine = engine

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """The logits of the only "map", the images."""
        logits, *clusters = self.engine(maps[0])
        return HeadOutput(logits, dict(zip((CLUSTER_LOGITS,), clusters, strict=False)))


class EngineClusterHead(EngineHead):
    """The same for a head with clusters."""

    cluster_logits: ClassVar[str | None] = CLUSTER_LOGITS


class EngineNetworks:
    """A ``NetworkFactory`` of networks that an engine runs.

    Args:
        engine: of the graph.
        channels: of the graph.
        strides: of the graph.
    """

    def __init__(self, engine: Engine, channels: Sequence[int], strides: Sequence[int]) -> None:
        self.engine, self.channels, self.strides = engine, channels, strides

    def __call__(self, *, num_classes: int) -> nn.Module:
        """A classifier."""
        return EngineClassifier(self.engine)

    def pyramid(self, stages: Sequence[int] | None = None) -> Pyramid:
        """A stand-in for a backbone, see ``run_dense``."""
        return _Images(self.channels, self.strides)


def dense_graph(network: nn.Module, task: str) -> DenseGraph:
    """The graph of a network whose ``head`` is a segmentation head on its ``backbone``.

    Args:
        network: of a task.
        task: its name, for messages.

    Raises:
        PacavitError: the network has no such head.
    """
    backbone, head = getattr(network, "backbone", None), getattr(network, "head", None)
    if not isinstance(backbone, Pyramid) or not isinstance(head, SegmentationHead):
        raise PacavitError(
            f"{type(network).__name__} of the task {task!r} cannot be exported: it chooses a "
            "varying number of boxes inside the network; instances from clusters can "
            '(task.detector = "watershed")'
        )
    return DenseGraph(backbone, head)


def run_dense(network: nn.Module, engine: Engine, outputs: Sequence[str]) -> None:
    """Let an engine run the head and the backbone of a network.

    Args:
        network: built by ``EngineNetworks``.
        engine: of a ``DenseGraph``.
        outputs: of the graph.
    """
    kind = EngineClusterHead if CLUSTER_LOGITS in outputs else EngineHead
    network.head = kind(engine)
    network.backbone = _Images((3,), (1,))
