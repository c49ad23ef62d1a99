"""Images per second of timm models side by side: inference, eager, fp32.

::

    python benchmarks/forward_speed.py pvt_v2_b2 pacavit_small

The models take turns, one batch each in every round, so that changes of the machine's speed affect
all of them equally. A figure is the median over the rounds with its quartiles; ``ratio`` is the
median over the rounds of the first model's time over this model's. The result goes to
``benchmarks/results/forward_speed.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from figures import quartiles, ratios, take_turns

import pacavit  # noqa: F401  registers the models with timm
from pacavit.engine import system
from pacavit.engine.run.environment import environment

RESULTS = Path(__file__).parent / "results" / "forward_speed.json"


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", help="names for timm; ratios are to the first")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=3)
    arguments = parser.parse_args()
    device = system.pick_device("auto")
    system.configure(device)
    models = {name: timm.create_model(name).to(device).eval() for name in arguments.models}
    shape = arguments.batch_size, 3, arguments.size, arguments.size
    images = torch.randn(shape, device=device)
    steps = {name: partial(model, images) for name, model in models.items()}
    with torch.inference_mode():
        times = take_turns(steps, arguments.rounds, arguments.warm_up)

    reference = times[arguments.models[0]]
    result: dict[str, Any] = {
        "command": f"python benchmarks/forward_speed.py {' '.join(arguments.models)}",
        "size": arguments.size,
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "models": {
            name: {
                "images_per_second": quartiles([arguments.batch_size / each for each in seconds]),
                "ratio": ratios(reference, seconds),
                "parameters": sum(each.numel() for each in models[name].parameters()),
            }
            for name, seconds in times.items()
        },
        "environment": environment(device),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result["models"], indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
