"""Models that are loaded for predictions only, and their precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit import api
from pacavit.data import Batch
from pacavit.engine import precision as choosing
from pacavit.engine.ensemble import load_predictor
from pacavit.engine.precision import for_prediction, relative_error
from pacavit.engine.predictor import Predictor
from pacavit.engine.weights.load import load_model, optimized
from pacavit.errors import PacavitError, UnknownNameError

MODEL = "digits_nano_conv"


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", ["digits_nano_conv", "cifar10_nano_kmeans"])
def test_an_optimized_model_predicts_the_same(name: str, images: Tensor) -> None:
    plain, fast = load_model(name), load_model(name, optimize=True)
    assert fast.precision == "fp32"
    expected, found = (
        torch.stack([each.record.logits for each in Predictor(model)(images)])
        for model in (plain, fast)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(found, expected)  # it computes in another way
