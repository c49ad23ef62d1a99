"""What a user can get wrong with these commands: one clear line on stderr and exit code 2."""

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pacavit_cli.main import main


class Bomb:
    """A pickle that would create a file if anything executed it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that can be wrong in a file."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty").mkdir()
    (folder / "text.png").write_text("not an image")
    (folder / "truncated.safetensors").write_bytes(b"\x10\x00\x00")
    save_file({"weight": torch.zeros(2)}, folder / "foreign.safetensors")
    torch.save({"weight": torch.zeros(2)}, folder / "foreign.pth")
    with (folder / "evil.pth").open("wb") as file:
        pickle.dump(Bomb(folder / "executed"), file)
    (folder / "broken.toml").write_text("name = [")
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
    (folder / "stranger").mkdir()
    (folder / "stranger" / "notes.txt").write_text("keep me")
    return folder


TRAIN = "train digits --out {files}/new"
FOLDER = "train folder_nano --out {files}/new --data {files}/"
ROWS = [
    # what is wrong, the words, what the message must name
    ("recipe name", "train digts --out {files}/new", ["unknown recipe 'digts'", "'digits'"]),
    ("recipe file", "train {files}/no.toml --out {files}/new", ["no.toml"]),
    ("recipe syntax", "train {files}/broken.toml --out {files}/new", ["broken.toml"]),
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
    ("range", TRAIN + " --set train.epochs=0", ["train.epochs", "0"]),
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
    ("resume changed", "train digits --out {run} --resume", ["train.epochs"]),
    ("both", TRAIN + " --resume --overwrite", ["resume", "overwrite"]),
    ("out is a file", "train digits --out {files}/text.png", ["text.png"]),
    ("data root", "train cifar10_nano_short --out {files}/new --data {files}/none", ["none"]),
    ("empty data", "train cifar10_nano_short --out {files}/new --data {files}/empty", ["empty"]),
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
    ("folder too small", FOLDER + "mixed", ["mixed", "no val images"]),
    ("folder val size", FOLDER + "unreadable --set data.val_size=99", ["99", "68"]),
    (
        "folder option",
        FOLDER + "unreadable --set data.options.image_size=big",
        ["image_size", "'big'"],
    ),
    ("crop", FOLDER + "unreadable --set task.crop.scale=[0.5,0.1]", ["task.crop", "scale"]),
    ("workers", FOLDER + "unreadable --set data.num_workers=-1", ["data.num_workers", "-1"]),
    ("imagenet layout", FOLDER + "odd --set data.name=imagenet", ["'wasp'"]),
    ("imagenet root", FOLDER + "empty --set data.name=imagenet", ["empty", "train"]),
    ("shapes root", "train shapes_nano --out {files}/new --data {files}/one", ["shapes", "one"]),
    ("weights name", "predict pacavit_nanno {image}", ["pacavit_nanno"]),
    ("weights file", "predict {files}/no.safetensors {image}", ["no.safetensors"]),
    ("weights truncated", "predict {files}/truncated.safetensors {image}", ["truncated"]),
    ("weights foreign", "predict {files}/foreign.safetensors {image}", ["foreign.safetensors"]),
    ("weights pth", "predict {files}/foreign.pth {image}", ["foreign.pth"]),
    ("weights evil", "evaluate {files}/evil.pth", ["evil.pth"]),
    ("weights folder", "evaluate {files}/empty", ["empty"]),
    ("weights image", "evaluate {files}/text.png", ["text.png"]),
    ("image missing", "predict {run} {files}/no.png", ["no.png"]),
    ("image broken", "predict {run} {files}/text.png", ["text.png"]),
    ("image folder", "predict {run} {files}/empty", ["empty"]),
    ("split", "evaluate {run} --split tset", ["split 'tset'", "'test'"]),
    ("evaluation root", "evaluate {run} --data {files}/empty", ["digits"]),
    ("results are a file", "evaluate {run} --out {files}/text.png", ["text.png"]),
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


@pytest.mark.parametrize(("words", "parts"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_one_line_and_exit_code_2(
    words: str,
    parts: list[str],
    files: Path,
    digits_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"files": files, "run": digits_run, "image": files / "text.png"}
    before = {path.name for path in files.iterdir()}
    assert main([word.format(**names) for word in words.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    for part in parts:
        assert part.format(**names) in error
    assert {path.name for path in files.iterdir()} == before, "something was left behind or lost"
    assert (files / "stranger" / "notes.txt").read_text() == "keep me"
