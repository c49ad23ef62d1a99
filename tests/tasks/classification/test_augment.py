from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from pacavit.data import SampleRandom
from pacavit.tasks.classification.augment import RandAugment, RandomErasing


def draws(indices: Tensor, epoch: int = 0) -> SampleRandom:
    return SampleRandom(seed=1, epoch=epoch, indices=indices)


def test_rand_augment_changes_most_images_a_little() -> None:
    images = torch.randint(0, 256, (40, 3, 12, 16), dtype=torch.uint8)
    before = images.clone()
    change = RandAugment("rand-m9-n2-mstd0.5-inc1", (0.5, 0.4, 0.3))
    result = change(images, draws(torch.arange(40)))
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before), "the stored images were written to"
    changed = (result != images).any((1, 2, 3)).float().mean()
    assert 0.5 < changed < 0.95  # timm applies each of the two with probability 0.5
    some = torch.tensor([30, 2, 17])
    assert torch.equal(change(images[some], draws(some)), result[some])
    assert not torch.equal(change(images, draws(torch.arange(40), epoch=1)), result)


def test_what_moves_in_from_outside_has_the_mean_color() -> None:
    images = torch.full((40, 3, 16, 16), 255, dtype=torch.uint8)
    result = RandAugment("rand-m10-p1", (0.4, 0.2, 0.0))(images, draws(torch.arange(40)))
    colors = {tuple(pixel) for pixel in result.permute(0, 2, 3, 1).flatten(0, 2).tolist()}
    assert (102, 51, 0) in colors


def test_random_erasing_fills_rectangles_with_noise() -> None:
    pixels = torch.full((200, 3, 16, 20), 9.0)
    erase = RandomErasing(0.25)
    result = erase(pixels.clone(), draws(torch.arange(200)))
    hit = (result != 9).all(1)
    assert 0.15 < hit.any((1, 2)).float().mean() < 0.35
    assert torch.equal(hit, hit.any(2)[:, :, None] & hit.any(1)[:, None])
    noise = result[(result != 9)]
    assert abs(noise.mean()) < 0.1
    assert 0.9 < noise.std() < 1.1
    some = torch.tensor([150, 2, 17])
    assert torch.equal(erase(pixels[:3].clone(), draws(some)), result[some])


def test_the_process_draws_on_as_if_nothing_had_been_drawn() -> None:
    def numbers() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()  # noqa: NPY002

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    expected = numbers()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    RandAugment("rand-m9", (0.5, 0.5, 0.5))(images, draws(torch.arange(4)))
    RandomErasing(1.0)(images.float(), draws(torch.arange(4)))
    assert numbers() == expected
