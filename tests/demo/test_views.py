"""What the page shows, as HTML."""

from dataclasses import replace

import numpy as np
from PIL import Image

from pacavit.demo.classification import views
from pacavit.demo.classification.classified import Classified, patch_region
from pacavit.demo.views import message, style
from pacavit.explain import MapChoice
from pacavit.utils.command import pacavit_command


def test_names_of_users_are_text() -> None:
    shown = message("<img src=x onerror=alert(1)> is broken", error=True)
    assert "<img" not in shown
    assert 'role="alert"' in shown


def test_the_top_marks_what_is_explained(ship: Classified) -> None:
    shown = views.top(ship)
    assert shown.count("<li") == 5
    assert shown.count("pv-chosen") == 1
    assert "The maps explain" not in shown
    other = replace(ship.explanation, explained=ship.explanation.top[1])
    assert "The maps explain" in views.top(replace(ship, explanation=other))


def test_masks_tell_their_area(ship: Classified) -> None:
    shown = views.masks(ship, "class_map", "quantile", 0.3)
    assert shown.count("<figure") == 4
    assert "mask: 30.0%" in shown
    assert "evidence for ship" in shown
    assert "for any class" in views.masks(ship, "attention_map", "mass", 0.3)


def test_unmeasured_maps_stand_beside_each_other_with_the_command(ship: Classified) -> None:
    command = pacavit_command("explain-evaluate", "a b")
    choice = MapChoice(("class_map", "attention_map"), "<b> not measured", command)
    found = replace(ship, explanation=replace(ship.explanation, choice=choice))
    shown = views.masks(found, "class_map", "quantile", 0.3)
    assert shown.count("<figure") == 5
    assert "attention map over the image" in shown
    assert "&lt;b&gt; not measured" in shown
    assert "pacavit explain-evaluate &#39;a b&#39;" in shown
    assert views.masks(found, "attention_map", "quantile", 0.3).count("<figure") == 4


def test_every_stage_with_clusters_has_a_gallery(ship: Classified) -> None:
    shown = views.galleries(ship)
    assert "Stage 0" in shown
    assert "Stage 1" in shown
    assert shown.count("<figure") == 2 * (1 + 16)
    none = replace(ship, explanation=replace(ship.explanation, stages=()))
    assert "no stage with clusters" in views.galleries(none)


def test_a_patch_shows_its_clusters(ship: Classified) -> None:
    shown = views.patch(ship, 1, 2, 3)
    assert "row 3, column 4" in shown
    assert shown.count("<figure") == 12
    assert "goes to other clusters" in shown


def test_the_frame_is_around_the_patch(ship: Classified) -> None:
    with_frame, other = (views.patch_picture(ship, 1, row, 3) for row in (2, 6))
    changed = np.argwhere((np.asarray(with_frame) != np.asarray(other)).any(-1))
    top, left, _, width = patch_region(ship, ship.clusters(1), 2, 3)
    assert changed.min(0).tolist() == [round(top) - 3, round(left) - 3]
    assert changed[:, 1].max() == round(left + width) + 2
    assert isinstance(with_frame, Image.Image)


def test_a_comparison_has_two_columns(ship: Classified, photograph: Classified) -> None:
    shown = views.comparison(ship, photograph)
    assert shown.count("<section") == 2
    assert shown.count("<figure") == 2 * 3


def test_pictures_are_inside(ship: Classified) -> None:
    for shown in (views.galleries(ship), views.patch(ship, 0, 0, 0), style()):
        assert "://" not in shown
