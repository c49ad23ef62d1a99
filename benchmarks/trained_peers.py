r"""Attentions, and networks of timm with as many MACs, trained for the same minutes.

::

    python benchmarks/trained_peers.py train --data FOLDER --out runs/peers
    python benchmarks/trained_peers.py measure --data FOLDER --out runs/peers

Every attention in the body of ``pacavit_nano``, clusters of several methods, and DeiT, PVTv2, Swin,
ConvNeXt and ResNet of timm with MACs like those of nano. ``train`` measures the time of a training
step of each by turns with the base, chooses the number of epochs that takes the same time, tries
each setting of ``TRIALS`` for a short time with a seed of its own, and trains the one with the best
validation accuracy with every seed. ``measure`` evaluates finished runs on the test images once,
and measures the speed of inference, the faithfulness of maps and the accuracy on corrupted images.

Every run is a folder in ``--out``; repeating a command resumes, and skips what is finished;
``--only`` takes some of the networks. The result goes to ``benchmarks/results/trained_peers.json``.
For right times of steps and inference, nothing else should run; trainings may be two at a time
(``--jobs 2``).
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import studies
import torch
from figures import inference
from peer_networks import NETWORKS
from studies import Run

from pacavit import api
from pacavit.bench.turns import quartiles, ratios, take_turns
from pacavit.engine import build, system
from pacavit.engine.run.environment import environment
from pacavit.engine.weights.load import load_model
from pacavit.errors import Interrupted, PacavitError
from pacavit.explain.choice import FOLDER, NUMBERS
from pacavit.utils.command import Command

RESULTS = Path(__file__).parent / "results" / "trained_peers.json"
BASE = "paca, conv"
ADAMW = (
    "train.optimizer=adamw",
    "train.optimizer_options={betas=[0.9,0.95],fused=true}",
    "train.lr_scales={}",
    "train.lr=0.003",
)
TRIALS: dict[str, tuple[str, ...]] = {
    "as the recipe": (),
    "half the rate": ("train.lr=0.003",),
    "AdamW": ADAMW,
}
"""Settings that are tried for every network; the best on validation images is trained."""
MAPS = ("cluster_contributions", "relevance", "grad_cam")


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        recipe: name or file, of all networks.
        changes: of the recipe.
        data: folder with the data set.
        out: folder of the runs.
        epochs: of the base; those of the others take as long.
        seeds: of the trained runs.
        trial_epochs: of the runs that choose settings; their seed is one more than the largest.
        jobs: trainings at a time.
    """

    recipe: str
    changes: tuple[str, ...]
    data: Path | None
    out: Path
    epochs: int
    seeds: tuple[int, ...]
    trial_epochs: int
    jobs: int

    def run(self, name: str, trial: str, epochs: int, seed: int, *, tried: bool = False) -> Run:
        """A training of a network."""
        words = [name, trial, *(["trial"] if tried else []), f"seed{seed}"]
        folder = self.out / "-".join(words).replace(", ", "-").replace(" ", "_")
        changes = (
            *self.changes,
            *NETWORKS[name].changes,
            *TRIALS[trial],
            f"train.epochs={epochs}",
            f"train.seed={seed}",
        )
        return Run(folder, self.recipe, changes, self.data)


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, train or measure, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("step", choices=("train", "measure"))
    parser.add_argument("--data", type=Path, help="folder with the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--recipe", default="cifar10_nano_short")
    parser.add_argument("--only", nargs="+", metavar="NETWORK", help="some of the networks")
    parser.add_argument("--epochs", type=int, default=6, help="of the base")
    parser.add_argument("--trial-epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=30, help="measured steps of each network")
    parser.add_argument("--rounds", type=int, default=20, help="of measured inference")
    parser.add_argument("--explained", type=int, default=100, help="images whose maps are measured")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(words)
    for name in given.only or ():
        if name not in NETWORKS:
            parser.error(f"no network {name!r}; known: {'; '.join(NETWORKS)}")
    names = [name for name in NETWORKS if given.only is None or name in given.only]
    plan = Plan(
        given.recipe,
        tuple(given.set),
        given.data,
        given.out,
        given.epochs,
        tuple(given.seeds),
        given.trial_epochs,
        given.jobs,
    )
    try:
        for name in names:
            if given.step == "train":
                entry = train(plan, name, given.steps)
            else:
                entry = measure(plan, name, given)
            record(plan, given.results, name, entry)
    except PacavitError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"wrote {given.results}")  # noqa: T201


def record(plan: Plan, results: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Add what was found of a network to the results."""
    old = studies.read(results)
    networks = {**old.get("networks", {}), name: entry}
    words = ["--data", "FOLDER", "--out", "DIR", "--recipe", plan.recipe]
    words += ["--epochs", str(plan.epochs), "--seeds", *map(str, plan.seeds)]
    words += [word for change in plan.changes for word in ("--set", change)]
    command = Command(("python", "benchmarks/trained_peers.py", "train", *words))
    studies.write(
        results,
        {
            "command": str(command),
            "recipe": plan.recipe,
            "seeds": plan.seeds,
            "trials": {key: list(changes) for key, changes in TRIALS.items()},
            "environment": environment(system.pick_device("auto")),
            "networks": {key: networks[key] for key in NETWORKS if key in networks},
        },
    )


def train(plan: Plan, name: str, steps: int) -> dict[str, Any]:
    """Choose epochs and settings of a network, and train it with every seed."""
    cost = step_cost(plan, name, steps)
    epochs = equal_epochs(cost["ratio"], plan.epochs)
    print(f"{name}: a step takes {cost['ratio']:.2f} times the base's; {epochs} epochs")  # noqa: T201
    trials = {
        trial: plan.run(name, trial, plan.trial_epochs, max(plan.seeds) + 1, tried=True)
        for trial in TRIALS
    }
    studies.train_all(list(trials.values()), plan.jobs)
    scores = {trial: studies.trained(run)["val_accuracy"] for trial, run in trials.items()}
    best = max(scores, key=lambda trial: scores[trial])
    runs = [plan.run(name, best, epochs, seed) for seed in plan.seeds]
    studies.train_all(runs, plan.jobs)
    network = NETWORKS[name]
    return {
        "kind": network.kind,
        "note": network.note,
        "changes": list(network.changes),
        "cost": cost,
        "trials": scores,
        "setting": best,
        "epochs": epochs,
        "runs": [studies.trained(run) for run in runs],
    }


def step_cost(plan: Plan, name: str, steps: int) -> dict[str, Any]:
    """The time of a training step relative to that of the base, measured by turns once."""
    file = plan.out / "costs" / f"{name.replace(', ', '-').replace(' ', '_')}.json"
    if not file.is_file():
        made = {
            kind: studies.recipe_on(
                plan.recipe, [*plan.changes, *NETWORKS[which].changes], plan.data
            )
            for kind, which in (("base", BASE), ("own", name))
        }
        studies.write(file, studies.step_cost(made, steps))
    return studies.read(file)


def equal_epochs(ratio: float, base: int) -> int:
    """Epochs of a network that take the time of the base's, at least one."""
    return max(1, round(base / ratio))


def measure(plan: Plan, name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Everything about the finished runs of a network but their training."""
    entry = studies.read(given.results).get("networks", {}).get(name)
    if entry is None:
        raise PacavitError(f"{name} is not trained yet: run that step first, or leave it out")
    rows = []
    for row, seed in zip(entry["runs"], plan.seeds, strict=True):
        folder = plan.run(name, entry["setting"], entry["epochs"], seed).folder
        found = studies.evaluated(folder, plan.data)
        rows.append(
            {
                **row,
                "test": {key: found["test"][key] for key in ("accuracy", "f1_macro", "num_images")},
                "explanations": explanations(folder, plan.data, given.explained),
                "corrupted": corrupted(folder, plan.data),
            }
        )
        entry |= {key: found[key] for key in ("parameters", "macs", "data")}
    folder = plan.run(name, entry["setting"], entry["epochs"], plan.seeds[0]).folder
    return {**entry, "runs": rows, "inference": speed(plan, folder, given.rounds)}


def speed(plan: Plan, folder: Path, rounds: int, batch_size: int = 64) -> dict[str, Any]:
    """Images per second of inference in fp32, and relative to the base, measured by turns once."""
    file = folder / "inference.json"
    if not file.is_file():
        device = system.pick_device("auto")
        system.configure(device)
        own = load_model(folder)
        recipe = studies.recipe_on(plan.recipe, [*plan.changes, *NETWORKS[BASE].changes], plan.data)
        base = build.model(recipe.model, len(own.info.class_names))
        steps = {}
        for kind, network, task in (
            ("base", base, recipe.task),
            ("own", own.task.model, own.recipe.task),
        ):
            size = task.input_size(own.info.image_size)
            images = torch.randn(batch_size, 3, *size, device=device)
            images = images.contiguous(memory_format=torch.channels_last)
            steps[kind] = inference(network.to(device).eval(), images)
        seconds = take_turns(steps, rounds, warm_up=3)
        studies.write(
            file,
            {
                "images_per_second": quartiles([batch_size / each for each in seconds["own"]]),
                "ratio": ratios(seconds["base"], seconds["own"]),
                "batch_size": batch_size,
                "environment": environment(device),
            },
        )
    return studies.read(file)


def explanations(folder: Path, data: Path | None, limit: int) -> dict[str, Any]:
    """Faithfulness of the maps that a network has, by method and measure, measured once.

    A network that has none of ``MAPS`` gives the reason as ``refused``.
    """
    file, reason = folder / FOLDER / NUMBERS, ""
    for first in range(len(MAPS)):
        if file.is_file():
            break
        try:
            api.explain_evaluate(
                folder,
                folder / FOLDER,
                data=data,
                methods=MAPS[first:],
                limit=limit,
                precision="bf16",
                progress=True,
            )
        except Interrupted:
            raise
        except PacavitError as error:
            reason = str(error)
    if not file.is_file():
        return {"refused": reason}
    return {
        row["method"]: {measure: value[0] for measure, value in row["predicted"].items()}
        for row in studies.read(file)["methods"]
    }


def corrupted(folder: Path, data: Path | None) -> dict[str, Any] | None:
    """Mean accuracy of a run on corrupted test images, and by kind and severity, measured once.

    None as long as ``evaluate`` cannot corrupt images.
    """
    out = folder / "corrupted"
    file = out / "evaluation.json"
    if not file.is_file():
        if "corruptions" not in inspect.signature(api.evaluate).parameters:
            print("corrupted images are left out: this pacavit does not make them")  # noqa: T201
            return None
        evaluate: Any = api.evaluate
        evaluate(folder, data=data, corruptions="all", out=out, progress=True)
    found = studies.read(file)["corruptions"]
    return {"accuracy": found["mean_accuracy"], "by_kind": found["accuracy"]}


if __name__ == "__main__":
    main()
