"""Every verb hands its words to the function of the same name, and prints what it answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from pacavit import api
from pacavit.api import PredictionFile
from pacavit.engine.weights.original import Conversion
from pacavit.report.explanation.page import ExplainedImage
from pacavit.tasks.classification import ClassProbability, ImagePrediction
from pacavit_cli.main import main


class Recorder:
    """Stands in for a function of the API and remembers how it was called."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.arguments: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.arguments, self.options = arguments, options
        return self.answer


def test_train_passes_everything_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = Recorder(Path("runs/a"))
    monkeypatch.setattr(api, "train", train)
    words = ["train", "digits", "--out", "runs/a", "--data", "root", "--overwrite"]
    assert main([*words, "--set", "train.epochs=1", "--set", "train.seed=3"]) == 0
    assert train.arguments == ("digits", Path("runs/a"))
    assert train.options == {
        "data": Path("root"),
        "set": ["train.epochs=1", "train.seed=3"],
        "resume": False,
        "overwrite": True,
        "progress": True,
    }
    # The engine says all else.
    assert capsys.readouterr().out == "training digits into runs/a: loading the libraries\n"


def predictions() -> list[ImagePrediction]:
    top = (ClassProbability("cat", 0.75), ClassProbability("dog [red]", 0.25))
    broken = ImagePrediction(Path("b.png"), (), "b.png is not an image")
    return [ImagePrediction(Path("a.png"), top), broken]


def test_predict_prints_the_good_and_names_the_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict = Recorder(predictions())
    monkeypatch.setattr(api, "predict", predict)
    assert main(["predict", "model", "a.png", "b.png"]) == 2
    assert predict.arguments == ("model", [Path("a.png"), Path("b.png")])
    captured = capsys.readouterr()
    assert "75.00%  cat" in captured.out
    assert "dog [red]" in captured.out
    assert captured.err == "error: b.png is not an image\n"


def test_predict_passes_everything_on_and_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict = Recorder(PredictionFile(Path("p-00001-of-00004.csv"), 1, 0, ()))
    monkeypatch.setattr(api, "predict_to_file", predict)
    words = ["predict", "model", "a.png", "--top-k", "2", "--out", "p.csv", "--overwrite"]
    words += ["--tta", "flip", "--ensemble", "other", "--ensemble", "third"]
    words += ["--score", "0.3", "--num-workers", "3", "--shard", "1/4", "--precision", "auto"]
    assert main([*words, "--device", "cpu", "--batch-size", "64"]) == 0
    assert predict.arguments == (["model", "other", "third"], [Path("a.png")], Path("p.csv"))
    assert predict.options == {
        "top_k": 2,
        "overwrite": True,
        "device": "cpu",
        "batch_size": 64,
        "tta": "flip",
        "precision": "auto",
        "score": 0.3,
        "num_workers": 3,
        "shard": "1/4",
        "progress": True,
    }
    assert capsys.readouterr().out == "wrote p-00001-of-00004.csv: 1 image\n"


def test_predict_counts_the_images_that_it_could_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = ("b.png is not an image",)
    monkeypatch.setattr(
        api, "predict_to_file", Recorder(PredictionFile(Path("p.csv"), 1, 1, errors))
    )
    assert main(["predict", "model", "a.png", "b.png", "--out", "p.csv"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "wrote p.csv: 1 image\n"
    assert captured.err == "error: b.png is not an image\n"
    many = PredictionFile(Path("p.csv"), 8, 1_002, errors)
    monkeypatch.setattr(api, "predict_to_file", Recorder(many))
    assert main(["predict", "model", "all", "--out", "p.csv"]) == 2
    assert capsys.readouterr().err.endswith("and 1,001 more errors, in the column 'error'\n")


def test_a_shard_is_for_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--json", "--out", "p.csv"]):
        assert main(["predict", "model", "a.png", "--shard", "0/2", *words]) == 2
        assert "--shard is for predictions in a file" in capsys.readouterr().err


def test_predict_json_is_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "predict", Recorder(predictions()))
    assert main(["predict", "model", "a.png", "b.png", "--json"]) == 2
    records = json.loads(capsys.readouterr().out)
    assert [record["path"] for record in records] == ["a.png", "b.png"]
    assert records[0]["top"][0] == {"class": "cat", "probability": 0.75}
    assert records[0]["error"] is None
    assert records[1] == {"path": "b.png", "top": [], "error": "b.png is not an image"}


def test_explain_passes_everything_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    numbers = {
        "path": "a.png",
        "explained": {"class": "cat", "probability": 0.5},
        "note": "not measured.",
        "measure": ["pacavit", "explain-evaluate", "a b"],
    }
    good = ExplainedImage(Path("a.png"), tmp_path / "a", numbers, line="cat 50.0%")
    broken = ExplainedImage(Path("b.png"), None, {"error": "b.png is broken"}, "b.png is broken")
    explain = Recorder([good, broken])
    monkeypatch.setattr(api, "explain", explain)
    words = ["explain", "model", "a.png", "b.png", "--out", "why", "--class", "cat"]
    assert (
        main([*words, "--stage", "1", "--method", "edges", "--measured", "m", "--overwrite"]) == 2
    )
    assert explain.arguments == ("model", [Path("a.png"), Path("b.png")], Path("why"))
    assert explain.options == {
        "label": "cat",
        "stage": 1,
        "method": "edges",
        "measured": Path("m"),
        "region": None,
        "mask": None,
        "box": None,
        "overwrite": True,
        "progress": True,
    }
    captured = capsys.readouterr()
    image, note, _ = captured.out.splitlines()
    assert image.startswith("a.png: cat 50.0%, in ")
    assert note == "not measured. Measure it: pacavit explain-evaluate 'a b'"
    assert captured.err == "error: b.png is broken\n"
    assert main([*words, "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == [good.numbers, broken.numbers]


def test_demo_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = Recorder(None)
    monkeypatch.setattr(api, "demo", demo)
    assert main(["demo", "runs/a", "b.safetensors", "--port", "0", "--no-browser"]) == 0
    assert demo.arguments == (["runs/a", "b.safetensors"],)
    assert demo.options == {"host": "127.0.0.1", "port": 0, "browser": False}
    assert main(["demo", "--host", "0.0.0.0"]) == 0
    assert demo.options == {"host": "0.0.0.0", "port": 7860, "browser": True}


def test_convert_passes_everything_on_and_reports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "pacavit_tiny_p2cconv_100_0"
    convert = Recorder(Conversion(Path("b.x"), name, "pacavit_tiny", {}, ("c",), ("d",), ("e",)))
    monkeypatch.setattr(api, "convert", convert)
    assert main(["convert", "a.pth", "b.safetensors", "--model", name, "--overwrite"]) == 0
    assert convert.arguments == ("a.pth", Path("b.safetensors"))
    assert convert.options == {"model": name, "overwrite": True}
    assert f"model: {name}, here pacavit_tiny" in capsys.readouterr().out


def test_list_aligns_names_and_summaries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [api.Entry("conv", "Convolutional."), api.Entry("mlp", "")]
    monkeypatch.setattr(api, "list_names", Recorder(entries))
    assert main(["list", "clusterings"]) == 0
    assert capsys.readouterr().out == "conv  Convolutional.\nmlp\n"
