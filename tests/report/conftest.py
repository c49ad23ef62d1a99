"""A small evaluation with awkward class names."""

import pytest
import torch

from pacavit.engine.evaluate import ClassScores, Evaluation


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(
        num_images=10,
        accuracy=0.8,
        loss=0.5,
        precision_macro=0.81,
        recall_macro=0.82,
        f1_macro=0.83,
        precision_weighted=0.84,
        recall_weighted=0.85,
        f1_weighted=0.86,
        per_class=(
            ClassScores("cat, [bold]", 0.9, 0.7, 0.75, 6),
            ClassScores("$dog|", 0.7, 0.9, 0.85, 4),
        ),
        confusion=torch.tensor([[5, 1], [1, 3]]),
        images_per_second=1234.5,
    )
