"""Serve a model with Ray Serve: replicas on a cluster, whose requests share batches.

::

    pip install 'ray[serve]'
    python examples/ray_serve.py cifar10_nano_conv --replicas 2
    curl --data-binary @photo.jpg http://127.0.0.1:8000/

The answer is the prediction as JSON; its status is 422 if the body is no image.
"""

from __future__ import annotations

import argparse
from typing import Any

from pacavit.engine.ensemble import load_predictor


def application(model: str, replicas: int) -> Any:
    """The application of Ray Serve for a run folder, weights file or packaged name."""
    from ray import serve
    from starlette.responses import JSONResponse

    @serve.deployment(num_replicas=replicas)
    class Model:
        def __init__(self) -> None:
            self.predictor = load_predictor(model)

        @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.01)
        async def predict(self, images: list[bytes]) -> list[dict[str, Any]]:
            loaded = self.predictor.model
            return [
                loaded.task.prediction(
                    each.source, each.record, each.error, loaded.info, 5
                ).to_dict()
                for each in self.predictor(images)
            ]

        async def __call__(self, request: Any) -> JSONResponse:
            record = await self.predict(await request.body())
            return JSONResponse(record, status_code=422 if record["error"] else 200)

    deployment: Any = Model
    return deployment.bind()


def main() -> None:
    """Read the command line and serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="run folder, weights file or packaged name")
    parser.add_argument("--replicas", type=int, default=1)
    arguments = parser.parse_args()

    from ray import serve

    serve.run(application(arguments.model, arguments.replicas), blocking=True)


if __name__ == "__main__":
    main()
