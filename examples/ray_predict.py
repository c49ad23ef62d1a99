"""Predict a folder of images on a Ray cluster; Ray distributes files, actors and rows.

::

    pip install 'ray[data]'
    python examples/ray_predict.py cifar10_nano_conv photos predictions --actors 4

OUT gets parquet files with a row per image in the order of the files: its path, the prediction as
JSON, and an error if it cannot be read. On one machine, ``pacavit predict --shard`` does without
Ray.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from pacavit.engine.ensemble import load_predictor


class PredictBatch:
    """An actor: loads the model once, and predicts the batches that Ray sends to it."""

    def __init__(self, model: str, device: str = "cpu") -> None:
        self.predictor = load_predictor(model, device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns ``bytes`` and ``path`` -> ``path``, ``prediction`` and ``error``."""
        model, found = (
            self.predictor.model,
            self.predictor([bytes(file) for file in batch["bytes"]]),
        )
        records = [
            model.task.prediction(Path(path), each.record, each.error, model.info, 5).to_dict()
            for path, each in zip(batch["path"], found, strict=True)
        ]
        return {
            "path": batch["path"],
            "prediction": np.array([json.dumps(record) for record in records]),
            "error": np.array([record["error"] or "" for record in records]),
        }


def main() -> None:
    """Read the command line and predict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="run folder, weights file or packaged name")
    parser.add_argument("images", help="folder of images, in a place that all machines reach")
    parser.add_argument("out", help="folder for parquet files, likewise")
    parser.add_argument("--actors", type=int, default=2, help="processes with a model each")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each actor")
    arguments = parser.parse_args()

    import ray

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.data.read_binary_files(arguments.images, include_paths=True).map_batches(
        PredictBatch,
        batch_size=16,
        fn_constructor_args=(arguments.model, "cuda" if arguments.gpus else "cpu"),
        compute=ray.data.ActorPoolStrategy(size=arguments.actors),
        num_gpus=arguments.gpus,
    ).write_parquet(arguments.out)


if __name__ == "__main__":
    main()
