"""The numbers in the documents are those of the recorded results."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pacavit.report.publishing.published import published

ROOT = Path(__file__).parents[1]
LoadScript = Callable[[Path], ModuleType]
Recorded = Callable[[str, Any], None]
SIX = ("insertion", "deletion", "difference", "kept", "removed", "ROAD")


@pytest.fixture(scope="module")
def results(load_script: LoadScript) -> ModuleType:
    return load_script(ROOT / "docs" / "result_tables.py")


@pytest.fixture(scope="module")
def tables(results: ModuleType, load_script: LoadScript) -> ModuleType:
    modules = ("bench", "segmentation", "detection", "speed", "study", "training")
    for name in (f"{module}_tables" for module in modules):
        load_script(ROOT / "docs" / f"{name}.py")
    return load_script(ROOT / "docs" / "tables.py")


def pages() -> list[str]:
    found = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    return [path.relative_to(ROOT).as_posix() for path in found]


@pytest.mark.parametrize("page", pages())
def test_tables_are_those_of_the_records(page: str, tables: ModuleType) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert tables.filled(text) == text, "run `make tables`"


def test_every_table_is_in_a_page(tables: ModuleType, results: ModuleType) -> None:
    shown = [name for page in pages() for name in tables.names((ROOT / page).read_text("utf-8"))]
    assert sorted(shown) == sorted(results.TABLES)


def test_a_changed_number_is_replaced(tables: ModuleType, results: ModuleType) -> None:
    page = "a\n\n<!-- table: headline -->\n\n| 0.99 |\n\n<!-- end -->\n\nb\n"
    filled = tables.filled(page)
    assert "0.99" not in filled
    assert results.headline() in filled
    assert filled.startswith("a\n")
    assert filled.endswith("<!-- end -->\n\nb\n")
    with pytest.raises(KeyError, match="nothing"):
        tables.filled(page.replace("headline", "nothing"))


def test_numbers_in_results_stand_in_generated_tables(tables: ModuleType) -> None:
    """Tables by hand are listed here, with what the page says of their record."""
    by_hand = {
        "README.md": ["where"],
        "docs/results/accuracy.md": ["training cells per class"],
    }
    for page in (name for name in pages() if name == "README.md" or "/results/" in name):
        text = tables.MARKED.sub("", (ROOT / page).read_text(encoding="utf-8"))
        first_cells = re.findall(r"^\| *(.*?) *\|.*\n\|---", text, re.MULTILINE)
        assert first_cells == by_hand.get(page, [])
    accuracy = (ROOT / "docs/results/accuracy.md").read_text(encoding="utf-8")
    assert "These runs were not kept\nas a recorded file" in accuracy


RECORDS = {
    "cifar10_cpu": ("accuracy", "precision_macro", "recall_macro", "f1_macro"),
    "camvid": ("mIoU", "pixel_accuracy", "mean_accuracy", "boundary_IoU", "clusters_mIoU"),
}


def test_published_results_are_recorded() -> None:
    """The list in the package has the scores of the recorded runs."""
    scores = [
        (entry["training_minutes"], *(round(entry["test"][name], 4) for name in names))
        for record, names in RECORDS.items()
        for entry in json.loads((ROOT / f"benchmarks/results/{record}.json").read_text("utf-8"))
    ]
    listed = [(entry.minutes, *entry.scores.values()) for entry in published()]
    assert sorted(listed) == sorted(scores)


def sentence(page: str) -> str:
    """The text of a page in one line, without bold."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").replace("**", "").split())


def difference(evaluation: Any, other: str, measure: str) -> list[float]:
    """The mean paired difference of a method to the default one, with its interval."""
    (row,) = (row for row in evaluation["methods"] if row["method"] == other)
    found: list[float] = row["minus cluster_contributions"][measure]
    return found


def test_claims_about_grad_cam(results: ModuleType) -> None:
    """The default map is better in six measures, and Grad-CAM in two, on all six networks."""
    better = {"deletion": -1, "removed": -1, "randomized": -1, "sensitivity": -1}
    for evaluation in results.evaluations().values():
        for measure in (*SIX, "randomized", "sensitivity"):
            ends = difference(evaluation, "grad_cam", measure)[1:]
            signs = [better.get(measure, 1) * end for end in ends]
            assert max(signs) < 0 if measure in SIX else min(signs) > 0
    for page in ("README.md", "docs/index.md", "docs/results/explanations.md"):
        text = sentence(page)
        assert "every measure with all" not in text
        assert re.search(r"(all|the) six measures (of altered images|that alter the image)", text)
        assert "depend more on the weights" in text or "depends more on the weights" in text


def test_claims_about_randomized_weights(results: ModuleType) -> None:
    ranges = {}
    for method in ("cluster_contributions", "relevance"):
        values = [
            results.found(one, method)["randomized"][0] for one in results.evaluations().values()
        ]
        ranges[method] = f"{min(values):.2f} to {max(values):.2f}"
    text = sentence("docs/results/explanations.md")
    assert f"a rank correlation of {ranges['cluster_contributions']} with the map of" in text
    assert f"Relevance, one half of the map, has one of {ranges['relevance']}" in text


def test_claims_about_shapes(results: ModuleType) -> None:
    """Relevance against the default map, and where the difference is significant."""
    shapes = results.shapes()
    significant = {
        measure
        for measure in (*SIX, "pointing")
        if min(ends := difference(shapes, "relevance", measure)[1:]) > 0 or max(ends) < 0
    }
    assert significant == {"deletion", "difference", "kept", "ROAD", "pointing"}
    kept = {
        method: f"{results.found(shapes, method)['kept'][0]:.3f}"
        for method in ("cluster_contributions", "relevance")
    }
    text = sentence("docs/guides/explain.md")
    assert f"{kept['relevance']} against {kept['cluster_contributions']}" in text


def test_claims_about_speed(results: ModuleType) -> None:
    ratios = [row["ratio"][1] for row in results.record("clustering_speed")["rows"]]
    claim = f"{min(ratios):.0f} to {max(ratios):.0f} times as fast as a loop over scikit-learn"
    assert claim in sentence("docs/concepts/clusterings.md")


@pytest.fixture
def recorded(
    results: ModuleType, tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Recorded:
    """Writes a record that stands in place of all others."""
    own = (
        "study_tables",
        "segmentation_tables",
        "detection_tables",
        "bench_tables",
        "speed_tables",
    )
    for module in (results, *(sys.modules[name] for name in own)):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    results.record.cache_clear()

    def write(name: str, content: Any) -> None:
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        results.record.cache_clear()

    return write


@pytest.fixture(autouse=True)
def _no_records_of_other_tests(results: ModuleType) -> Iterator[None]:
    yield
    results.record.cache_clear()


def test_studies_that_nobody_has_run_say_so(results: ModuleType, recorded: Recorded) -> None:
    for name in ("distillation", "seeds-accuracy", "seeds-explanations"):
        assert results.TABLES[name]() == "Not measured yet."
    assert "between seeds was not measured" in results.TABLES["seeds-claim"]()


def test_the_table_of_distillation(results: ModuleType, recorded: Recorded) -> None:
    runs = [
        {
            "kind": kind,
            "epochs": epochs,
            "seed": seed,
            "val_accuracy_by_epoch": [0.5, accuracy - 0.01],
            "test": {"accuracy": accuracy},
            "training_minutes": 10 + seed,
        }
        for kind, epochs, values in (("plain", 8, (0.88, 0.87)), ("distilled", 6, (0.89, 0.885)))
        for seed, accuracy in enumerate(values)
    ]
    recorded("distillation", {"targets": "hard", "runs": runs})
    text = results.TABLES["distillation"]()
    assert (
        "| labels only | 8 | 0, 1 | 0.8700, 0.8600 | 0.8800, 0.8700 | 0.8750 | 10.0, 11.0 |" in text
    )
    assert "| teacher, hard targets | 6 | 0, 1 |" in text
    assert "by +0.0125 on average of 2 seeds (+0.0100, +0.0150: the same sign" in text
    recorded("distillation", {"targets": "hard", "runs": runs[:1]})
    assert "The runs are not complete." in results.TABLES["distillation"]()


def minutes_of(accuracies: list[float], *, tested: bool) -> dict[str, Any]:
    """A record of accuracy per minute: two seeds of one budget."""
    frontier: list[dict[str, Any]] = [
        {"budget": "cifar10_nano:12", "epochs": 12, "minutes": 30.0, "cpu_minutes": 20.0 + seed}
        for seed in range(2)
    ]
    for row, accuracy in zip(frontier, accuracies, strict=True):
        if tested:
            row["test"] = {"accuracy": accuracy, "test_time": {"flip": accuracy + 0.01}}
    return {
        "seeds": [0, 1],
        "val_size_of_tricks": 5000,
        "tricks": [
            {"setting": "base", "epochs": 6, "cpu_minutes": 9.0, "val_accuracy": value}
            for value in (0.87, 0.88)
        ],
        "gains": {"lookahead": {"val_accuracy": 0.881, "cpu_minutes": 9.04, "gain": 0.006}},
        "test_time": [{"none": 0.87, "flip": 0.88}, {"none": 0.88, "flip": 0.884}],
        "chosen": ["lookahead"],
        "frontier": frontier,
    }


def test_the_tables_of_accuracy_per_minute(results: ModuleType, recorded: Recorded) -> None:
    for name in ("tricks", "accuracy-per-minute"):
        assert results.TABLES[name]() == "Not measured yet."
    recorded("accuracy_per_minute", minutes_of([0.9, 0.91], tested=False))
    text = results.TABLES["tricks"]()
    assert "| base, 6 epochs | 9.0 | 0.8750 |  |" in text
    assert "| lookahead | 9.0 | 0.8810 | +0.0060 |" in text
    assert "| `--tta flip`, apart |  | 0.8820 | +0.0070 |" in text
    assert "Means of 2 seeds on 5,000 validation images." in text
    # Until the test, no page has numbers of the frontier.
    assert results.TABLES["accuracy-per-minute"]() == "Not measured yet."
    assert "`cifar10_nano_short`, mlp" in results.headline()
    recorded("accuracy_per_minute", minutes_of([0.9, 0.91], tested=True))
    text = results.TABLES["accuracy-per-minute"]()
    assert "| `cifar10_nano`, 12 epochs | 20.5 | 30.0 | 0.9050 ± 0.0071 | 0.9150 |" in text
    assert "Tricks chosen on validation images: lookahead." in text
    assert results.headline().endswith(
        "| `cifar10_nano`, 12 epochs | 20 | 0.9050 |\n\nMeans of 2 seeds."
    )


def peer(kind: str, accuracies: list[float], note: str = "") -> dict[str, Any]:
    """A network of the study of peers."""
    return {
        "kind": kind,
        "note": note,
        "epochs": 6,
        "parameters": 1_890_000,
        "macs": 107_000_000,
        "cost": {"ratio": 0.8},
        "inference": {"ratio": [1.0, 1.5, 2.0]},
        "runs": [
            {
                "cpu_minutes": 10.0,
                "test": {"accuracy": value, "f1_macro": value - 0.001},
                "explanations": {"refused": "no maps"}
                if kind == "timm"
                else {"relevance": {"difference": 0.3}, "center": {"difference": 0.9}},
                "corrupted": None,
            }
            for value in accuracies
        ],
    }


def test_the_tables_of_peers(results: ModuleType, recorded: Recorded) -> None:
    for name in ("trained-peers", "trained-peers-answer", "elastic"):
        assert results.TABLES[name]() == "Not measured yet."
    networks = {
        "paca, mlp": peer("clusters", [0.88, 0.89]),
        "full": peer("attention", [0.886, 0.886]),
        "Swin": peer("timm", [0.8, 0.81], "windows of 4 x 4"),
        "ResNet": peer("timm", [0.9, 0.9]),
    }
    recorded("trained_peers", {"networks": networks})
    text = results.TABLES["trained-peers"]()
    names = [line.split("|")[1].strip() for line in text.splitlines()[2:6]]
    assert names == ["ResNet (timm)", "`full`", "`paca, mlp`", "Swin (timm)"]
    assert (
        "| `paca, mlp` | 0.8850 ± 0.0071 | 0.8840 |  | 1.89 | 107 | 6 | 10.0 | 1.25 | 1.50 | "
        "`relevance` | 0.300 |" in text
    )
    assert text.endswith("- Swin: windows of 4 x 4.")
    answer = results.TABLES["trained-peers-answer"]()
    assert (
        "(`paca, mlp`, 0.8850) are ahead of the best transformer of timm (Swin, 0.8050)" in answer
    )
    assert "by 0.0800, with every seed" in answer
    assert "clusters change it by -0.0010" in answer
    assert "ResNet reaches 0.9000, more than the best clusters, and" in answer
    del networks["full"]
    recorded("trained_peers", {"networks": networks})
    assert results.TABLES["trained-peers-answer"]() == "Not measured yet."


def test_the_table_of_elastic_clusters(results: ModuleType, recorded: Recorded) -> None:
    runs = [
        {"elastic": True, "clusters": 49, "accuracy": {"1": 0.8, "4": 0.85, "49": 0.86}},
        {"elastic": False, "clusters": 4, "accuracy": {"4": 0.87}},
    ]
    times = {str(number): [1.0, float(number), 60.0] for number in range(1, 50)}
    recorded("elastic", {"runs": runs, "milliseconds": times})
    assert "| 4 | 0.8500 | 0.8700 | 4.0 |" in results.TABLES["elastic"]()


def seeds_of(numbers: dict[str, list[float]]) -> dict[str, Any]:
    """A record of seeds: a number for each clustering and seed, which all scores have."""
    measures = (*SIX, "randomized", "sensitivity")
    names = ("accuracy", "precision_macro", "recall_macro", "f1_macro")

    def spread(values: list[float]) -> list[float | None]:
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return [statistics.mean(values), deviation]

    return {
        "explained_images": 250,
        "clusterings": {
            name: {
                "seeds": list(range(len(values))),
                **{score: spread(values) for score in names},
                "explanations": {
                    "cluster_contributions": {each: spread(values) for each in measures}
                },
            }
            for name, values in numbers.items()
        },
        "runs": [
            {
                "clustering": name,
                "seed": seed,
                "explanations": {"cluster_contributions": {"difference": value}},
            }
            for name, values in numbers.items()
            for seed, value in enumerate(values)
        ],
    }


def test_the_tables_of_seeds(results: ModuleType, recorded: Recorded) -> None:
    recorded("seeds", seeds_of({"kmeans": [0.5, 0.6], "conv": [0.4], "gmm": [0.5, 0.54]}))
    text = results.TABLES["seeds-accuracy"]()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.partition(" |")[0] for row in rows] == ["| `conv`", "| `kmeans`", "| `gmm`"]
    assert "| `conv` | 1 | 0.4000 |" in text
    assert "| `kmeans` | 2 | 0.5500 ± 0.0707 |" in text
    assert "between seeds is 0.0283 to 0.0707; the means of the clusterings differ by up to" in text
    maps = results.TABLES["seeds-explanations"]()
    assert "| `cluster_contributions` | `gmm` | 2 | 0.520 ± 0.028 |" in maps
    assert "class_map" not in maps
    assert maps.endswith("Measured on the same 250 test images for all networks.")
    claim = results.TABLES["seeds-claim"]()
    assert "a standard deviation of 0.028 to 0.071 in the difference" in claim
    assert "of every network" not in claim
    recorded("seeds", seeds_of({"kmeans": [0.5]}))
    assert "between seeds was not measured" in results.TABLES["seeds-claim"]()


@pytest.mark.parametrize(("learned", "words"), [(0.4, "was larger than"), (0.55, "not always")])
def test_the_claim_about_groups(
    results: ModuleType, recorded: Recorded, learned: float, words: str
) -> None:
    classic = {name: [0.5, 0.6] for name in ("kmeans", "gmm", "hierarchical")}
    recorded("seeds", seeds_of({**classic, "conv": [0.3, 0.31], "mlp": [0.3, learned]}))
    assert words in results.TABLES["seeds-claim"]()


def camvid_run(change: str, miou: float, seed: int = 0, **facts: Any) -> dict[str, Any]:
    test = {"mIoU": miou, "pixel_accuracy": 0.9, "boundary_IoU": 0.4, "clusters_mIoU": miou - 0.01}
    per_class = [{"name": "sky", "iou": miou}, {"name": "pole", "iou": None}]
    command = f"pacavit train {change} --data ROOT --out DIR"
    return {
        "commands": [command, "pacavit evaluate DIR"],
        "seed": seed,
        "parameters": 2_170_000,
        "macs": 5.7e9,
        "training_minutes": 88.4,
        "test": {**test, "per_class": per_class},
        **facts,
    }


def test_the_tables_of_segmentation(results: ModuleType, recorded: Recorded) -> None:
    names = ("camvid", "camvid-classes", "camvid-starts", "camvid-clusterings")
    for name in (*names, "segmentation-speed"):
        assert results.TABLES[name]() == "Not measured yet."
    short = "camvid_nano_short"
    runs = [
        camvid_run("camvid_nano_paca", 0.57),
        camvid_run("camvid_nano_paca --set model.name=resnet18", 0.5, seed=1),
        *(camvid_run(short, 0.4 + seed / 100, seed) for seed in range(3)),
        camvid_run(f"{short} --set model.init=null", 0.3),
        camvid_run(f"{short} --set model.clustering=kmeans", 0.41),
    ]
    recorded("camvid", runs)
    tables = [results.TABLES[name]() for name in names]
    assert "| nano, PaCa head | 2.17 | 5.70 | 88 | 0.5700 | 0.9000 | 0.4000 | 0.5600 |" in tables[0]
    assert "| ResNet-18 from random weights, PaCa head, seed 1 |" in tables[0]
    assert "| sky | 0.570 | 0.500 |" in tables[1]
    assert "| pole |  |  |" in tables[1]
    assert "| CIFAR-10 weights | 3 | 0.4100 | 0.0100 |" in tables[2]
    assert "| random weights | 1 | 0.3000 |  |" in tables[2]
    assert "| `kmeans` | 1 | 0.4100 |  |" in tables[3]
    row = {
        "network": "camvid_nano_paca",
        "kind": "inference",
        "precision": "fp32",
        "batch_size": 1,
        "images_per_second": [9.0, 10.0, 11.0],
        "ratio": [1.1, 1.2, 1.3],
    }
    recorded("segmentation_speed", {"rows": [row]})
    assert "| 1 | 10.0 | 1.20 (1.10 to 1.30) |" in results.TABLES["segmentation-speed"]()


def detection_run(change: str, seed: int = 0, **scores: Any) -> dict[str, Any]:
    return {
        "commands": [f"pacavit train {change} --data ROOT --out DIR", "pacavit evaluate DIR"],
        "seed": seed,
        "parameters": 2_940_000,
        "training_minutes": 71.6,
        "test": {**scores, "per_class": [{"name": "RBC", "AP50": 0.8}]},
    }


def test_the_tables_of_detection(results: ModuleType, recorded: Recorded) -> None:
    names = ("bccd", "bccd-classes", "nuclei", "touching", "detection-starts", "detection-speed")
    for name in (*names, "feature-growth", "feature-growth-kinds"):
        assert results.TABLES[name]() == "Not measured yet."
    scores: dict[str, Any] = {"box_AP": 0.5, "box_AP50": 0.85, "box_AP75": 0.55, "box_AR_100": 0.6}
    peer = "bccd_nano --set task.detector=torchvision_faster_rcnn"
    short = "bccd_nano_short --set model.init=null"
    recorded(
        "bccd",
        [
            detection_run("bccd_nano", **scores),
            detection_run(peer, 1, **scores),
            *(detection_run(short, seed, box_AP50=0.6 + seed / 10) for seed in range(2)),
        ],
    )
    row = "| nano, light Faster R-CNN | 2.94 | 72 | 0.500 | 0.850 | 0.550 | 0.600 |"
    assert row in results.TABLES["bccd"]()
    assert "torchvision's Faster R-CNN, MobileNetV3, seed 1 |" in results.TABLES["bccd"]()
    assert "| RBC | 0.800 | 0.800 |" in results.TABLES["bccd-classes"]()
    assert "| bccd | random weights | 2 | 0.650 | 0.071 |" in results.TABLES["detection-starts"]()
    scores = {"mask_AP50": 0.7, "mask_AP50_300": 0.71, "mask_AP": 0.4, "box_AP50": 0.72}
    recorded("nuclei", [detection_run("nuclei_nano_watershed", **scores)])
    row = "clusters | 2.94 | 72 | 0.700 | 0.710 | 0.400 | 0.720 |"
    assert row in results.TABLES["nuclei"]()
    counts = {
        "command": "pacavit train nuclei_nano --data ROOT",
        "touching": 1200,
        "others": 1050,
        "recall_touching": 0.7,
        "recall_others": 0.8,
        "precision": 0.75,
    }
    recorded("touching_objects", {"runs": [counts]})
    found = results.TABLES["touching"]()
    assert "recall of 1,200 that touch" in found
    assert "| nano, light Mask R-CNN | 0.700 | 0.800 | 0.750 |" in found
    size = {"milliseconds": [9, 10, 11], "peak_mebibytes": 20.4, "macs_of_a_pixel": 1.0}
    sizes = [
        {**size, "time_of_a_pixel": [1.0, 1.0, 1.0]},
        {**size, "time_of_a_pixel": [0.9, 1.04, 1.1], "macs_of_a_pixel": 1.25},
    ]
    kinds = {"pacavit_small": {"224": {"norms": 3.2}, "1024": {"norms": 4.4}}}
    growth = {
        "sizes": [224, 1024],
        "backbones": {"resnet50": sizes},
        "nanoseconds_per_pixel_by_kind": kinds,
    }
    recorded("feature_growth", growth)
    row = "| resnet50 | 10 | 10 | 1.04 (0.90 to 1.10) | 1.25 | 20 | 20 |"
    assert row in results.TABLES["feature-growth"]()
    assert "| pacavit_small | norms | 3 | 4 |" in results.TABLES["feature-growth-kinds"]()


def test_the_table_of_exported_files(results: ModuleType, recorded: Recorded) -> None:
    assert results.TABLES["exported"]() == "Not measured yet."
    engine = {"bytes": 7613835, "metric": "accuracy", "score": 0.9012, "images": 10000}
    speed = {"images_per_second": [390, 401.2, 420], "ratio": [1.8, 1.904, 2]}
    row = {
        "engines": {"ONNX Runtime": engine, "OpenVINO": {"refused": "it differs"}},
        "speed": {"1": {"ONNX Runtime": speed}, "16": {"ONNX Runtime": speed}},
    }
    recorded("exported", {"settings": {"batches": [1, 16]}, "models": {"nano": row}})
    text = results.TABLES["exported"]()
    assert "| `nano` | ONNX Runtime | 7.6 | 0.9012 | 401 (1.90) | 401 (1.90) |" in text
    assert "| `nano` | OpenVINO | - | - | - | - |" in text


def test_the_tables_of_the_server(results: ModuleType, recorded: Recorded) -> None:
    for name in ("serving-speed", "serving-trials"):
        assert results.TABLES[name]() == "Not measured yet."
    speed = {
        "images": 16,
        "ratio": [0.81, 0.85, 0.9],
        "images_per_second": [1000, 1100.4, 1200],
        "p50_ms": 12.3,
        "p99_ms": 45.6,
    }
    row = {
        "model": "nano",
        "speed": [speed],
        "mixed": {
            "statuses": {"200": 950, "400": 50},
            "malformed": 50,
            "malformed_answered_with_4xx": 50,
            "largest_difference": 2e-7,
        },
        "half_sent": {
            "clients": 100,
            "statuses": {"200": 1000},
            "before": {"p99_ms": 45.6},
            "during": {"p99_ms": 47.1},
        },
        "memory": {"requests": 10000, "before_mb": 900, "after_mb": 910},
        "killed": {
            "statuses": {"200": 984, "lost": 16},
            "in_flight": 32,
            "statuses_later": {"200": 32},
        },
    }
    recorded("serving", {"rows": [row]})
    assert "| `nano` | 16 | 1,100 | 0.85 (0.81 to 0.90) | 12 | 46 |" in (
        results.TABLES["serving-speed"]()
    )
    text = results.TABLES["serving-trials"]()
    assert "950 x 200, 50 x 400; 50 of 50 malformed ones got a 4xx; largest difference to " in text
    assert "| 100 half-sent bodies | 1,000 x 200; 99th percentile 47 ms, 46 ms without" in text
    assert "984 x 200, 16 x lost, with 32 in flight; afterwards 32 x 200 |" in text
