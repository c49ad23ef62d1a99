"""Metrics of explanations as batched torch functions: of maps and of clusters."""

from pacavit.explain.evaluation.metrics.ablation import (
    cluster_drops,
    randomized,
    stage_clusterings,
    without_cluster,
)
from pacavit.explain.evaluation.metrics.clusters import (
    adjusted_rand_index,
    contingency,
    hungarian_miou,
    mean_best_overlap,
    normalized_mutual_information,
    purity,
)
from pacavit.explain.evaluation.metrics.faithfulness import (
    BASELINES,
    area_under_curve,
    blurred,
    mean_color,
    perturbation_curves,
    still_top1,
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

__all__ = [
    "BASELINES",
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
    "mean_color",
    "normalized_mutual_information",
    "perturbation_curves",
    "pointing_game",
    "purity",
    "randomized",
    "rank_correlation",
    "road",
    "stage_clusterings",
    "still_top1",
    "top_area",
    "without_cluster",
]
