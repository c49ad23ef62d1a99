"""What a user can get wrong with these commands: one clear line on stderr and exit code 2."""

import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pacavit.data.sources import cifar10
from pacavit_cli.main import main


class Bomb:
    """A pickle that would create a file if anything executed it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def batch(**changes: Any) -> bytes:
    """A small batch as in CIFAR-10's official archive."""
    pixels = np.zeros((10, 3072), np.uint8)
    return pickle.dumps({"data": pixels, "labels": list(range(10)), **changes}, protocol=2)


def write_cifar(folder: Path, data_batch_3: bytes | None) -> None:
    """Official batches, of which one is as given, or missing."""
    batches = folder / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in (1, 2, 4, 5)), "test_batch"):
        (batches / name).write_bytes(batch())
    if data_batch_3 is not None:
        (batches / "data_batch_3").write_bytes(data_batch_3)


def write_parquet(folder: Path, label: int, **columns: list[Any]) -> None:
    """One image a split, as the Hugging Face hub has them."""
    folder.mkdir()
    png = io.BytesIO()
    Image.new("RGB", (32, 32)).save(png, "PNG")
    table = columns or {"img": [{"bytes": png.getvalue(), "path": None}], "label": [label]}
    for split in ("train", "test"):
        pq.write_table(pa.table(table), folder / f"{split}-00000-of-00001.parquet")


def write_data(folder: Path) -> None:
    """Data folders with one thing wrong in each."""
    bomb = Bomb(folder / "executed")
    batches = {
        "truncated": batch()[:-400],
        "foreign": b"not a pickle",
        "evil": pickle.dumps(bomb),
        "evil_inside": batch(labels=bomb),
        "unknown_class": batch(labels=[0] * 9 + [10]),
        "cifar100": pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "fine_labels": [99]}),
        "missing": None,
    }
    for name, content in batches.items():
        write_cifar(folder / f"batches_{name}", content)
    write_parquet(folder / "parquet_unknown_class", label=10)
    write_parquet(folder / "parquet_foreign", label=0, text=["a"], price=[1.0])
    (folder / "parquet_truncated").mkdir()
    for split in ("train", "test"):
        file = folder / "parquet_unknown_class" / f"{split}-00000-of-00001.parquet"
        (folder / "parquet_truncated" / file.name).write_bytes(file.read_bytes()[:-20])
    for name in ("archive_truncated", "archive_unsafe", "archive_foreign"):
        (folder / name).mkdir()
    archive = "cifar-10-python.tar.gz"
    (folder / "archive_foreign" / archive).write_bytes(b"not an archive")
    (folder / "archive_truncated" / archive).write_bytes(gzip.compress(b"x" * 5000)[:-8])
    with tarfile.open(folder / "archive_unsafe" / archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))


def write_runs(folder: Path, run: Path) -> None:
    """Run folders and weights files with one thing wrong in each."""
    weights = run / "weights.safetensors"
    evil = pickle.dumps(Bomb(folder / "executed"))
    for name in ("cut_run", "evil_run", "no_recipe_run"):
        shutil.copytree(run, folder / name, ignore=shutil.ignore_patterns("tensorboard"))
    (folder / "cut_run" / weights.name).write_bytes(weights.read_bytes()[:5000])
    (folder / "evil_run" / weights.name).write_bytes(evil)
    (folder / "no_recipe_run" / "recipe.json").write_text('{"name": "digits"')
    faults = {
        "model.safetensors": None,
        "optimizer.json": b"{}",
        "rng.safetensors": evil,
        "state.json": b"{}",
    }
    for file, content in faults.items():
        stopped = folder / f"stopped_{file.partition('.')[0]}"
        shutil.copytree(run, stopped, ignore=shutil.ignore_patterns("tensorboard", weights.name))
        (checkpoint,) = (stopped / "checkpoints").iterdir()
        whole = (checkpoint / file).read_bytes()
        (checkpoint / file).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with safe_open(weights, "pt") as stored:
        description = json.loads(stored.metadata()["pacavit"])
    for name, classes in (("three_classes", list("abc")), ("other_classes", list("abcdefghij"))):
        data = {**description["data"], "class_names": classes}
        metadata = {"pacavit": json.dumps({**description, "data": data})}
        save_file(load_file(weights), folder / f"{name}.safetensors", metadata)
    description["recipe"]["task"]["image_size"] = 10**9
    metadata = {"pacavit": json.dumps(description)}
    save_file(load_file(weights), folder / "giant.safetensors", metadata)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, digits_run: Path) -> Path:
    """A folder with everything that can be wrong in a file."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty").mkdir()
    (folder / "text.png").write_text("not an image")
    image = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(image, "PNG")
    (folder / "cut.png").write_bytes(image.getvalue()[:1000])
    Image.new("1", (9000, 9000)).save(folder / "huge.png")
    (folder / "truncated.safetensors").write_bytes(b"\x10\x00\x00")
    save_file({"weight": torch.zeros(2)}, folder / "foreign.safetensors")
    torch.save({"weight": torch.zeros(2)}, folder / "foreign.pth")
    (folder / "evil.pth").write_bytes(pickle.dumps(Bomb(folder / "executed")))
    (folder / "broken.toml").write_text("name = [")
    (folder / "incomplete.toml").write_text('name = "mine"')
    (folder / "circle.toml").write_text('extends = "circle.toml"')
    (folder / "orphan.toml").write_text('extends = "digts"')
    (folder / "deep.toml").write_text("a = " + "[" * 100_000)
    os.mkfifo(folder / "pipe.toml")
    (folder / "raises.py").write_text("1 / 0")
    (folder / "syntax.py").write_text("def")
    picture = Image.new("RGB", (9, 9))
    for name in ("one/ant", "mixed/ant", "mixed/bee", "flat", "odd/train/ant", "odd/train/bee"):
        (folder / name).mkdir(parents=True)
        picture.save(folder / name / "0.png")
    for name in ("odd/val/wasp", "unreadable/ant", "unreadable/bee", "hollow/ant", "hollow/bee"):
        (folder / name).mkdir(parents=True)
    picture.save(folder / "odd" / "val" / "wasp" / "0.png")
    for name in ("ant", "bee"):
        for number in range(40):
            (folder / "unreadable" / name / f"{number}.png").write_text("not an image")
    for split in ("train", "val"):
        for number, name in enumerate(("ant", "bee")):
            (folder / "copies" / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9), (99 * number, 0, 0)).save(
                folder / "copies" / split / name / "0.png"
            )
    for letters in (rb"ab\xe9ille", b"ab\xe9ille"):  # as it is shown, and in Latin-1
        (folder / "latin" / os.fsdecode(letters)).mkdir(parents=True)
    for name in ("splits/train/ant", "splits/train_old/ant", "twice/val/ant", "twice/Valid/ant"):
        (folder / name).mkdir(parents=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.csv").mkdir()
    (folder / "old.csv").write_text("keep me")
    (folder / "stranger").mkdir()
    (folder / "stranger" / "notes.txt").write_text("keep me")
    write_data(folder)
    write_runs(folder, digits_run)
    return folder


TRAIN = "train digits --out {files}/new"
FOLDER = "train folder_nano --out {files}/new --data {files}/"
SHAPES = "train shapes_nano --out {files}/new"
IMAGENET = FOLDER + "mixed --set data.name=imagenet"
RESUME = "train {run} --out {run} --resume"
STOPPED = "train {run} --out {files}/stopped_"
CIFAR = "train cifar10_nano_short --out {files}/new --data {files}/"
ROWS = [
    # what is wrong, the words, what the message must name
    ("recipe name", "train digts --out {files}/new", ["unknown recipe 'digts'", "'digits'"]),
    ("recipe file", "train {files}/no.toml --out {files}/new", ["no.toml"]),
    ("recipe syntax", "train {files}/broken.toml --out {files}/new", ["broken.toml"]),
    ("recipe incomplete", "train {files}/incomplete.toml --out {files}/new", ["is missing"]),
    ("recipe circle", "train {files}/circle.toml --out {files}/new", ["extends itself"]),
    ("recipe extends", "train {files}/orphan.toml --out {files}/new", ["'digts'", "orphan.toml"]),
    ("recipe deep", "train {files}/deep.toml --out {files}/new", ["deep.toml", "nested deeper"]),
    (
        "recipe pipe",
        "train {files}/pipe.toml --out {files}/new",
        ["pipe.toml", "not a regular file"],
    ),
    ("recipe folder", "train {files}/empty --out {files}/new", ["empty"]),
    ("model", TRAIN + " --set model.name=pacavit_nanoo", ["pacavit_nanoo", "pacavit_nano"]),
    ("clustering", TRAIN + " --set model.clustering=konv", ["clustering 'konv'", "'conv'"]),
    ("attention", TRAIN + " --set model.attention=pacca", ["attention 'pacca'", "'paca'"]),
    ("dataset", TRAIN + " --set data.name=cifar1", ["dataset 'cifar1'", "'cifar10'"]),
    ("task", TRAIN + " --set task.name=clasification", ["task"]),
    ("field", TRAIN + " --set train.epoch=1", ["train.epoch", "train.epochs"]),
    ("section", TRAIN + " --set trian.epochs=1", ["trian"]),
    ("field of nothing", TRAIN + " --set train.epochs.more=1", ["train.epochs"]),
    ("type", TRAIN + " --set train.epochs=many", ["train.epochs", "many", "integer"]),
    ("type of a list", TRAIN + " --set model.num_clusters=[16,many]", ["num_clusters", "many"]),
    ("not a number", TRAIN + " --set train.lr=nan", ["train.lr", "nan"]),
    ("choice", TRAIN + " --set train.precision=fp8", ["train.precision", "fp8", "bf16"]),
    ("range", TRAIN + " --set train.epochs=0", ["train.epochs", "0"]),
    ("fraction", TRAIN + " --set model.drop_path=2.0", ["model.drop_path", "2.0"]),
    ("one a stage", TRAIN + " --set model.num_clusters=[16,16]", ["num_clusters", "2"]),
    ("shift", TRAIN + " --set task.augment.shift=32", ["augment.shift 32", "32 x 32"]),
    ("val size", TRAIN + " --set data.val_size=5000", ["data.val_size", "5000", "1437"]),
    ("no validation", TRAIN + " --set data.val_size=0", ["val_size"]),
    (
        "patience without validation",
        TRAIN + " --set train.patience=3 --set data.val_size=0",
        ["no validation images", "data.val_size is 0"],
    ),
    (
        "keep without validation",
        TRAIN + " --set train.keep=best --set data.val_size=0",
        ["no validation images", "data.val_size is 0"],
    ),
    (
        "logger",
        TRAIN + ' --set train.loggers=["tensorbord"]',
        ["logger 'tensorbord'", "'tensorboard'"],
    ),
    (
        "class weight",
        FOLDER + "mixed --set train.class_weights.bees=2.0",
        ["unknown class 'bees' in train.class_weights", "did you mean 'bee'?"],
    ),
    ("class weights", TRAIN + " --set train.class_weights=even", ["class_weights", "'balanced'"]),
    ("class weight 0", TRAIN + " --set train.class_weights.1=0.0", ["class_weights.1", "0"]),
    ("keep", TRAIN + " --set train.keep=first", ["train.keep", "'best' or 'last'"]),
    ("patience", TRAIN + " --set train.patience=0", ["train.patience", "0"]),
    (
        "batch norm",
        TRAIN + " --set model.name=resnet18 --set train.batch_size=1",
        ["resnet18", "BatchNorm", "raise train.batch_size 1"],
    ),
    (
        "batch norm chunk",
        TRAIN + " --set model.name=resnet18 --set train.micro_batch=1",
        ["resnet18", "BatchNorm", "raise train.micro_batch 1"],
    ),
    ("batch size", TRAIN + " --set train.batch_size=5000", ["train.batch_size", "1257"]),
    ("pattern", TRAIN + " --set train.lr_scales.nothing=2.0", ["lr_scales", "nothing"]),
    ("optimizer option", TRAIN + " --set train.optimizer_options.betta=1", ["betta"]),
    ("model option", TRAIN + " --set model.options.color=1", ["pacavit_nano", "color"]),
    ("attention option", TRAIN + " --set model.attention_options.size=3", ["'size'", "'paca'"]),
    ("no value", TRAIN + " --set train.epochs", ["train.epochs"]),
    ("optimizer", TRAIN + " --set train.optimizer=adamv", ["adamv"]),
    ("device", TRAIN + " --set train.device=gpu", ["gpu"]),
    ("cluster count", TRAIN + " --set model.num_clusters=-1", ["num_clusters"]),
    ("option", TRAIN + " --set model.clustering_options.size=3", ["size"]),
    ("no heads", TRAIN + " --set model.options.num_heads=[0,4,8]", ["num_heads"]),
    ("activation", TRAIN + " --set model.options.act_layer=reluu", ["reluu"]),
    ("pretrained", TRAIN + " --set model.options.pretrained=true", ["model.options", "pretrained"]),
    (
        "negative size",
        TRAIN + " --set model.clustering=mlp --set model.clustering_options.hidden_ratio=-1",
        ["hidden_ratio"],
    ),
    *(
        (
            f"{clustering} {option}",
            f"{TRAIN} --set model.clustering={clustering} "
            f"--set model.clustering_options.{option}={value}",
            [option, value],
        )
        for clustering, option, value in (
            ("kmeans", "n_iter", "0"),
            ("kmeans", "temperature", "0"),
            ("kmeans", "init", "best"),
            ("gmm", "covariance", "full"),
            ("gmm", "reg_covar", "-1"),
            ("hierarchical", "linkage", "single"),
            ("hierarchical", "distance_threshold", "-2"),
            ("dbscan", "eps", "0"),
            ("dbscan", "eps", "nan"),
            ("dbscan", "quantile", "1.5"),
            ("dbscan", "min_samples", "0"),
            ("dbscan", "outliers", "away"),
        )
    ),
    ("image size", TRAIN + " --set model.name=vit_tiny_patch16_224", ["vit_tiny", "32 x 32"]),
    ("no pooling", TRAIN + " --set model.options.global_pool=", ["global_pool"]),
    ("init name", TRAIN + " --set model.init=cifar10_nano_con", ["cifar10_nano_con", "did you"]),
    ("init file", TRAIN + " --set model.init={files}/no.safetensors", ["no.safetensors"]),
    ("init foreign", TRAIN + " --set model.init={files}/foreign.safetensors", ["foreign.safe"]),
    ("init evil", TRAIN + " --set model.init={files}/evil.pth", ["evil.pth"]),
    ("init misfit", TRAIN + " --set model.init={run} --set model.name=pacavit_mini", ["{run}"]),
    ("layer decay", TRAIN + " --set train.layer_decay=1.0", ["train.layer_decay", "less than 1"]),
    (
        "no clustering",
        TRAIN + " --set model.attention=full --set train.cluster_lr_scale=10",
        ["train.cluster_lr_scale", "no effect"],
    ),
    ("augmentation", TRAIN + " --set task.augment.rand_augment=rnd-m9", ["rand_augment", "rnd-m9"]),
    ("mixing", TRAIN + " --set task.mix.mixup=-1.0", ["task.mix.mixup"]),
    ("data option", TRAIN + " --set data.options.variant=b", ["dataset 'digits'", "variant"]),
    ("run exists", "train digits --out {run}", ["{run}", "--resume", "--overwrite"]),
    ("not a run", "train digits --out {files}/stranger --overwrite", ["stranger"]),
    ("resume nothing", TRAIN + " --resume", ["new"]),
    ("resume changed", RESUME + " --set train.epochs=12", ["train.epochs"]),
    ("resume other model", RESUME + " --set model.name=pacavit_mini", ["pacavit_mini", "{run}"]),
    ("resume other data", RESUME + " --set data.val_size=100", ["data.val_size"]),
    ("resume other seed", RESUME + " --set train.seed=1", ["train.seed was 0 and is now 1"]),
    ("resume cut", STOPPED + "model --resume", ["model.safetensors", "truncated", "or remove"]),
    ("resume broken", STOPPED + "optimizer --resume", ["stopped_optimizer", "broken", "or remove"]),
    ("resume state", STOPPED + "state --resume", ["state.json", "broken"]),
    ("resume evil", STOPPED + "rng --resume", ["rng.safetensors", "pickled"]),
    ("resume file", "train digits --out {files}/text.png --resume", ["text.png"]),
    ("both", TRAIN + " --resume --overwrite", ["resume", "overwrite"]),
    ("out is a file", "train digits --out {files}/text.png", ["text.png"]),
    ("out below a file", "train digits --out {files}/text.png/run", ["text.png"]),
    ("data root", "train cifar10_nano_short --out {files}/new --data {files}/none", ["none"]),
    ("empty data", "train cifar10_nano_short --out {files}/new --data {files}/empty", ["empty"]),
    ("data a file", CIFAR + "text.png", ["text.png"]),
    ("batch truncated", CIFAR + "batches_truncated", ["batches_truncated", "data_batch_3"]),
    ("batch foreign", CIFAR + "batches_foreign", ["batches_foreign", "data_batch_3"]),
    ("batch missing", CIFAR + "batches_missing", ["batches_missing", "data_batch_3"]),
    ("batch evil", CIFAR + "batches_evil", ["batches_evil", "nothing in it was run"]),
    ("batch evil inside", CIFAR + "batches_evil_inside", ["evil_inside", "nothing in it was run"]),
    ("batch class", CIFAR + "batches_unknown_class", ["data_batch_3", "label 10"]),
    ("CIFAR-100", CIFAR + "batches_cifar100", ["batches_cifar100", "'labels'"]),
    ("archive truncated", CIFAR + "archive_truncated", ["archive_truncated"]),
    ("archive foreign", CIFAR + "archive_foreign", ["archive_foreign"]),
    ("archive unsafe", CIFAR + "archive_unsafe", ["archive_unsafe", "../outside"]),
    ("parquet truncated", CIFAR + "parquet_truncated", ["parquet_truncated"]),
    ("parquet foreign", CIFAR + "parquet_foreign", ["parquet_foreign", "text, price"]),
    ("parquet class", CIFAR + "parquet_unknown_class", ["label 10", "0..9"]),
    ("data of digits", TRAIN + " --data {files}/empty", ["digits"]),
    ("folder unnamed", FOLDER.removesuffix(" --data {files}/"), ["--data"]),
    ("folder missing", FOLDER + "none", ["none", "--data"]),
    ("folder empty", FOLDER + "empty", ["empty", "class folders"]),
    ("folder is a file", FOLDER + "text.png", ["text.png", "is a file"]),
    ("folder of images", FOLDER + "flat", ["flat", "no class folders"]),
    ("folder of one class", FOLDER + "one", ["one", "'ant'", "two"]),
    ("folder without images", FOLDER + "hollow", ["hollow", "no images"]),
    ("folder unreadable", FOLDER + "unreadable", ["no usable image", "58 images", "ant"]),
    ("folder other classes", FOLDER + "odd", ["val", "'wasp'"]),
    ("folder alike names", FOLDER + "latin", ["latin", r"two class folders", r"'ab\\xe9ille'"]),
    ("folder like a split", FOLDER + "splits", ["splits", "'train_old'", "validation"]),
    ("folder two splits", FOLDER + "twice", ["twice", "2 folders of val", "Valid and val"]),
    ("folder too small", FOLDER + "mixed", ["mixed", "no val images"]),
    (
        "folder copies",
        FOLDER + "copies --set train.batch_size=2",
        ["2 images are in two splits", "val/ant/0.png (val) equals train/", "data.duplicates=warn"],
    ),
    ("duplicates", FOLDER + "copies --set data.duplicates=no", ["data.duplicates", "'refuse'"]),
    ("folder val size", FOLDER + "unreadable --set data.val_size=99", ["99", "69"]),
    (
        "folder option",
        FOLDER + "unreadable --set data.options.image_size=big",
        ["image_size", "'big'"],
    ),
    *(
        (
            f"data option {option}",
            f"{words} --set data.options.{option}",
            ["data.options." + option.partition("=")[0], "expected"],
        )
        for words, options in (
            (FOLDER + "mixed", "test_size=0.2 test_size='5' test_size=true test_size=-1"),
            (FOLDER + "mixed", "in_memory=no image_size=0"),
            (SHAPES, "image_size=x train_size=0"),
            (IMAGENET, "image_size=x image_size=0 image_size=-5 max_pixels=x"),
        )
        for option in options.split()
    ),
    ("crop", FOLDER + "unreadable --set task.crop.scale=[0.5,0.1]", ["task.crop", "scale"]),
    ("workers", FOLDER + "unreadable --set data.num_workers=-1", ["data.num_workers", "-1"]),
    ("imagenet layout", FOLDER + "odd --set data.name=imagenet", ["'wasp'"]),
    ("imagenet root", FOLDER + "empty --set data.name=imagenet", ["empty", "train"]),
    ("shapes root", "train shapes_nano --out {files}/new --data {files}/one", ["shapes", "one"]),
    ("weights name", "predict pacavit_nanno {image}", ["pacavit_nanno"]),
    ("weights giant", "predict {files}/giant.safetensors {image}", ["giant.saf", "image_size"]),
    ("weights file", "predict {files}/no.safetensors {image}", ["no.safetensors"]),
    ("weights truncated", "predict {files}/truncated.safetensors {image}", ["truncated"]),
    ("weights foreign", "predict {files}/foreign.safetensors {image}", ["foreign.safetensors"]),
    ("weights pth", "predict {files}/foreign.pth {image}", ["foreign.pth"]),
    ("weights evil", "evaluate {files}/evil.pth", ["evil.pth"]),
    ("weights evil, of an image", "predict {files}/evil.pth {image}", ["evil.pth", "pickled"]),
    ("weights class count", "evaluate {files}/three_classes.safetensors", ["three_classes"]),
    ("weights classes", "evaluate {files}/other_classes.safetensors", ["class 0", "'0'", "'a'"]),
    ("run cut", "evaluate {files}/cut_run", ["cut_run", "truncated"]),
    ("run evil", "predict {files}/evil_run {image}", ["evil_run", "pickled"]),
    ("run without recipe", "evaluate {files}/no_recipe_run", ["no_recipe_run", "recipe.json"]),
    ("run missing", "evaluate {files}/none", ["none"]),
    ("weights folder", "evaluate {files}/empty", ["empty"]),
    ("weights image", "evaluate {files}/text.png", ["text.png"]),
    ("image missing", "predict {run} {files}/no.png", ["no.png"]),
    ("image broken", "predict {run} {files}/text.png", ["text.png"]),
    ("image cut", "predict {run} {files}/cut.png", ["cut.png"]),
    ("image pipe", "predict {run} {files}/pipe.png", ["pipe.png", "pipe or device"]),
    ("image device", "predict {run} /dev/zero", ["/dev/zero", "pipe or device"]),
    ("image huge", "predict {run} {files}/huge.png", ["huge.png", "9000 x 9000"]),
    ("image folder", "predict {run} {files}/empty", ["empty"]),
    ("top k", "predict {run} {image} --top-k 0", ["top k", "0"]),
    ("batch size", "predict {run} {image} --batch-size 0", ["batch size", "0"]),
    ("device", "predict {run} {image} --device gpu", ["device 'gpu'", "cuda"]),
    ("device meta", "predict {run} {image} --device meta", ["device 'meta'", "not available"]),
    ("out suffix", "predict {run} {image} --out {files}/x.xlsx", ["x.xlsx", ".parquet"]),
    ("out without suffix", "predict {run} {image} --out {files}/x", ["x", ".csv"]),
    ("out a folder", "predict {run} {image} --out {files}/folder.csv", ["folder.csv", "folder"]),
    ("out exists", "predict {run} {image} --out {files}/old.csv", ["old.csv", "--overwrite"]),
    ("out in a file", "predict {run} {image} --out {files}/text.png/x.csv", ["text.png"]),
    ("split", "evaluate {run} --split tset", ["split 'tset'", "'test'"]),
    ("evaluation root", "evaluate {run} --data {files}/empty", ["digits"]),
    ("all of packed data", "evaluate {run} --all", ["'digits'", "splits of its own", "val"]),
    ("all and a split", "evaluate {run} --all --split val", ["'val'", "leave one"]),
    ("results are a file", "evaluate {run} --out {files}/text.png", ["text.png"]),
    ("ensemble without a folder", "evaluate {run} --ensemble {run}", ["ensemble", "--out"]),
    (
        "ensemble into a run",
        "evaluate {files}/giant.safetensors --ensemble {run} --out {run}/evaluation-test",
        ["evaluation-test is in the folder of {run}"],
    ),
    (
        "ensemble into a file",
        "evaluate {run} --ensemble {run} --out {files}/text.png",
        ["text.png", "it is a file"],
    ),
    (
        "ensemble of other classes",
        "evaluate {run} --ensemble {files}/other_classes.safetensors --out {files}/new",
        ["other_classes.safetensors", "form no ensemble", "'0' is missing", "17 more"],
    ),
    (
        "ensemble of fewer classes",
        "predict {run} --ensemble cifar10_nano_conv {image}",
        ["cifar10_nano_conv", "form no ensemble", "'0' is missing"],
    ),
    (
        "ensemble missing",
        "predict {run} --ensemble {files}/no.safetensors {image}",
        ["no.safetensors"],
    ),
    (
        "test-time augmentation",
        "evaluate {run} --tta flop",
        ["unknown test-time augmentation 'flop'", "'flip'"],
    ),
    (
        "test-time augmentation of images",
        "predict {run} {image} --tta flop",
        ["unknown test-time augmentation 'flop'"],
    ),
    ("official missing", "convert {files}/no.pth {files}/new.safetensors", ["no.pth"]),
    ("official foreign", "convert {files}/foreign.pth {files}/new.safetensors", ["foreign.pth"]),
    ("official evil", "convert {files}/evil.pth {files}/new.safetensors", ["evil.pth", "executed"]),
    ("official image", "convert {files}/text.png {files}/new.safetensors", ["text.png"]),
    (
        "official name",
        "convert {files}/foreign.pth {files}/new.safetensors --model pacavit_tiny_p2cconv",
        ["'pacavit_tiny_p2cconv'", "pacavit_tiny_p2cconv_100_0"],
    ),
    ("converted exists", "convert {files}/foreign.pth {files}/foreign.safetensors", ["exists"]),
    ("converted suffix", "convert {files}/foreign.pth {files}/new.pth", ["new.pth"]),
    ("kind", "list clustering", ["'clustering'", "'clusterings'"]),
    ("plugin missing", "--plugin {files}/no.py list models", ["no.py"]),
    ("plugin raises", "--plugin {files}/raises.py list models", ["raises.py", "ZeroDivisionError"]),
    ("plugin syntax", "--plugin {files}/syntax.py list models", ["syntax.py", "SyntaxError"]),
]


def contents(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file, so that none is lost, changed or added unnoticed."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("words", "parts"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_one_line_and_exit_code_2(
    words: str,
    parts: list[str],
    files: Path,
    digits_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"files": files, "run": digits_run, "image": files / "text.png"}
    before = contents(files, digits_run)
    assert main([word.format(**names) for word in words.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    for part in parts:
        assert part.format(**names) in error
    assert not (files / "executed").exists(), "a pickle was executed"
    assert contents(files, digits_run) == before, "something was left behind, changed or lost"


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("model.name=pacavit_nanoo", "pacavit_nanoo"),
        ("model.name=vit_tiny_patch16_224", "32 x 32 images"),
        ("model.clustering=konv", "konv"),
        ("train.optimizer=adamv", "adamv"),
        ("task.augment.shift=40", "augment.shift 40"),
        ("train.device=gpu", "gpu"),
    ],
)
def test_a_wrong_recipe_shows_before_a_download(
    setting: str,
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def download(folder: Path) -> None:
        raise AssertionError(f"downloads into {folder}")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar10, "_download", download)
    words = ["train", "cifar10_nano_short", "--out", str(tmp_path / "run"), "--set", setting]
    assert main(words) == 2
    assert part in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
