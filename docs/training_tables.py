"""The tables on accuracy per minute, peers trained here, and elastic clusters.

Studies that take hours are recorded when somebody has run them; until then a line stands in place
of the table.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from result_tables import budgets, is_recorded, named_table, record

from pacavit.report.markdown import table

UNMEASURED = "Not measured yet."
TRANSFORMERS = ("DeiT", "PVTv2", "Swin")  # of the networks of timm


def _mean(values: Sequence[float], digits: int = 4) -> str:
    return f"{statistics.mean(values):.{digits}f}"


def _spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation if there are several values."""
    text = _mean(values)
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.4f}"


@named_table("tricks")
def tricks() -> str:
    """What each trick gives in equal time, on validation images."""
    if not is_recorded("accuracy_per_minute"):
        return UNMEASURED
    found = record("accuracy_per_minute")
    base = [row for row in found["tricks"] if row["setting"] == "base"]
    rows = []
    for epochs in sorted({row["epochs"] for row in base}):
        own = [row for row in base if row["epochs"] == epochs]
        minutes = [row["cpu_minutes"] for row in own]
        accuracies = [row["val_accuracy"] for row in own]
        rows.append([f"base, {epochs} epochs", _mean(minutes, 1), _mean(accuracies), ""])
    for name, one in found["gains"].items():
        gain, accuracy = f"{one['gain']:+.4f}", f"{one['val_accuracy']:.4f}"
        rows.append([name, f"{one['cpu_minutes']:.1f}", accuracy, gain])
    plain = statistics.mean(row["none"] for row in found["test_time"])
    for view in [name for name in found["test_time"][0] if name != "none"]:
        mean = statistics.mean(row[view] for row in found["test_time"])
        rows.append([f"`--tta {view}`, apart", "", f"{mean:.4f}", f"{mean - plain:+.4f}"])
    header = ["setting", "minutes", "validation accuracy", "gain in equal time"]
    return (
        f"{table(header, rows)}\n\nMeans of {len(found['seeds'])} seeds on "
        f"{found['val_size_of_tricks']:,} validation images."
    )


@named_table("accuracy-per-minute")
def accuracy_per_minute() -> str:
    """The frontier of accuracy over minutes, with its curve."""
    rows = []
    for budget, own in budgets().items():
        plain = [row["test"]["accuracy"] for row in own]
        views = [row["test"]["test_time"]["flip"] for row in own]
        rows.append(
            [
                f"`{budget.replace(':', '`, ')} epochs",
                _mean([row["cpu_minutes"] for row in own], 1),
                _mean([row["minutes"] for row in own], 1),
                _spread(plain),
                _mean(views),
            ]
        )
    if not rows:
        return UNMEASURED
    found = record("accuracy_per_minute")
    chosen = ", ".join(found["chosen"]) or "none"
    header = ["recipe", "CPU minutes", "minutes by the clock", "accuracy", "with `--tta flip`"]
    return (
        f"{table(header, rows)}\n\nMeans and standard deviations of {len(found['seeds'])} seeds, "
        f"each measured once on the test images. Tricks chosen on validation images: {chosen}.\n\n"
        "![Test accuracy over minutes of training](../pictures/accuracy_per_minute.png)"
    )


def _measured() -> dict[str, Any]:
    """The networks of the study of peers whose test accuracy is known."""
    if not is_recorded("trained_peers"):
        return {}
    networks = record("trained_peers")["networks"]
    return {
        name: network
        for name, network in networks.items()
        if all("test" in run for run in network["runs"])
    }


def _accuracies(network: Any) -> list[float]:
    return [run["test"]["accuracy"] for run in network["runs"]]


def _faithful(network: Any) -> tuple[str, str]:
    """The map with the largest difference of insertion and deletion, and that difference."""
    known = [run["explanations"] for run in network["runs"]]
    if any("refused" in one for one in known):
        return "", ""
    means = {
        method: statistics.mean(one[method]["difference"] for one in known)
        for method in known[0]
        if method not in ("center", "edges", "random")
    }
    best = max(means, key=lambda method: means[method])
    return f"`{best}`", f"{means[best]:.3f}"


@named_table("trained-peers")
def trained_peers() -> str:
    """All networks of the study, the most accurate first."""
    networks = _measured()
    if not networks:
        return UNMEASURED
    rows = []
    ordered = sorted(networks.items(), key=lambda item: -statistics.mean(_accuracies(item[1])))
    for name, one in ordered:
        corrupted = [run["corrupted"] for run in one["runs"]]
        robust = "" if None in corrupted else _mean([each["accuracy"] for each in corrupted])
        rows.append(
            [
                f"`{name}`" if one["kind"] != "timm" else f"{name} (timm)",
                _spread(_accuracies(one)),
                _mean([run["test"]["f1_macro"] for run in one["runs"]]),
                robust,
                f"{one['parameters'] / 1e6:.2f}",
                f"{one['macs'] / 1e6:.0f}",
                str(one["epochs"]),
                _mean([run["cpu_minutes"] for run in one["runs"]], 1),
                f"{1 / one['cost']['ratio']:.2f}",
                f"{one['inference']['ratio'][1]:.2f}",
                *_faithful(one),
            ]
        )
    header = [
        "",
        "accuracy",
        "F1",
        "corrupted",
        "parameters (M)",
        "MACs (M)",
        "epochs",
        "minutes",
        "training speed",
        "inference speed",
        "best map",
        "its difference",
    ]
    notes = [f"- {name}: {one['note']}." for name, one in networks.items() if one["note"]]
    return "\n\n".join([table(header, rows), "\n".join(notes)]).strip()


@named_table("trained-peers-answer")
def trained_peers_answer() -> str:
    """When clusters are the right choice, in three sentences."""
    networks = _measured()
    means = {name: statistics.mean(_accuracies(one)) for name, one in networks.items()}
    clusters = {name: means[name] for name in means if networks[name]["kind"] == "clusters"}
    transformers = {name: means[name] for name in TRANSFORMERS if name in means}
    if not clusters or not transformers or not {"full", "ResNet"} <= means.keys():
        return UNMEASURED
    best = max(clusters, key=lambda name: clusters[name])
    rival = max(transformers, key=lambda name: transformers[name])
    pairs = zip(_accuracies(networks[best]), _accuracies(networks[rival]), strict=False)
    signs = {first > second for first, second in pairs}
    agreed = "with every seed" if len(signs) == 1 else "on average, not with every seed"
    lead, full = means[best] - means[rival], means[best] - means["full"]
    speed = networks["full"]["cost"]["ratio"] / networks[best]["cost"]["ratio"]
    ahead = "more" if means["ResNet"] > means[best] else "less"
    return (
        f"In equal minutes, the best clusters (`{best}`, {means[best]:.4f}) are "
        f"{'ahead of' if lead > 0 else 'behind'} the best transformer of timm ({rival}, "
        f"{means[rival]:.4f}) by {abs(lead):.4f}, {agreed}. With full attention in the same body "
        f"the accuracy is {means['full']:.4f}: clusters change it by {full:+.4f}, and a training "
        f"step with them is {speed:.2f} times as fast. ResNet reaches {means['ResNet']:.4f}, "
        f"{ahead} than the best clusters, and has no clusters to look at."
    )


@named_table("elastic")
def elastic() -> str:
    """One elastic network against networks trained for each number of clusters."""
    if not is_recorded("elastic"):
        return UNMEASURED
    found = record("elastic")
    one = [run for run in found["runs"] if run["elastic"]]
    each = [run for run in found["runs"] if not run["elastic"]]
    rows = []
    for number in sorted({run["clusters"] for run in each}):
        own = [run["accuracy"][str(number)] for run in each if run["clusters"] == number]
        shared = [run["accuracy"][str(number)] for run in one]
        milliseconds = found["milliseconds"][str(number)][1]
        rows.append([str(number), _spread(shared), _spread(own), f"{milliseconds:.1f}"])
    header = ["clusters M", "one elastic network", "trained for M", "milliseconds of a batch"]
    return (
        f"{table(header, rows)}\n\n"
        "![Accuracy and time over the number of clusters](../pictures/elastic.png)"
    )
