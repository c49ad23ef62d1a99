"""Which images are shown, and how."""

from base64 import b64decode
from io import BytesIO

import pytest
import torch
from PIL import Image

from pacavit.data import MemoryImages
from pacavit.engine.scoring import SplitScore
from pacavit.report.tasks.classification.examples import choose_examples, pick_examples
from pacavit.report.tasks.classification.observe import TopClasses


def predictions(correct: list[bool], surest: list[float]) -> TopClasses:
    guesses = torch.tensor([0 if right else 1 for right in correct])
    probabilities = torch.tensor(surest)
    return TopClasses(
        torch.arange(len(correct)),
        torch.zeros(len(correct), dtype=torch.int64),
        probabilities,
        guesses[:, None],
        probabilities[:, None],
    )


def test_right_ones_are_spread_and_wrong_ones_the_surest() -> None:
    top = predictions([True] * 9 + [False] * 3, [0.5] * 9 + [0.6, 0.9, 0.7])
    chosen = choose_examples(top, num=3)
    assert chosen.right.tolist() == [0, 4, 8]
    assert chosen.wrong.tolist() == [10, 11, 9]
    assert choose_examples(top, num=1).right.tolist() == [0]


@pytest.mark.parametrize("correct", [True, False])
def test_a_perfect_or_useless_classifier_has_examples_of_one_kind(correct: bool) -> None:
    chosen = choose_examples(predictions([correct] * 2, [0.5, 0.6]))
    assert [len(positions) for positions in chosen] == ([2, 0] if correct else [0, 2])


def test_examples_say_what_was_guessed_and_show_the_image(
    score: SplitScore, top: TopClasses
) -> None:
    wrong = pick_examples(score, top).wrong[0]
    assert (wrong.index, wrong.label) == (9, "$dog|")
    assert [name for name, _ in wrong.guesses] == ["cat, [bold]", "$dog|"]
    with Image.open(BytesIO(b64decode(wrong.png))) as picture:
        assert picture.size == (5, 5)
        assert picture.getpixel((0, 0)) == (9, 9, 9)


def test_the_true_class_is_named_even_if_it_is_unlikely(score: SplitScore, top: TopClasses) -> None:
    top = top._replace(classes=top.classes[:, :1], probabilities=top.probabilities[:, :1])
    wrong = pick_examples(score, top).wrong[0]
    assert [name for name, _ in wrong.guesses] == ["cat, [bold]", "$dog|"]
    assert wrong.guesses[1].probability == pytest.approx(0.2)


def test_large_images_are_reduced(score: SplitScore, top: TopClasses) -> None:
    images = MemoryImages(torch.zeros(10, 3, 300, 600, dtype=torch.uint8), top.labels)
    example = pick_examples(score._replace(images=images), top).right[0]
    with Image.open(BytesIO(b64decode(example.png))) as picture:
        assert picture.size == (128, 64)


def test_images_that_were_left_out_shift_nothing(score: SplitScore, top: TopClasses) -> None:
    wrong = pick_examples(score, TopClasses(*(values[1:] for values in top))).wrong[0]
    assert wrong.index == 9
    with Image.open(BytesIO(b64decode(wrong.png))) as picture:
        assert picture.getpixel((0, 0)) == (9, 9, 9)
