"""Answers of a server: equal to those of ``predict``, and one line for everything that is wrong."""

import base64
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pacavit import api
from pacavit.engine.predictor import Predictor
from pacavit.engine.weights.load import load_model, weights_digest

if TYPE_CHECKING:
    from tests.serve.conftest import Served

MODEL = "cifar10_nano_conv"
INFER = f"/v2/models/{MODEL}/infer"


def hwc(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """(B, 3, H, W) -> arrays as ``predict`` takes them."""
    return [image.transpose(1, 2, 0) for image in images]


def tensor(images: NDArray[Any], name: str = "images", datatype: str = "UINT8") -> dict[str, Any]:
    shape = list(images.shape)
    return {"name": name, "datatype": datatype, "shape": shape, "data": images.ravel().tolist()}


def decoded(text: str) -> NDArray[Any]:
    return np.asarray(Image.open(BytesIO(base64.b64decode(text))))


def test_image_files_are_predicted_as_by_the_verb(
    client: Any, files: list[bytes], tmp_path: Path
) -> None:
    expected = [each.to_dict() for each in api.predict(MODEL, files, top_k=3)]
    form = [("image", (f"image {number}", data)) for number, data in enumerate(files)]
    answer = client.post("/predict?top_k=3", files=form)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["model"], found["version"]) == (MODEL, weights_digest(load_model(MODEL))[:12])
    assert [each["path"] for each in found["predictions"]] == ["image 0", "image 1", "image 2"]
    for one, other in zip(found["predictions"], expected, strict=True):
        assert [top["class"] for top in one["top"]] == [top["class"] for top in other["top"]]
        probabilities = [[top["probability"] for top in each["top"]] for each in (one, other)]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)
    alone = client.post("/predict?top_k=3", content=files[0])
    assert alone.json()["predictions"][0]["top"][0] == found["predictions"][0]["top"][0]


def test_an_image_that_cannot_be_read_does_not_keep_the_others(
    client: Any, files: list[bytes]
) -> None:
    form = [("image", ("a.png", files[0])), ("image", ("dir/b.png", b"no image"))]
    good, bad = client.post("/predict", files=form).json()["predictions"]
    assert good["error"] is None
    assert (bad["path"], bad["top"]) == ("dir/b.png", [])
    assert bad["error"] == "dir/b.png is not an image in a format that can be read"


def test_curl_may_call_an_image_a_form(client: Any, files: list[bytes]) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    (found,) = client.post("/predict", content=files[0], headers=kind).json()["predictions"]
    (expected,) = client.post("/predict", content=files[0]).json()["predictions"]
    assert found == expected
    assert found["error"] is None


@pytest.mark.parametrize("kind", ["pixels", "files", "normalized"])
def test_tensors_are_predicted_as_by_the_predictor(
    client: Any, pixels: NDArray[np.uint8], files: list[bytes], kind: str
) -> None:
    predictor = Predictor(load_model(MODEL))
    records = [each.record for each in predictor(hwc(pixels))]
    field = tensor(pixels)
    if kind == "files":
        data = [base64.b64encode(file).decode() for file in files]
        field = {"name": "images", "datatype": "BYTES", "shape": [3], "data": data}
    elif kind == "normalized":
        import torch

        inputs = predictor.prepare(torch.from_numpy(pixels)).images.numpy()
        field = tensor(inputs, "normalized", "FP32")
    answer = client.post(INFER, json={"id": "x", "inputs": [field]}).json()
    assert (answer["model_name"], answer["id"]) == (MODEL, "x")
    for output, name in zip(answer["outputs"], ("logits", "probabilities"), strict=True):
        assert (output["name"], output["datatype"], output["shape"]) == (name, "FP32", [3, 10])
        expected = np.stack([getattr(record, name).numpy() for record in records])
        assert np.array(output["data"]).reshape(3, 10) == pytest.approx(expected, abs=1e-5)


def test_outputs_can_be_classes(client: Any, pixels: NDArray[np.uint8]) -> None:
    wanted = {"name": "probabilities", "parameters": {"classification": 2}}
    answer = client.post(INFER, json={"inputs": [tensor(pixels)], "outputs": [wanted]}).json()
    (output,) = answer["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [3, 2])
    (prediction,) = api.predict(MODEL, hwc(pixels[:1]), top_k=1)
    value, _, name = output["data"][0].split(":")
    assert name == prediction.to_dict()["top"][0]["class"]
    assert float(value) == pytest.approx(prediction.to_dict()["top"][0]["probability"], abs=1e-5)


ONE = np.zeros((1, 3, 4, 4), np.uint8)
FORM = "multipart/form-data"
WRONG: Mapping[str, tuple[int, str, dict[str, Any], str]] = {
    "route": (404, "/predicts", {"content": b"x"}, "Not Found: POST /predicts"),
    "method": (405, "/metrics", {"content": b"x"}, "Method Not Allowed: POST /metrics"),
    "model": (404, "/predict?model=other", {"content": b"x"}, f"there are {MODEL}"),
    "model in path": (404, "/v2/models/other/infer", {"json": {}}, "no model 'other'"),
    "version": (404, f"/v2/models/{MODEL}/versions/1/infer", {"json": {}}, "no version '1'"),
    "no body": (400, "/predict", {}, "the body is empty; send an image file"),
    "no image": (400, "/predict", {"content": b"x"}, "image 0 is not an image"),
    "top_k": (400, "/predict?top_k=0", {"content": b"x"}, "top_k: Input should be greater"),
    "top_k is text": (400, "/predict?top_k=x", {"content": b"x"}, "top_k: Input should be a valid"),
    "form without files": (
        400,
        "/predict",
        {"content": b"--b\r\n\r\n--b--", "headers": {"content-type": f"{FORM}; boundary=b"}},
        "the form cannot be read",
    ),
    "form without boundary": (
        400,
        "/predict",
        {"content": b"x", "headers": {"content-type": FORM}},
        "the form cannot be read",
    ),
    "form of fields": (
        415,
        "/predict",
        {"data": {"image": "a.png"}},
        "send the image itself (curl --data-binary @FILE",
    ),
    "compressed": (
        415,
        "/predict",
        {"content": b"x", "headers": {"content-encoding": "gzip"}},
        "bodies must not be compressed",
    ),
    "input name": (400, INFER, {"json": {"inputs": [tensor(ONE, "pixels")]}}, "'pixels' is UINT8"),
    "no inputs": (400, INFER, {"json": {"inputs": []}}, "give one input, images of UINT8"),
    "datatype": (
        400,
        INFER,
        {"json": {"inputs": [tensor(ONE, datatype="INT32")]}},
        "is INT32 of shape [1, 3, 4, 4]; give images of UINT8 (B, 3, H, W)",
    ),
    "channels last": (
        400,
        INFER,
        {"json": {"inputs": [tensor(ONE.transpose(0, 2, 3, 1))]}},
        "is UINT8 of shape [1, 4, 4, 3]; give images of UINT8 (B, 3, H, W)",
    ),
    "normalized of another size": (
        400,
        INFER,
        {"json": {"inputs": [tensor(ONE, "normalized", "FP32")]}},
        "image 0 is 4 x 4 normalized, and the model needs 32 x 32",
    ),
    "not finite": (
        400,
        INFER,
        {"json": {"inputs": [tensor(np.full((1, 3, 32, 32), 1e300), "normalized", "FP32")]}},
        "image 0 has values that are not finite numbers",
    ),
    "output name": (
        400,
        INFER,
        {"json": {"inputs": [tensor(ONE)], "outputs": [{"name": "scores"}]}},
        "there is no output 'scores'; there are logits, probabilities",
    ),
    "too many": (
        413,
        INFER,
        {"json": {"inputs": [tensor(np.zeros((65, 3, 1, 1), np.uint8))]}},
        "65 images in one request are more than the limit of 64",
    ),
    "class": (400, "/explain?label=dodo", {"content": "file"}, "unknown class 'dodo'"),
    "method of explanation": (
        400,
        "/explain?method=x",
        {"content": "file"},
        "unknown explanation method 'x'",
    ),
    "region of a classifier": (400, "/explain?region=1,2", {"content": "file"}, "leave it out"),
    "region": (400, "/explain?region=1", {"content": b"x"}, "region must be X,Y in pixels"),
    "box": (400, "/explain?box=1,2,3,x", {"content": b"x"}, "box must be X1,Y1,X2,Y2"),
    "two pictures": (
        400,
        "/explain?format=png&show=map&show=mask",
        {"content": b"x"},
        "format=png returns one picture",
    ),
    "picture": (400, "/explain?show=x", {"content": b"x"}, "Input should be 'overlay', 'map' or"),
    "number": (400, "/explain?format=png&number=2", {"content": "file"}, "no explanation 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_get_one_line(client: Any, files: list[bytes], case: str) -> None:
    status, url, arguments, message = WRONG[case]
    if arguments.get("content") == "file":
        arguments = arguments | {"content": files[0]}
    answer = client.post(url, **arguments)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]
    assert len(answer.json()["error"].splitlines()) == 1
    assert "/" + MODEL not in answer.text.replace(url, "")
    assert "Traceback" not in answer.text


def test_limits_of_bodies_images_and_queue(served: "Served", files: list[bytes]) -> None:
    form = [("image", ("a.png", file)) for file in files]
    with served(MODEL, max_body=0.02, max_pixels=0.0011, queue=2, max_images=4) as client:
        answer = client.post("/predict", content=bytes(30_000))
        assert (answer.status_code, answer.json()["error"]) == (
            413,
            "the body is larger than the limit of 0.02 MB",
        )
        answer = client.post("/predict", content=files[0])
        assert answer.status_code == 400
        assert "32 x 40 pixels, more than the limit of 0.0011 million" in answer.json()["error"]
        answer = client.post(INFER, json={"inputs": [tensor(np.zeros((1, 3, 40, 32), np.uint8))]})
        assert answer.status_code == 400
        assert "32 x 40 pixels, more than the limit of 0.0011 million" in answer.json()["error"]
        answer = client.post("/predict", files=form)
        assert answer.status_code == 413
        assert answer.json()["error"] == "3 images in one request are more than the limit of 2"


def test_nothing_is_ready_before_all_models_have_answered(served: "Served") -> None:
    with served(MODEL, "other=" + MODEL, wait=False) as client:
        early = client.get("/health/ready")
        assert client.get("/health/live").json() == {"live": True}
        if early.status_code == 503:  # loading takes longer than this
            assert early.json() == {"ready": False}
            refused = client.post("/predict?model=other", content=b"x")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "2"
        while client.get("/v2/health/ready").status_code == 503:
            pass
        assert client.get("/health/ready").json() == {"ready": True}
        assert client.get("/v2/models/other/ready").json() == {"name": "other", "ready": True}
        answer = client.post("/predict", content=b"x")
        assert answer.status_code == 400
        assert answer.json()["error"] == f"name a model: ?model=NAME with one of {MODEL}, other"


def test_a_model_that_cannot_be_loaded_ends_the_server(served: "Served", tmp_path: Path) -> None:
    with served(str(tmp_path / "none.safetensors")) as client:
        (error,) = client.errors
        assert "no run folder or weights file" in str(error)
        assert client.get("/health/ready").status_code == 503


def test_a_token_is_needed_for_all_but_health(served: "Served", files: list[bytes]) -> None:
    with served(MODEL, token="a secret") as client:
        assert client.get("/health/ready").status_code == 200
        assert client.get("/v2/health/live").status_code == 200
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "a secret"}):
            for answer in (
                client.get("/metrics", headers=headers),
                client.post("/predict", content=files[0], headers=headers),
            ):
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
        headers = {"authorization": "Bearer a secret"}
        assert client.post("/predict", content=files[0], headers=headers).status_code == 200


def test_a_local_server_answers_no_other_name(served: "Served") -> None:
    with served(MODEL, hosts=("127.0.0.1", "localhost", "[::1]")) as client:
        for host in ("127.0.0.1:8000", "localhost", "[::1]:8000", "[::1]"):
            assert client.get("/models", headers={"host": host}).status_code == 200
        assert client.get("/models", headers={"host": "evil.example"}).status_code == 400


def test_metrics_count_requests_images_and_batches(
    served: "Served", pixels: NDArray[np.uint8]
) -> None:
    with served(MODEL) as client:
        client.post(INFER, json={"inputs": [tensor(pixels)]})
        client.post(INFER, json={})
        client.get("/no/such/page")
        text = client.get("/metrics").text
    route = "/v2/models/{model}/infer"
    for line in (
        f'pacavit_requests_total{{route="{route}",status="200"}} 1.0',
        f'pacavit_requests_total{{route="{route}",status="400"}} 1.0',
        'pacavit_requests_total{route="other",status="404"} 1.0',
        f'pacavit_request_seconds_count{{route="{route}"}} 2.0',
        f'pacavit_images_total{{model="{MODEL}"}} 3.0',
        f'pacavit_batch_images_bucket{{le="2.0",model="{MODEL}"}} 1.0',  # the first answer
        f'pacavit_batch_images_bucket{{le="4.0",model="{MODEL}"}} 2.0',
        f'pacavit_images_in_work{{model="{MODEL}"}} 0.0',
        f'pacavit_model_ready{{model="{MODEL}"}} 1.0',
    ):
        assert line in text.splitlines()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "link", "iframe")
        self.found += [value or "" for name, value in attrs if name in ("href", "src")]


def test_the_page_lists_all_routes_and_loads_nothing(client: Any) -> None:
    answer = client.get("/")
    links = _Links()
    links.feed(answer.text)
    assert links.found == ["openapi.json"]
    assert "url(" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    schema = client.get("/openapi.json").json()
    paths = set(re.findall(r"</span> <code>(.*?)</code>", answer.text))
    assert paths == set(schema["paths"])
    assert {"/predict", "/explain", "/metrics", "/v2/models/{model}/infer"} <= paths


def test_explanations_are_pictures_of_the_size_of_the_image(
    client: Any, files: list[bytes]
) -> None:
    answer = client.post("/explain?label=ship", files={"image": ("a.png", files[0])}).json()
    assert (answer["path"], answer["method"]) == ("a.png", "cluster_contributions")
    (found,) = answer["explanations"]
    assert found["class"] == "ship"
    heatmap, mask = decoded(found["map"]), decoded(found["mask"])
    assert (heatmap.shape, mask.shape) == ((40, 32), (40, 32))
    assert heatmap.max() == 255
    assert heatmap[mask].min() >= heatmap[~mask].max() - 1
    assert found["mask_area"] == pytest.approx(mask.sum() / (32 * 32), abs=1e-3)
    assert decoded(found["overlay"]).shape == (320, 256, 3)
    png = client.post("/explain?label=ship&format=png&show=mask", content=files[0])
    assert png.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(BytesIO(png.content))), mask)
    only = client.post("/explain?show=map", content=files[0]).json()["explanations"][0]
    assert {"overlay", "map", "mask"} & {*only} == {"map"}


def test_segmentation(served: "Served", segmenter: Path, noise_image: Path) -> None:
    data = noise_image.read_bytes()
    (expected,) = api.predict(str(segmenter), noise_image)
    labels = expected.labels  # type: ignore[attr-defined]
    with served(f"seg={segmenter}") as client:
        found = client.post("/predict?masks=true", content=data).json()["predictions"][0]
        assert found["classes"] == expected.to_dict()["classes"]
        assert np.array_equal(decoded(found["labels"]), labels.numpy())
        image = np.asarray(Image.open(noise_image).convert("RGB")).transpose(2, 0, 1)[None]
        url = "/v2/models/seg/infer"
        (output,) = client.post(url, json={"inputs": [tensor(image)]}).json()["outputs"]
        assert (output["name"], output["shape"]) == ("labels", [1, *labels.shape])
        assert output["data"] == labels.flatten().tolist()
        answer = client.post("/explain?region=40,30", content=data).json()
        (region,) = answer["explanations"]
        assert region["class"] == expected.info.class_names[labels[30, 40]]  # type: ignore[attr-defined]
        assert decoded(region["mask"]).shape == tuple(labels.shape)
        wrong = tensor(np.zeros((1, 3, 8, 8)), "normalized", "FP32")
        refused = client.post(url, json={"inputs": [wrong]})
        assert refused.status_code == 400
        assert "the model needs images of pixels" in refused.json()["error"]
        assert str(segmenter.parent) not in json.dumps(
            [found, answer, client.get("/models").json()]
        )


def test_detection(served: "Served", detector: Path, noise_image: Path) -> None:
    data = noise_image.read_bytes()
    (expected,) = api.predict(str(detector), noise_image)
    objects = expected.to_dict()["objects"]
    with served(f"det={detector}") as client:
        found = client.post("/predict?masks=true", content=data).json()["predictions"][0]
        assert found["objects"] == objects
        body = {"name": "images", "datatype": "BYTES", "shape": [1]}
        field = body | {"data": [base64.b64encode(data).decode()]}
        answer = client.post("/v2/models/det/infer", json={"inputs": [field]}).json()
        outputs = {each["name"]: each for each in answer["outputs"]}
        assert list(outputs) == ["boxes", "scores", "labels", "counts"]
        assert outputs["counts"]["data"] == [len(objects)]
        assert outputs["boxes"]["shape"] == [1, len(objects), 4]
        assert outputs["boxes"]["data"][:4] == pytest.approx(objects[0]["box"], abs=0.01)
        explained = client.post("/explain", content=data).json()["explanations"]
        assert explained[0]["class"] == objects[0]["class"]
        assert decoded(explained[0]["map"]).shape == (60, 80)
