"""Does a teacher help a small network, if both trainings take the same time?

::

    python benchmarks/distillation.py --data FOLDER --out runs/distillation

Measures the time of a training step with and without the teacher, by turns, and chooses two numbers
of epochs that take the same time. Then chooses between soft and hard targets on the validation
images, with a short schedule and a seed of its own, and trains the plain and the distilled network
with each seed. Test images are used once per final run.

Each part is kept in the folder ``--out``, and repeating the command resumes. The result is written
to ``benchmarks/results/distillation.json`` after each final run. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import studies
from training_step import Steps

from pacavit.engine import build
from pacavit.engine.distillation import load_distiller
from pacavit.engine.run.log import read_metrics
from pacavit.errors import PacavitError
from pacavit.utils.command import Command

RESULTS = Path(__file__).parent / "results" / "distillation.json"
COST = "cost.json"
TARGETS = ("soft", "hard")


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        recipe: name or file of the recipe.
        changes: of the recipe, for all runs.
        teacher: packaged name, weights file or run folder.
        data: folder with the data set.
        out: folder of the runs.
        pilot_seed: of the runs that choose between soft and hard targets.
        pilot_epochs: of these runs.
    """

    recipe: str
    changes: tuple[str, ...]
    teacher: str
    data: Path | None
    out: Path
    pilot_seed: int
    pilot_epochs: int

    def settings(self, epochs: int, seed: int, targets: str | None) -> list[str]:
        """Changes of the recipe for a run; ``targets`` is None without the teacher."""
        settings = [*self.changes, f"train.epochs={epochs}", f"train.seed={seed}"]
        if targets is not None:
            settings += [f"train.teacher={self.teacher}", f"train.distillation={targets}"]
        return settings

    def train(self, name: str, epochs: int, seed: int, targets: str | None) -> Path:
        """Train a run, or resume it; one that is finished is not trained again."""
        changes = tuple(self.settings(epochs, seed, targets))
        return studies.train(studies.Run(self.out / name, self.recipe, changes, self.data))


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, measure, train and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--recipe", default="cifar10_nano_short")
    parser.add_argument("--teacher", default="cifar10_nano_long_mlp")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=30, help="measured steps of each kind")
    parser.add_argument("--max-epochs", type=int, default=8, help="of the plain runs")
    parser.add_argument("--pilot-epochs", type=int, default=2)
    parser.add_argument("--pilot-seed", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(words)
    if given.pilot_seed in given.seeds:
        raise SystemExit("error: the pilot needs a seed of its own; change --pilot-seed")
    plan = Plan(
        given.recipe,
        tuple(given.set),
        given.teacher,
        given.data,
        given.out,
        given.pilot_seed,
        given.pilot_epochs,
    )
    try:
        run(plan, given.seeds, given.steps, given.max_epochs, given.results)
    except PacavitError as error:
        raise SystemExit(f"error: {error}") from error


def run(plan: Plan, seeds: Sequence[int], steps: int, max_epochs: int, results: Path) -> None:
    """All parts, each of which is skipped if it is done."""
    plan.out.mkdir(parents=True, exist_ok=True)
    cost = measured_cost(plan, steps)
    plain, distilled = equal_epochs(cost["ratio"], max_epochs)
    print(  # noqa: T201
        f"a step with the teacher takes {cost['ratio']:.3f} times as long: {plain} epochs without "
        f"and {distilled} with it"
    )
    pilots = {targets: pilot(plan, targets) for targets in TARGETS}
    chosen = max(TARGETS, key=lambda targets: pilots[targets]["val_accuracy"])
    entries = []
    for seed in seeds:
        for targets, epochs in ((None, plain), (chosen, distilled)):
            kind = "plain" if targets is None else "distilled"
            folder = plan.train(f"{kind}-seed{seed}", epochs, seed, targets)
            entries.append({"kind": kind, "epochs": epochs, **studies.evaluated(folder, plan.data)})
            record = {
                "command": str(command(plan, seeds)),
                "recipe": plan.recipe,
                "teacher": plan.teacher,
                "cost": cost,
                "pilot": pilots,
                "targets": chosen,
                "runs": entries,
            }
            studies.write(results, record)
    print(f"wrote {results}")  # noqa: T201


def command(plan: Plan, seeds: Sequence[int]) -> Command:
    """The command that repeats the study, without folders of this machine."""
    changes = [word for change in plan.changes for word in ("--set", change)]
    chosen = ["--recipe", plan.recipe, "--teacher", plan.teacher, "--seeds", *map(str, seeds)]
    folders = ["--data", "FOLDER", "--out", "DIR"]
    return Command(("python", "benchmarks/distillation.py", *folders, *chosen, *changes))


def measured_cost(plan: Plan, steps: int) -> dict[str, Any]:
    """Milliseconds of a step (quartiles) without and with the teacher, measured by turns once."""
    file = plan.out / COST
    if not file.is_file():
        variants = {"plain": None, "distilled": TARGETS[0]}
        made = {
            kind: studies.recipe_on(plan.recipe, plan.settings(1, 0, targets), plan.data)
            for kind, targets in variants.items()
        }

        def add_teacher(kind: str, steps_of: Steps) -> None:
            info, device = build.data_source(made[kind]).info, steps_of.device
            steps_of.task.distiller = load_distiller(made[kind], info, device)

        studies.write(file, studies.step_cost(made, steps, add_teacher))
    return studies.read(file)


def equal_epochs(ratio: float, most: int) -> tuple[int, int]:
    """Epochs without and with the teacher whose times differ least, the more epochs the better.

    Args:
        ratio: of the time of a step with the teacher to that of a step without.
        most: epochs without the teacher; at least half of them are used.
    """
    pairs = [
        (plain, max(1, round(plain / ratio))) for plain in range(most, max(most // 2, 1) - 1, -1)
    ]
    return min(pairs, key=lambda pair: round(abs(pair[1] * ratio / pair[0] - 1), 2))


def pilot(plan: Plan, targets: str) -> dict[str, Any]:
    """The validation accuracy of a short run with soft or hard targets."""
    folder = plan.train(f"pilot-{targets}", plan.pilot_epochs, plan.pilot_seed, targets)
    last = read_metrics(folder)[-1]
    return {
        "epochs": plan.pilot_epochs,
        "seed": plan.pilot_seed,
        "val_accuracy": round(last["val_accuracy"], 4),
    }


if __name__ == "__main__":
    main()
