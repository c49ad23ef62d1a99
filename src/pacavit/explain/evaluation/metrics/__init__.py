"""Numbers that test whether maps and clusters tell the truth, in plain torch and batched."""

from pacavit.explain.evaluation.metrics.clusters import (
    adjusted_rand_index,
    contingency,
    hungarian_miou,
    mean_best_overlap,
    normalized_mutual_information,
    purity,
)
from pacavit.explain.evaluation.metrics.deletion import (
    cluster_drops,
    randomised,
    stage_clusterings,
    without_cluster,
)
from pacavit.explain.evaluation.metrics.faithfulness import (
    BASELINES,
    area_under_curve,
    blurred,
    mean_colour,
    perturbation_curves,
    predicted_right,
    top_area,
)
from pacavit.explain.evaluation.metrics.maps import (
    energy_inside,
    gini,
    pointing_game,
    rank_correlation,
)
from pacavit.explain.evaluation.metrics.road import impute, road
from pacavit.explain.evaluation.metrics.sensitivity import max_sensitivity
from pacavit.explain.evaluation.metrics.statistics import mean_interval, paired_difference
from pacavit.utils.statistics import Interval

__all__ = [
    "BASELINES",
    "Interval",
    "adjusted_rand_index",
    "area_under_curve",
    "blurred",
    "cluster_drops",
    "contingency",
    "energy_inside",
    "gini",
    "hungarian_miou",
    "impute",
    "max_sensitivity",
    "mean_best_overlap",
    "mean_colour",
    "mean_interval",
    "normalized_mutual_information",
    "paired_difference",
    "perturbation_curves",
    "pointing_game",
    "predicted_right",
    "purity",
    "randomised",
    "rank_correlation",
    "road",
    "stage_clusterings",
    "top_area",
    "without_cluster",
]
