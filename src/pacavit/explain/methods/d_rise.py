"""D-RISE: random masks weighted by how well an object is still found."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import PacavitError
from pacavit.explain.boxes import BoxScores
from pacavit.explain.methods.base import METHODS, Method

__all__ = ["DRise"]

_BATCH = 16


@METHODS.register("d_rise")
class DRise(Method):
    """D-RISE: the mean of random masks, weighted by how well the object is still found.

    Petsiuk et al., "Black-box explanation of object detectors via saliency maps", CVPR 2021. It
    needs no gradients, and ``masks`` passes of the detector. Hidden pixels get the mean color.

    Args:
        model: scores of boxes, see :class:`~pacavit.explain.BoxScores`.
        masks: number of random masks; the paper has 5,000.
        cells: of a mask along each side.
        visible: probability of a cell to be visible.
        seed: of the masks.

    Raises:
        PacavitError: the model does not find objects, or an option is out of range.
    """

    works_on = "detectors"
    needs_network = False

    def __init__(
        self,
        model: nn.Module,
        *,
        masks: int = 500,
        cells: int = 16,
        visible: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        if not isinstance(self.model, BoxScores):
            raise PacavitError(
                "d_rise explains objects that a detector finds, and this model has no boxes; "
                "choose another method"
            )
        if masks < 1 or cells < 1 or not 0 < visible < 1:
            raise PacavitError(
                "d_rise needs masks and cells of at least 1, and visible between 0 and 1, not "
                f"{masks}, {cells} and {visible}"
            )
        self.scores = self.model
        self.masks, self.cells, self.visible, self.seed = masks, cells, visible, seed

    @torch.no_grad()
    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        size = (images.shape[2], images.shape[3])
        sides = [-(-side // self.cells) for side in size]
        # All are drawn at once, so that an image's map does not depend on the others in the batch.
        generator = torch.Generator().manual_seed(self.seed)
        cells = torch.rand(self.masks, self.cells + 1, self.cells + 1, generator=generator)
        moves = torch.stack(
            [torch.randint(side, (self.masks,), generator=generator) for side in sides], 1
        )
        found = images.new_zeros(len(images), *size)
        number = max(1, _BATCH // len(images))
        visible = (cells < self.visible).float()
        for some, moved in zip(visible.split(number), moves.split(number), strict=True):
            masks = _enlarged(some, moved, size).to(images)
            altered = (images[None] * masks[:, None, None]).flatten(0, 1)
            values = self.scores.similarities(altered).unflatten(0, (len(masks), len(images)))
            weights = values.gather(2, classes.expand(len(masks), -1)[..., None])[..., 0]
            found += torch.einsum("nb,nhw->bhw", weights.to(masks), masks - self.visible)
        return found / self.masks


def _enlarged(cells: Tensor, moves: Tensor, size: tuple[int, int]) -> Tensor:
    """Grids of visible cells as masks.

    Args:
        cells: (n, cells + 1, cells + 1) in 0..1, one more along each side than fit into the image.
        moves: (n, 2) int64, pixels down and to the right that are cut off, less than a cell.
        size: (height, width) of the image.

    Returns:
        (n, height, width) in 0..1, bilinear.
    """
    number = cells.shape[1]
    whole = [-(-side // (number - 1)) * number for side in size]
    grown = F.interpolate(cells[:, None], size=whole, mode="bilinear")[:, 0]
    return torch.stack(
        [
            grown[row, down : down + size[0], right : right + size[1]]
            for row, (down, right) in enumerate(moves.tolist())
        ]
    )
