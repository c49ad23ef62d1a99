"""The one path from stored images to a network's input: what training and inference share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pacavit.data.base import Batch, Sample
from pacavit.data.placement import Placement
from pacavit.data.random import SampleRandom

__all__ = ["Preprocess"]


class Preprocess(ABC):
    """From samples to batches that a network takes: ``sample``, then ``collate``, then ``batch``.

    Training, evaluation, prediction, explanation and the demo all use it. A task builds one with
    augmentation for training, and one without for everything else. Random numbers come from the
    ``SampleRandom`` of the call alone, so an object holds no state and threads may share it.

    Attributes:
        per_sample: images that are already in memory need ``sample`` too. False: they have the
            size of a batch, and a whole batch of them goes to ``batch`` at once.
        unit: consecutive images of a batch that belong together: 2 where ``batch`` mixes pairs. A
            batch is cut into shards only at multiples of it.
    """

    per_sample: bool = False
    unit: int = 1

    @abstractmethod
    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        """Resize or crop one image, of any size, and its target with it.

        Args:
            sample: as it is stored.
            random: the draws of this sample.

        Returns:
            The sample that ``collate`` takes, and where the original image lies in it.
        """

    def collate(self, samples: Sequence[tuple[Sample, Placement]]) -> Batch:
        """Samples of one size -> a batch of uint8 images (B, 3, height, width), on the CPU.

        Targets that are tensors of one shape, or numbers, are stacked; others become a list. A
        task whose samples differ in size overrides this and pads.
        """
        chosen = [sample for sample, _ in samples]
        return Batch(
            torch.stack([sample.image for sample in chosen]),
            _stack_targets([sample.target for sample in chosen]),
            torch.tensor([sample.index for sample in chosen]),
            placements=[placement for _, placement in samples],
        )

    @abstractmethod
    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        """Augment and normalize a whole batch: uint8 images -> what the network sees.

        Args:
            batch: (B, 3, height, width) uint8 images on any device; B may be 0.
            random: the draws of its samples.
        """


def _stack_targets(targets: list[object]) -> Tensor | list[object] | None:
    if all(target is None for target in targets):
        return None
    if all(isinstance(target, int) for target in targets):
        return torch.tensor(targets)
    tensors = [target for target in targets if isinstance(target, Tensor)]
    if len(tensors) == len(targets) and len({tensor.shape for tensor in tensors}) == 1:
        return torch.stack(tensors)
    return targets
