from __future__ import annotations

import torch
from captum.metrics import sensitivity_max

from pacavit.explain.evaluation.metrics import max_sensitivity


def test_it_is_what_captum_finds_for_the_same_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 8, 8, generator=generator)
    seen: list[torch.Tensor] = []

    def explain(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images.square().sum(1)

    found = max_sensitivity(explain, images, explain(images), samples=3)
    noisy = torch.stack(seen[1:])
    assert (noisy - images).abs().max() <= 0.02

    def again(_: object, radius: float) -> tuple[torch.Tensor]:
        return (noisy.transpose(0, 1).flatten(0, 1),)  # captum repeats each image three times

    def theirs(images: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (images[0].square().sum(1),)

    expected = sensitivity_max(theirs, images, perturb_func=again, n_perturb_samples=3)
    torch.testing.assert_close(found, expected)


def test_a_map_of_zeros_has_none_and_a_fixed_map_never_changes() -> None:
    images = torch.zeros(2, 3, 4, 4)
    maps = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])
    found = max_sensitivity(lambda _: maps, images, maps)
    assert found[0].isnan()
    assert found[1] == 0
