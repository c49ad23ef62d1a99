"""torch.export and torch.compile."""

from typing import Any

import pytest
import torch

from pacavit.attention import ATTENTIONS
from pacavit.clustering import CLUSTERINGS
from pacavit.models import PacaViT

SMALL: dict[str, Any] = {
    "embed_dims": (8, 12),
    "depths": (2, 1),
    "num_heads": (2, 2),
    "num_classes": 3,
}
# Batches and sizes unlike the one that is traced; odd sides are rounded up three times.
SHAPES = [(1, 3, 32, 32), (3, 3, 37, 50), (2, 3, 33, 97), (5, 3, 63, 17)]


def build(**settings: Any) -> PacaViT:
    torch.manual_seed(0)
    return PacaViT(**SMALL, **settings).eval()


def check_one_program(model: PacaViT) -> None:
    """Trace with dynamic batch, height and width; the program answers as the model does."""
    dynamic = torch.export.Dim.DYNAMIC  # an error where tracing would fix the size
    program = torch.export.export(
        model,
        (torch.randn(2, 3, 48, 64),),
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
    ).module()
    with torch.no_grad():
        for shape in SHAPES:
            images = torch.randn(shape)
            torch.testing.assert_close(program(images), model(images), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLUSTERINGS.names())
def test_clusterings_export_as_one_program_exactly_if_they_say_so(name: str) -> None:
    model = build(num_clusters=(5, 0), clustering=name, stem_dims=(4,))
    if CLUSTERINGS.get(name).exportable:
        check_one_program(model)
    else:
        with pytest.raises(Exception):  # noqa: B017, PT011 - torch has many
            check_one_program(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTENTIONS.names())
def test_every_attention_exports_as_one_program(name: str) -> None:
    clusters = {"num_clusters": 4} if ATTENTIONS.get(name).uses_clusters else {}
    check_one_program(build(attention=name, transition_convs=1, **clusters))


@pytest.mark.slow
def test_elastic_clusterings_export_as_one_program() -> None:
    options = {"elastic": True, "num_active": 3}
    check_one_program(build(num_clusters=(5, 0), stem_dims=(4,), clustering_options=options))


@pytest.mark.slow
def test_a_compiled_training_step_is_the_eager_one() -> None:
    images = torch.randn(2, 3, 37, 50)
    mask = torch.ones(2, 37, 50, dtype=torch.bool)
    mask[0, 30:] = False
    model = build(num_clusters=(5, 0))
    losses, gradients = [], []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        loss = run(images, mask).square().sum()
        loss.backward()
        losses.append(loss)
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
