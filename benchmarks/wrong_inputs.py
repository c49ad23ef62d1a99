"""Run commands with several hundred wrong files and settings, and count the outcomes.

::

    python benchmarks/wrong_inputs.py --seed 0 --rounds 20

Files are truncated, bits flipped and values exchanged, reproducibly at random; some are
handwritten. Each command runs in a forked process with a time limit, and a limit on memory beyond
that at its start. Any outcome but success, or one line on stderr and exit code 2, is a failure. The
counts are written to ``benchmarks/results/wrong_inputs.json``. Exits with 1 if there is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pacavit import recipes
from pacavit.engine import train
from pacavit.engine.run.environment import environment
from pacavit.engine.weights import checkpoint
from pacavit.engine.weights.hub import from_pretrained, save_pretrained
from pacavit.errors import PacavitError
from pacavit_cli.main import main as command

RESULTS = Path(__file__).parent / "results" / "wrong_inputs.json"
SECONDS, MEMORY = 60, 2 * 2**30
SETTINGS = (
    "train.epochs=2",
    "train.batch_size=256",
    "train.device=cpu",
    "task.image_size=16",
    "model.options.embed_dims=[16,16,32]",
    "model.options.num_heads=[2,2,2]",
    "model.options.stem_dims=[8,16]",
)
STRANGE: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**5,
    10**9,
    10**12,
    10**30,
    -(10**12),
    1e308,
    float("nan"),
    "",
    "x",
    "a\0b",
    "\ud800",
    "x" * 10_000,
    [],
    [[]],
    [0] * 5000,
    {},
    {"a": {"b": 1}},
]


@dataclass(frozen=True)
class Trial:
    """A wrong input, and what to do with it."""

    group: str
    what: str
    words: tuple[str, ...] = ()
    folder: Path | None = None

    def run(self) -> int:
        """The exit code of the command; for a folder, that of the command line for its errors."""
        if self.folder is None:
            return command(self.words)
        try:
            from_pretrained(self.folder)
        except PacavitError as error:
            print("error:", error, file=sys.stderr)  # noqa: T201
            return 2
        return 0


def main() -> int:
    """Read the command line, make the inputs, try them, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=20, help="random inputs of each kind")
    parser.add_argument("--only", default="", help="the groups whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        maker = Maker(Path(name), random.Random(arguments.seed), arguments.rounds)
        counts: dict[str, Counter[str]] = {}
        failures = []
        for trial in maker.trials():
            if arguments.only not in trial.group:
                continue
            outcome, text = attempt(trial)
            counts.setdefault(trial.group, Counter())[outcome] += 1
            if outcome not in ("one line", "works"):
                failures.append({"group": trial.group, "what": trial.what, "outcome": outcome})
                print(trial.group, trial.what, outcome, text[-1500:], flush=True)  # noqa: T201
    total = sum(counts.values(), Counter())
    print(json.dumps(counts, indent=1), dict(total))  # noqa: T201
    if not arguments.only:
        result = {
            "command": f"python benchmarks/wrong_inputs.py --seed {arguments.seed} "
            f"--rounds {arguments.rounds}",
            "seconds_limit": SECONDS,
            "memory_limit_bytes": MEMORY,
            "inputs": total.total(),
            "outcomes": total,
            "groups": counts,
            "failures": failures,
            "seconds": round(time.perf_counter() - start),
            "environment": environment(torch.device("cpu")),
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 1 if failures else 0


def attempt(trial: Trial) -> tuple[str, str]:
    """How a trial ends in a process of its own, and what it printed on standard error."""
    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                _child(trial, errors)
            os._exit(99)
        deadline = time.monotonic() + SECONDS
        status = None
        while status is None and time.monotonic() < deadline:
            ended, code = os.waitpid(child, os.WNOHANG)
            status = code if ended else time.sleep(0.005)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        errors.seek(0)
        text = errors.read()
    if status is None:
        return "hang", text
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}", text
    code = os.WEXITSTATUS(status)
    if code == 0:
        return "works", text
    if code == 2 and text.startswith("error: ") and text.count("\n") == 1:
        return "one line", text
    if "MemoryError" in text or "allocate memory" in text:
        return "memory", text
    return ("traceback" if "Traceback" in text else f"exit code {code}"), text


def _child(trial: Trial, errors: io.TextIOBase) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.stderr = errors
    try:
        code = trial.run()
    except BaseException:
        traceback.print_exc(file=errors)
        code = 98
    errors.flush()
    os._exit(code)


class Maker:
    """Makes wrong inputs, from a run of a small network on the handwritten digits."""

    def __init__(self, folder: Path, draw: random.Random, rounds: int) -> None:
        self.folder, self.draw, self.rounds, self.number = folder, draw, rounds, 0
        self.run = folder / "run"
        train(recipes.load("digits", SETTINGS), self.run, progress=False)
        shutil.rmtree(self.run / "tensorboard")
        self.stopped = folder / "stopped"
        shutil.copytree(self.run, self.stopped)
        (self.stopped / "weights.safetensors").unlink()
        self.image = folder / "image.png"
        Image.effect_noise((40, 30), 90).save(self.image)
        self.weights = self.run / "weights.safetensors"
        self.recipe = json.loads((self.run / "recipe.json").read_text())
        with safe_open(self.weights, "pt") as file:
            self.description = json.loads(file.metadata()["pacavit"])
        self.tensors = load_file(self.weights)
        model = recipes.load("digits", SETTINGS).model
        self.hub = save_pretrained(_network(model.options), folder / "hub", "")
        self.config = json.loads((self.hub / "config.json").read_text())

    def trials(self) -> Iterator[Trial]:
        """All of them, one group after the other; a file is made just before it is tried."""
        yield from self._recipe_files()
        yield from self._settings()
        yield from self._weights_files()
        yield from self._descriptions()
        yield from self._checkpoints()
        yield from self._hub_folders()
        yield from self._images()

    def _recipe_files(self) -> Iterator[Trial]:
        def trial(what: str, path: Path) -> Trial:
            return Trial("recipe files", what, self._train(str(path)))

        deep = 100_000
        texts = {
            "nested TOML": "a = " + "[" * deep + "]" * deep,
            "nested tables": "a = " + "{a=" * deep + "1" + "}" * deep,
            "dotted key": ".".join("a" * deep) + " = 1",
            "dotted table": "[" + ".".join("a" * deep) + "]",
            "long integer": "a = " + "9" * 5000,
            "hexadecimal integer": "a = 0x" + "f" * 5000,
            "empty": "",
            "zeros": "\0" * 1000,
            "large": "# x\n" * 2**20,
        }
        for what, text in texts.items():
            yield trial(what, self._write(text.encode(), ".toml"))
        for what, text in {
            "nested JSON": '{"a":' * deep + "1" + "}" * deep,
            "nested list": "[" * deep + "]" * deep,
            "long JSON integer": '{"name": ' + "9" * 5000 + "}",
            "no table": "[1]",
        }.items():
            yield trial(what, self._write(text.encode(), ".json"))
        pipe = self.folder / "pipe.toml"
        os.mkfifo(pipe)
        for path in (pipe, Path("/dev/zero"), Path("/dev/null"), self.folder):
            yield trial(f"the path {path.name}", path)
        for number in range(1500):
            (self.folder / f"chain{number}.toml").write_text(f'extends = "chain{number + 1}.toml"')
        yield trial("chain of 1500 extends", self.folder / "chain0.toml")
        good = json.dumps(self.recipe).encode()
        for number in range(self.rounds):
            yield trial(f"damaged {number}", self._write(self._damage(good), ".json"))
            changed, what = self._exchange(self.recipe)
            yield trial(what, self._write(json.dumps(changed).encode(), ".json"))

    def _settings(self) -> Iterator[Trial]:
        fields = [
            field
            for field, _ in recipes.flatten(self.recipe)
            if field not in ("name", "description", "data.root", "train.device")
        ]
        values = [
            "-1", "0", "1e308", "nan", "inf", "99999999999999", "100000", "''", "[]", "[[1]]",
            "{a=1}", "x", "1979-05-27", "9" * 5000, "[" * 5000, "true", "\0", "[0,0,0]",
            "[1e9,1,1]",
        ]  # fmt: skip
        options = ["embed_dims", "depths", "num_heads", "mlp_ratios", "stem_dims", "in_chans"]
        options += ["pretrained", "pruned", "features_only", "img_size", "transition_convs"]
        fields += [f"model.options.{option}" for option in options]
        fields += ["data.options.size", "train.optimizer_options.betas", ".".join("a" * 5000), ""]
        for _ in range(8 * self.rounds):
            setting = f"{self.draw.choice(fields)}={self.draw.choice(values)}"
            words = self._train(str(self.run / "recipe.json"), setting)
            yield Trial("settings", setting[:80], words)

    def _weights_files(self) -> Iterator[Trial]:
        good = self.weights.read_bytes()
        for number in range(2 * self.rounds):
            head = self.draw.random() < 0.5  # the header is a small part of the file
            data = self._damage(good[:9000]) + good[9000:] if head else self._damage(good)
            yield self._predict("weights files", f"damaged {number}", self._write(data))
        for what, header in {
            "endless header": (2**62).to_bytes(8, "little") + b"{}",
            "nested header": _safetensors("[" * 100_000),
            "long integer": _safetensors('{"a":{"dtype":"F32","shape":[' + "9" * 5000 + "]}}"),
            "huge shape": _safetensors(
                '{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}'
            ),
            "nothing": b"",
        }.items():
            yield self._predict("weights files", what, self._write(header))

    def _descriptions(self) -> Iterator[Trial]:
        group = "descriptions in weights"

        def trial(what: str, text: str, tensors: Any = None) -> Trial:
            path = self._name()
            save_file(tensors or self.tensors, path, {"pacavit": text})
            return self._predict(group, what, path)

        for what, text in {
            "nested": "[" * 100_000,
            "nested table": '{"a":' * 50_000 + "1" + "}" * 50_000,
            "long integer": '{"version": ' + "9" * 5000 + "}",
            "no JSON": "{",
        }.items():
            yield trial(what, text)
        for field in ("recipe.task.image_size", "data.image_size", "recipe.model.num_clusters"):
            for value in (10**5, 10**9, 10**12, 0, -1):
                wanted = [value, value] if field == "data.image_size" else value
                yield trial(f"{field} {value}", json.dumps(self._set(field, wanted)))
        for option in ("embed_dims", "depths", "num_heads", "stem_dims", "mlp_ratios"):
            for size in (0, -1, 1000, 10**5, 2**20, 10**9):
                field = f"recipe.model.options.{option}"
                yield trial(f"{field} {size}", json.dumps(self._set(field, [size] * 3)))
        for classes in (0, 1, 11, 10**5):
            names = [str(index) for index in range(classes)]
            text = json.dumps(self._set("data.class_names", names))
            yield trial(f"{classes} classes", text)
        for name in ("vit_giant_patch14_224", "resnet18", "swin_tiny_patch4_window7_224"):
            changed = self._set("recipe.model", {"name": name})
            yield trial(name, json.dumps(changed))
        for _ in range(4 * self.rounds):
            changed, what = self._exchange(self.description)
            yield trial(what, json.dumps(changed))
        for name in self.draw.sample(list(self.tensors), min(self.rounds, len(self.tensors))):
            tensors = {**self.tensors, name: torch.zeros(3, 3)}
            yield trial(f"shape of {name}", json.dumps(self.description), tensors)

    def _checkpoints(self) -> Iterator[Trial]:
        names = sorted(path.name for path in next((self.run / "checkpoints").iterdir()).iterdir())
        damages: list[tuple[str, Callable[[bytes], bytes]]] = [
            ("damaged", self._damage),
            ("empty", lambda _: b""),
            ("{}", lambda _: b"{}"),
            ("nested", lambda _: b"[" * 100_000),
        ]
        for name in names:
            for what, damage in damages:
                for only_one in (True, False):
                    out = self._name("")
                    shutil.copytree(self.stopped, out)
                    newest = checkpoint.newest(out / "checkpoints")
                    assert newest is not None
                    path = newest / name
                    if only_one:  # else there is an earlier one to go on from
                        for other in (out / "checkpoints").iterdir():
                            if other != path.parent:
                                shutil.rmtree(other)
                    path.write_bytes(damage(path.read_bytes()))
                    recipe = str(out / "recipe.json")
                    words = ("train", recipe, "--out", str(out), "--resume")
                    yield Trial("checkpoints", f"{name} {what}", words)

    def _hub_folders(self) -> Iterator[Trial]:
        def trial(what: str, config: Any) -> Trial:
            folder = self._name("")
            folder.mkdir()
            text = config if isinstance(config, str) else json.dumps(config)
            (folder / "config.json").write_text(text)
            shutil.copy(self.hub / "model.safetensors", folder)
            return Trial("hub folders", what, folder=folder)

        for option in ("features_only", "pruned", "pretrained", "scriptable", "cache_dir"):
            yield trial(option, self._with_argument(option, True))
        for option in ("embed_dims", "depths", "num_classes", "num_clusters", "in_chans"):
            for value in (10**9, 10**6, -1, 0, [10**9] * 3, [1000] * 3, "x"):
                yield trial(f"{option} {value}", self._with_argument(option, value))
        for name in ("resnet18", "vit_giant_patch14_224", "nothing", ""):
            yield trial(f"architecture {name}", {**self.config, "architecture": name})
        yield trial("nested", '{"a":' * 100_000)
        for number in range(2 * self.rounds):
            changed, what = self._exchange(self.config)
            yield trial(what, changed)
            text = self._damage(json.dumps(self.config).encode()).decode(errors="replace")
            yield trial(f"damaged {number}", text)

    def _images(self) -> Iterator[Trial]:
        for suffix in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
            stream = io.BytesIO()
            Image.effect_noise((40, 30), 90).convert("RGB").save(stream, suffix)
            for number in range(self.rounds // 2):
                path = self._write(self._damage(stream.getvalue()), f".{suffix.lower()}")
                words = ("predict", str(self.run), str(path))
                yield Trial("images", f"{suffix} {number}", words)

    def _train(self, recipe: str, setting: str | None = None) -> tuple[str, ...]:
        words = ("train", recipe, "--out", str(self._name("")))
        return words if setting is None else (*words, "--set", setting)

    def _predict(self, group: str, what: str, weights: Path) -> Trial:
        return Trial(group, what, ("predict", str(weights), str(self.image)))

    def _name(self, suffix: str = ".safetensors") -> Path:
        self.number += 1
        return self.folder / f"{self.number}{suffix}"

    def _write(self, data: bytes, suffix: str = ".safetensors") -> Path:
        path = self._name(suffix)
        path.write_bytes(data)
        return path

    def _damage(self, data: bytes) -> bytes:
        """Cut, flip bits, double or remove a piece."""
        damaged, how = bytearray(data), self.draw.randrange(4)
        if how == 0:
            return data[: self.draw.randrange(len(data))]
        start = self.draw.randrange(len(data))
        if how == 1:
            del damaged[start : start + self.draw.randrange(1, 50)]
        elif how == 2:
            damaged[start:start] = damaged[start : start + 20] * self.draw.randrange(1, 5)
        else:
            for _ in range(self.draw.randrange(1, 20)):
                damaged[self.draw.randrange(len(data))] ^= 1 << self.draw.randrange(8)
        return bytes(damaged)

    def _exchange(self, data: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """One value at any depth, a whole section too, exchanged for a strange one."""
        changed = copy.deepcopy(data)
        spot, path = changed, []
        while True:
            key = self.draw.choice(list(spot))
            path.append(key)
            inner = spot[key]
            if not (isinstance(inner, dict) and inner) or self.draw.random() < 0.15:
                break
            spot = inner
        value = self.draw.choice(STRANGE)
        spot[key] = value
        return changed, f"{'.'.join(path)} = {value!r}"[:80]

    def _set(self, field: str, value: Any) -> dict[str, Any]:
        changed = copy.deepcopy(self.description)
        *keys, last = field.split(".")
        spot = changed
        for key in keys:
            spot = spot[key]
        spot[last] = value
        return changed

    def _with_argument(self, name: str, value: Any) -> dict[str, Any]:
        return {**self.config, "model_args": {**self.config["model_args"], name: value}}


def _network(options: dict[str, Any]) -> Any:
    return timm.create_model("pacavit_nano", **options)


def _safetensors(header: str) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + b"\0" * 4


if __name__ == "__main__":
    sys.exit(main())
