"""torch.export, ONNX and torch.compile."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacavit.attention import ATTENTIONS, QkvAttention
from pacavit.clustering import CLUSTERINGS, Clustering
from pacavit.errors import PacavitError
from pacavit.models import PacaViT
from pacavit.testing import check_exported_attention, check_exported_clustering
from pacavit.testing.exported import export_programs
from pacavit.types import Grid, StageState
from pacavit.utils.exporting import check_export, repeat_while, stable_argsort

SMALL: dict[str, Any] = {
    "embed_dims": (8, 12),
    "depths": (2, 1),
    "num_heads": (2, 2),
    "num_classes": 3,
}
# Of each method what is computed in another way: other operations, or other shapes.
CLUSTERING_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in CLUSTERINGS.names()),
    ("conv", {"elastic": True, "num_active": 3}),
    ("kmeans", {"init": "k-means++", "hard": True}),
    ("gmm", {"covariance": "spherical", "init": "farthest"}),
    ("hierarchical", {"linkage": "average", "distance_threshold": 1.3, "outliers": "nearest"}),
    ("dbscan", {"eps": 1.2, "outliers": "cluster", "position_weight": 0.5}),
    ("super_tokens", {"n_iter": 2}),
]
ATTENTION_OPTIONS: list[tuple[str, dict[str, Any], int]] = [
    *((name, {}, 1) for name in ATTENTIONS.names()),
    ("local_subsampled", {"window_size": 4}, 0),
    ("windows", {"window_size": 4}, 0),
    ("slow_fast", {}, 0),
    ("big_bird", {"tile_size": 2}, 1),
]


def build(**settings: Any) -> PacaViT:
    torch.manual_seed(0)
    return PacaViT(**{**SMALL, **settings}).eval()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), CLUSTERING_OPTIONS)
def test_exported_clusterings_compute_what_they_compute(name: str, options: dict[str, Any]) -> None:
    check_exported_clustering(CLUSTERINGS.get(name), options)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "block"), ATTENTION_OPTIONS)
def test_exported_attentions_compute_what_they_compute(
    name: str, options: dict[str, Any], block: int
) -> None:
    check_exported_attention(ATTENTIONS.get(name), options, block=block)


class Logits(nn.Module):
    """Logits as a tuple, which is what ``export_programs`` exports."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images),)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"clustering": ("teacher", "hierarchical"), "num_clusters": (5, 4)},
        {"clustering": "dbscan", "num_clusters": (5, 0), "stem_dims": (4, 8)},
        {"attention": ("slow_fast", "windows"), "transition_convs": 1, "depths": (3, 2)},
    ],
    ids=("hierarchical", "dbscan", "slow_fast"),
)
def test_an_exported_network_is_the_network(settings: dict[str, Any]) -> None:
    network = Logits(build(**settings))
    for parameter in network.parameters():  # logits that differ, instead of almost equal ones
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    check_export(network)
    programs = export_programs(network, torch.randn(2, 3, 48, 64))
    assert {*programs} == {"torch.export", "ONNX"}
    with torch.no_grad():
        for shape in ((1, 3, 37, 50), (3, 3, 63, 33)):
            images = torch.randn(shape)
            (expected,) = network(images)
            assert expected.std() > 0.01
            for program in programs.values():
                torch.testing.assert_close(program(images)[0], expected, atol=1e-5, rtol=1e-4)


class Labels(nn.Module):
    """A map (B, C, H, W) -> the partition (B, N) of a clustering."""

    def __init__(self, clustering: nn.Module) -> None:
        super().__init__()
        self.clustering = clustering

    def forward(self, maps: Tensor) -> tuple[Tensor]:
        x = maps.flatten(2).transpose(1, 2)
        return (self.clustering(x, Grid(*maps.shape[2:])).partition(),)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("dbscan", {"eps": 1.0, "min_samples": 4}), ("dpc_knn", {})],
    ids=("dbscan", "dpc_knn"),
)
def test_exported_clusterings_break_ties_as_the_compiled_loops_do(
    name: str, options: dict[str, Any]
) -> None:
    labels = Labels(CLUSTERINGS.create(name, 2, 4, options=options)).eval()
    programs = export_programs(labels, torch.randn(2, 2, 6, 8))
    # Points of a small lattice: many are equal, many distances too, some exactly eps.
    maps = torch.randint(0, 5, (3, 2, 7, 9), generator=torch.Generator().manual_seed(1)).float()
    maps[0] = 0
    for program in programs.values():
        torch.testing.assert_close(program(maps)[0], labels(maps)[0])


@pytest.mark.slow
def test_an_exported_program_can_be_stored(tmp_path: Any) -> None:
    labels = Labels(CLUSTERINGS.create("hierarchical", 4, 3, options={})).eval()
    dynamic: Any = torch.export.Dim.DYNAMIC
    axes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    with torch.no_grad():
        program = torch.export.export(labels, (torch.randn(2, 4, 6, 8),), dynamic_shapes=axes)
    stream = io.BytesIO()
    torch.export.save(program, stream)
    stream.seek(0)
    maps = torch.randn(3, 4, 5, 11)
    again = torch.export.load(stream).module()
    torch.testing.assert_close(again(maps)[0], labels(maps)[0])


class OneSize(Clustering):
    """A plug-in that says that it cannot be exported."""

    exportable = False

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        return x[..., : self.num_clusters].transpose(1, 2)


class Unmasked(OneSize):
    """A plug-in whose pooled tokens an exported program could not tell from empty ones."""

    exportable = True
    max_tokens = 64


class FixedAttention(QkvAttention):
    """An attention for one size, with a reason of its own."""

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        return self.attend(x, x, patch_mask), state

    def export_refusal(self) -> str:
        return "has a table for 14 x 14 patches; use windows"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (OneSize(4, 2), r"0, a OneSize, declares that it works for one size"),
        (Unmasked(4, 2), "0, a Unmasked, has max_tokens and takes no mask"),
        (FixedAttention(4, 2, stage=0, block=0), "0, a FixedAttention, has a table for 14 x 14"),
        (CLUSTERINGS.create("kmeans", 4, 2, options={"init": "random"}), 'init "random" draws'),
        (CLUSTERINGS.create("gmm", 4, 2, options={"init": "random"}), 'init "random" draws'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_be_exported_is_refused_in_one_line(module: nn.Module, message: str) -> None:
    with pytest.raises(PacavitError, match=message) as caught:
        check_export(nn.Sequential(module))
    assert "\n" not in str(caught.value)


def test_every_registered_method_can_be_exported_by_default() -> None:
    for name in CLUSTERINGS.names():
        check_export(CLUSTERINGS.create(name, 8, 4, options={}))
    for name in ATTENTIONS.names():
        check_export(ATTENTIONS.create(name, 8, 2, options={}, stage=0, block=1))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_the_sort_of_exported_programs_is_stable(dim: int) -> None:
    class Sort(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return stable_argsort(x, dim, descending=True)

    x = torch.randint(0, 3, (7, 40, 6), generator=torch.Generator().manual_seed(0)).float()
    program = torch.export.export(Sort(), (x,)).module()
    right = x.argsort(dim=dim, descending=True, stable=True)
    assert torch.equal(program(x), right)
    assert torch.equal(stable_argsort(x, dim, descending=True), right)


def test_a_repeated_step_is_the_same_in_exported_programs() -> None:
    class Halve(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return repeat_while(
                lambda value, _: value.sum() > 1,
                lambda value, count: (value / 2, count + 1),
                (x, torch.zeros((), dtype=torch.int64)),
            )

    program = torch.export.export(Halve(), (torch.ones(3),)).module()
    for x in (torch.ones(3), torch.full((3,), 40.0), torch.zeros(3)):
        torch.testing.assert_close(program(x), Halve()(x))
    assert Halve()(torch.full((3,), 40.0))[1] == 7


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
