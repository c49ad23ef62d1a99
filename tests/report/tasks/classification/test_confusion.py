"""The picture of a confusion matrix."""

import numpy as np
import pytest
from matplotlib.text import Text

from pacavit.report.tasks.confusion import plot_confusion


def counts_shown(num_classes: int) -> list[str]:
    confusion = np.full((num_classes, num_classes), 7)
    names = [f"class {index}" for index in range(num_classes)]
    figure = plot_confusion(confusion, names, title="title")
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_cell_has_its_count() -> None:
    figure = plot_confusion(np.array([[5, 1], [0, 3]]), ["a", "b"], title="title")
    axes = figure.axes[0]
    shown = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    # Positions are (column, row): the predicted class runs to the right, the true one downwards.
    assert shown == {(0, 0): "5", (1, 0): "1", (1, 1): "3"}
    assert axes.get_title() == "title"
    assert axes.get_xlabel() == "predicted class"


def test_colors_are_fractions_of_the_true_class() -> None:
    figure = plot_confusion(np.array([[3, 1], [0, 0]]), ["a", "b"], title="title")
    fractions = figure.axes[0].images[0].get_array()
    assert fractions is not None
    np.testing.assert_allclose(fractions, [[0.75, 0.25], [0.0, 0.0]])


@pytest.mark.parametrize(("num_classes", "num_counts"), [(30, 900), (31, 0)])
def test_counts_are_left_out_where_they_would_be_too_small(
    num_classes: int, num_counts: int
) -> None:
    assert len(counts_shown(num_classes)) == num_counts


def test_names_are_neither_mathematics_nor_endless() -> None:
    figure = plot_confusion(np.eye(2, dtype=int), ["$\\frac$", "n" * 200], title="title")
    figure.draw_without_rendering()
    labels: list[Text] = figure.axes[0].get_yticklabels()
    assert labels[0].get_text() == r"\$\frac\$"
    assert len(labels[1].get_text()) == 24
