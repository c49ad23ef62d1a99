"""Score random detections by several processes; started by test_metrics.py with torchrun.

Arguments: a file with records and targets, and the file for the scores. The images are divided
over the processes, first equally, then all for the first one.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from torch import distributed

from pacavit.tasks.detection import DetectionMetrics


def main(data: Path, out: Path) -> None:
    """Write the scores of the first process."""
    distributed.init_process_group("gloo")
    rank, size = distributed.get_rank(), distributed.get_world_size()
    records, targets = torch.load(data, weights_only=False)
    found = []
    for own in (slice(rank, None, size), slice(None) if rank == 0 else slice(0)):
        metrics = DetectionMetrics(3, masks=True)
        if records[own]:
            metrics.update(records[own], targets[own])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The ``compute`` method of metric .* before")
            found.append(metrics.compute())
            # The states of a process are its own again after that.
            assert torch.equal(metrics.compute()["confusion"], found[-1]["confusion"])
    if rank == 0:
        torch.save(found, out)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
