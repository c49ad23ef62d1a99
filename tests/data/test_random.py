import pytest
import torch

from pacavit.data import SampleRandom, epoch_order

NUM = 20_000


@pytest.fixture(scope="module")
def draws() -> SampleRandom:
    return SampleRandom(seed=3, epoch=5, indices=torch.arange(NUM))


def test_uniform_is_uniform(draws: SampleRandom) -> None:
    numbers = draws.uniform("x", count=3)
    assert numbers.shape == (NUM, 3)
    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, bins=50, min=0, max=1)
    expected = 3 * NUM / 50
    assert ((counts - expected) ** 2 / expected).sum() < 86  # chi-square, 49 degrees, p = 0.001


def test_what_differs_is_uncorrelated(draws: SampleRandom) -> None:
    columns = [
        *draws.uniform("x", count=2).T,
        draws.uniform("y")[:, 0],
        draws.uniform(0)[:, 0],
        draws.uniform(1)[:, 0],
        draws.at_epoch(6).uniform("x")[:, 0],
        SampleRandom(4, 5, draws.indices).uniform("x")[:, 0],
        draws.uniform("x")[:, 0].roll(1),  # the neighboring sample
    ]
    correlation = torch.corrcoef(torch.stack(columns)) - torch.eye(len(columns))
    assert correlation.abs().max() < 0.03  # 4 standard deviations


def test_draws_depend_on_nothing_but_the_sample(draws: SampleRandom) -> None:
    some = torch.tensor([17, 3, 19_999, 3])
    few = SampleRandom(3, 5, some)
    assert torch.equal(few.uniform("x", 4), draws.uniform("x", 4)[some])
    assert torch.equal(few.uniform("x", 2), draws.uniform("x", 4)[some, :2])
    assert torch.equal(few.integers("x", 0, 9), draws.integers("x", 0, 9)[some])


def test_known_values() -> None:
    """Recorded runs stay reproducible: these numbers must never change."""
    numbers = SampleRandom(1, 2, torch.tensor([0, 1])).uniform("flip", 2)
    assert (numbers * 2**24).long().tolist() == [[14262668, 1960158], [2596907, 1298700]]
    assert epoch_order(8, seed=0, epoch=0).tolist() == [3, 6, 2, 1, 0, 5, 7, 4]


def test_integers_cover_their_range(draws: SampleRandom) -> None:
    numbers = draws.integers("shift", -4, 5)
    assert numbers.shape == (NUM, 1)
    assert numbers.dtype == torch.int64
    counts = torch.bincount(numbers.flatten() + 4)
    assert len(counts) == 9
    assert (counts - NUM / 9).abs().max() < 4 * (NUM / 9) ** 0.5


def test_integers_refuse_an_empty_range(draws: SampleRandom) -> None:
    with pytest.raises(ValueError, match="from 3 up to but not including 3"):
        draws.integers("shift", 3, 3)


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**64 - 1])
def test_any_seed_will_do(seed: int) -> None:
    assert epoch_order(5, seed, 0).sort().values.tolist() == [0, 1, 2, 3, 4]


def test_epoch_order_is_a_new_permutation_every_epoch() -> None:
    orders = torch.stack([epoch_order(1000, seed=0, epoch=epoch) for epoch in range(4)])
    assert torch.equal(orders.sort(dim=1).values, torch.arange(1000).expand(4, -1))
    assert (torch.corrcoef(orders.float()) - torch.eye(4)).abs().max() < 0.15
    assert torch.equal(orders[2], epoch_order(1000, seed=0, epoch=2))
    assert not torch.equal(orders[0], epoch_order(1000, seed=1, epoch=0))
