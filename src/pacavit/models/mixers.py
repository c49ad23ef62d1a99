"""Which attention and clustering each stage uses, from arguments given for all or per stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from pacavit.attention import ATTENTIONS, Attention
from pacavit.clustering import CLUSTERINGS, Clustering, TeacherClustering
from pacavit.errors import RecipeError

__all__ = [
    "Mixer",
    "Options",
    "PerStage",
    "drop_idle_defaults",
    "per_stage",
    "plan_mixers",
]

T = TypeVar("T")
PerStage: TypeAlias = T | Sequence[T]
Options: TypeAlias = Mapping[str, Any]


class Mixer(NamedTuple):
    """Which attention and clustering one stage uses; the clustering is None for 0 clusters."""

    attention_name: str
    attention_options: Options
    clustering_name: str | None = None
    clustering_options: Options | None = None
    num_clusters: int = 0
    recluster_every: int = 0

    @property
    def uses_teacher(self) -> bool:
        """Whether the model's teacher clusters for the stage, instead of its blocks."""
        name = self.clustering_name
        return name is not None and issubclass(CLUSTERINGS.get(name), TeacherClustering)

    def replace_clustering(self, name: str, options: Options, num_clusters: int | None) -> Mixer:
        """The same with another clustering, if the stage has one; ``num_clusters=None`` keeps M."""
        if self.clustering_name is None:
            return self
        number = self.num_clusters if num_clusters is None else num_clusters
        return self._replace(clustering_name=name, clustering_options=options, num_clusters=number)

    def build_attention(self, dim: int, num_heads: int, stage: int, block: int) -> Attention:
        """The attention of one block."""
        return ATTENTIONS.create(
            self.attention_name,
            dim,
            num_heads,
            options=self.attention_options,
            stage=stage,
            block=block,
        )

    def build_clustering(self, dim: int, block: int) -> Clustering | None:
        """A clustering for the blocks that compute one: the first, or every k-th."""
        every = self.recluster_every
        if self.clustering_name is None or self.uses_teacher or (block % every if every else block):
            return None
        return self.create_clustering(dim)

    def create_clustering(self, dim: int) -> Clustering:
        """A fresh clustering of the stage, which must have one."""
        assert self.clustering_name is not None
        return CLUSTERINGS.create(
            self.clustering_name, dim, self.num_clusters, options=self.clustering_options or {}
        )


def plan_mixers(
    num_stages: int,
    attention: PerStage[str],
    attention_options: PerStage[Options] | None,
    clustering: PerStage[str] | None,
    clustering_options: PerStage[Options] | None,
    clustering_defaults: Mapping[str, Options],
    num_clusters: PerStage[int] | None,
    recluster_every: PerStage[int],
) -> list[Mixer]:
    """One mixer per stage. Arguments that no stage would use raise RecipeError."""
    for name in clustering_defaults:
        CLUSTERINGS.get(name)
    mixers = []
    columns = zip(
        per_stage("attention", attention, num_stages),
        per_stage("attention_options", attention_options, num_stages),
        per_stage("clustering", clustering, num_stages),
        per_stage("clustering_options", clustering_options, num_stages),
        per_stage("num_clusters", num_clusters, num_stages),
        per_stage("recluster_every", recluster_every, num_stages),
        strict=True,
    )
    for mixing, mixing_options, method, method_options, clusters, every in columns:
        method = method or "conv"
        CLUSTERINGS.get(method)  # a misspelt name is an error in a stage without clusters too
        clusters = 100 if clusters is None else clusters
        for name, value in (("num_clusters", clusters), ("recluster_every", every)):
            if value < 0:
                raise RecipeError(f"{name} must be 0 or more in every stage, not {value}")
        if not ATTENTIONS.get(mixing).uses_clusters:
            mixers.append(Mixer(mixing, dict(mixing_options or {})))
        elif clusters == 0:
            mixers.append(Mixer("full", {}))
        else:
            options = {**clustering_defaults.get(method, {}), **(method_options or {})}
            mixing_options = dict(mixing_options or {})
            mixers.append(Mixer(mixing, mixing_options, method, options, clusters, every))
    given: dict[str, Any] = {}
    if all(mixer.clustering_name is None for mixer in mixers):
        given = {
            "clustering": clustering,
            "clustering_options": clustering_options,
            "num_clusters": num_clusters,
        }
    if all(mixer.clustering_name is None or mixer.uses_teacher for mixer in mixers):
        given["recluster_every"] = recluster_every
    if not any(mixer.attention_options for mixer in mixers):
        given["attention_options"] = attention_options
    for name, value in given.items():
        if any(per_stage(name, value, num_stages)):
            raise RecipeError(f"{name}={value!r} has no effect in any stage")
    return mixers


def drop_idle_defaults(
    defaults: Mapping[str, Any], settings: Mapping[str, Any], num_stages: int
) -> dict[str, Any]:
    """The defaults of a variant without clustering options that would have no effect.

    Args:
        defaults: keyword arguments of the variant.
        settings: the caller's, which take precedence.
        num_stages: of the model.
    """
    chosen = {**defaults, **settings}
    attentions = per_stage("attention", chosen.get("attention", "paca"), num_stages)
    clusters = per_stage("num_clusters", chosen.get("num_clusters"), num_stages)
    methods = {
        method or "conv"
        for name, number, method in zip(
            attentions,
            clusters,
            per_stage("clustering", chosen.get("clustering"), num_stages),
            strict=True,
        )
        if ATTENTIONS.get(name).uses_clusters and number != 0
    }
    idle = set()
    if not methods:
        idle = {"clustering", "num_clusters"}
    if "teacher" not in methods:
        idle.add("teacher_options")
    if methods <= {"teacher"}:
        idle.add("recluster_every")
    return {name: value for name, value in defaults.items() if name not in idle}


def per_stage(name: str, value: Any, num_stages: int) -> tuple[Any, ...]:
    """One value for all stages, or one per stage -> one per stage."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != num_stages:
            raise RecipeError(f"{name} has {len(value)} values for {num_stages} stages: {value!r}")
        return tuple(value)
    return (value,) * num_stages
