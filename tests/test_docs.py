"""What the documents ask a reader to type works, and the site is whole and needs no network."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import typer
from PIL import Image

import pacavit
from pacavit import api, recipes
from pacavit_cli.main import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]
GENERATED = {"docs/reference/cli.md", "docs/reference/fields.md"}
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("docs/**/*.md")
        if path.relative_to(ROOT).as_posix() not in GENERATED
    ),
]
FENCED = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(document: str, language: str) -> list[tuple[int, str]]:
    """Fenced blocks of one language, each with the number of lines before its body."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start("body")), match["body"])
        for match in FENCED.finditer(text)
        if match["language"] == language
    ]


WITH_PYTHON = [document for document in DOCUMENTS if snippets(document, "python")]


def test_the_pages_that_teach_python_have_snippets() -> None:
    expected = {
        "README.md",
        "CONTRIBUTING.md",
        "docs/tour.md",
        "docs/concepts/attention.md",
        "docs/concepts/clusterings.md",
        "docs/guides/compare.md",
        "docs/guides/evaluate.md",
        "docs/guides/explain.md",
        "docs/guides/train.md",
        "docs/guides/weights.md",
    }
    assert expected <= set(WITH_PYTHON)


RUN_PAGES = """
import json, os, runpy, sys, traceback
failures = {}
for script in sys.argv[1:]:
    os.chdir(os.path.dirname(script))
    sys.path.insert(0, os.getcwd())  # as for `python FILE`
    try:
        runpy.run_path(script)
    except BaseException:
        failures[script] = traceback.format_exc()
    sys.path.pop(0)
print("failures:", json.dumps(failures))
"""


@pytest.fixture(scope="module")
def failures_of_python(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The traceback of each page that fails, all run by one process, for torch loads slowly.

    Every page is one script from top to bottom, as a reader would paste it, in an empty folder.
    Only snippets that begin with the name of a file are scripts of their own, in the same folder;
    one that another imports is not run twice, because it registers a class.
    """
    folder = tmp_path_factory.mktemp("pages")
    scripts = {}
    for document in WITH_PYTHON:
        lines: dict[str, list[str]] = {}
        for start, body in snippets(document, "python"):
            named = re.match(r"# (\w+\.py)\n", body)
            script = lines.setdefault(named[1] if named else "page.py", [])
            script += [""] * (start - len(script))  # a traceback names the line of the document
            script += body.splitlines()
        (folder / document).mkdir(parents=True)
        for name, text in lines.items():
            path = folder / document / name
            path.write_text("\n".join(text), encoding="utf-8")
            importing = f"from {path.stem} import"
            if not any(line.startswith(importing) for other in lines.values() for line in other):
                scripts[str(path)] = document
    source = str(Path(pacavit.__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_PAGES, *scripts],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    failures = json.loads(done.stdout.rpartition("failures:")[2])
    return {scripts[script]: trace for script, trace in failures.items()}


@pytest.mark.slow
@pytest.mark.parametrize("document", WITH_PYTHON)
def test_python_snippets_run(document: str, failures_of_python: dict[str, str]) -> None:
    assert document not in failures_of_python, failures_of_python[document]


RUN_COMMANDS = """
import json, sys
from pacavit_cli.main import main
for words in json.loads(sys.argv[1]):
    assert main(words) == 0, words
"""


@pytest.mark.slow
def test_plugin_snippets_work_as_files(fast: tuple[str, ...], tmp_path: Path) -> None:
    """The clusterings of README and CONTRIBUTING train with the commands that the pages give."""
    options = [word for setting in fast for word in ("--set", setting)]
    commands = []
    for document in ("README.md", "CONTRIBUTING.md"):
        (words,) = (words for words in command_lines(document) if words[0] == "--plugin")
        (body,) = (body for _, body in snippets(document, "python") if f"# {words[1]}\n" in body)
        (tmp_path / words[1]).write_text(body, encoding="utf-8")
        commands.append([*words, *options])
    done = subprocess.run(
        [sys.executable, "-c", RUN_COMMANDS, json.dumps(commands)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(pacavit.__path__[0]).parent)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "cosine" / "weights.safetensors").is_file()
    assert (tmp_path / "runs" / "prototypes" / "weights.safetensors").is_file()


def cli_group() -> Any:
    from pacavit_cli.main import app

    return typer.main.get_command(app)


def command_lines(document: str) -> Iterator[list[str]]:
    """The words of every ``pacavit`` command in shell blocks and in code within the text."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = [body.replace("\\\n", " ") for _, body in snippets(document, "sh")]
    lines = "\n".join(blocks).splitlines() + re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    for line in lines:
        if found := re.match(r"(?:torchrun .*?-m pacavit_cli|pacavit) +(?P<rest>.*)", line):
            yield shlex.split(found["rest"], comments=True)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist(document: str) -> None:
    """Every verb, every option, and every ``make`` target."""
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = "\n".join(body for _, body in snippets(document, "sh"))
    commands += "\n".join(re.findall(r"`([^`\n]+)`", text))
    assert set(re.findall(r"^make (\w+)", commands, re.MULTILINE)) <= targets

    group = cli_group()
    for words in command_lines(document):
        if words and words[0] == "--plugin":
            words = words[2:]
        if not words or not re.fullmatch("[a-z][a-z-]+", words[0]):
            continue
        assert words[0] in group.commands, f"{document}: pacavit {words[0]}"
        command = group.commands[words[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help"}, f"{document}: {shlex.join(words)}"


# Lines of shell blocks that no test runs or parses, and why.
NOT_RUN = {
    "source .venv/bin/activate": "it changes the shell of the reader",
    "export ": "it sets a variable in the shell of the reader",
    "git worktree add": "it needs the history of the repository",
    "pip download": "it needs the network",
    "unzip": "it unpacks what pip has downloaded",
}


def shell_commands(document: str) -> Iterator[list[str]]:
    """The words of every command in shell blocks."""
    for _, body in snippets(document, "sh"):
        for line in body.replace("\\\n", " ").splitlines():
            for command in line.split(" && "):
                if words := shlex.split(command, comments=True):
                    yield words


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_shell_command_is_checked_or_has_a_reason(document: str) -> None:
    for program, *words in shell_commands(document):
        match program:
            case "pacavit":
                check_arguments(words)
            case "torchrun":
                assert "pacavit_cli" in words
                check_arguments(words[words.index("pacavit_cli") + 1 :])
            case "srun":
                check_arguments(words[words.index("pacavit") + 1 :])
            case "python":
                check_script(words)
            case "pip" if words[0] == "install":
                check_installation(words[1:])
            case "curl":
                check_request(words)
            case "make":
                pass  # see test_commands_exist
            case _:
                line = shlex.join([program, *words])
                assert any(line.startswith(start) for start in NOT_RUN), f"{document}: {line}"


def check_arguments(words: list[str]) -> None:
    """Parse the words of a ``pacavit`` command as the command does, without running it."""
    group = cli_group()
    with group.make_context("pacavit", list(words)) as context:
        verb, command, rest = group.resolve_command(context, context._protected_args + context.args)
        command.make_context(verb, rest, parent=context).close()


def check_script(words: list[str]) -> None:
    """A script exists, and has the options that it is given."""
    source = (ROOT / words[0]).read_text(encoding="utf-8")
    for word in words[1:]:
        if word.startswith("--"):
            assert f'"{word}"' in source, shlex.join(words)


def check_installation(words: list[str]) -> None:
    """What ``pip install`` is given is the clone or the wheel, with extras that exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (requirement,) = words
    path, _, extras = requirement.rstrip("]").partition("[")
    wheel = f"{project['name']}-{project['version']}-py3-none-any.whl"
    assert Path(path).name in ("clone", wheel)
    assert set(filter(None, extras.split(","))) <= project["optional-dependencies"].keys()


def check_request(words: list[str]) -> None:
    """What ``curl`` asks for is a route of the server, with parameters that it has."""
    from pacavit.serve import ServeOptions
    from pacavit.serve.app import create_app

    schema = create_app({}, ServeOptions(), ended=lambda error: None).openapi()
    (url,) = (urlsplit(word) for word in words if word.startswith("http://"))
    route = schema["paths"][url.path]["post"]
    known = {parameter["name"] for parameter in route.get("parameters", [])}
    assert {name for name, _ in parse_qsl(url.query, strict_parsing=bool(url.query))} <= known


@pytest.mark.slow
def test_the_commands_of_the_readme_run(
    fast: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a run but the demo and the server, and the comparison, which takes minutes.

    ``tests/demo``, ``tests/serve`` and ``tests/examples/test_quickstart.py`` run these.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (200, 40, 40, 3), np.uint8)
    for number, values in enumerate(pixels):
        folder = tmp_path / "FOLDER" / ("even", "odd")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / f"{number}.png")
    Image.fromarray(pixels[0]).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    changes = [word for setting in fast for word in ("--set", setting)]
    done = []
    for program, *words in shell_commands("README.md"):
        if program == "pacavit" and "runs/mine" in words and words[0] not in ("demo", "serve"):
            assert main([*words, *(changes if words[0] == "train" else [])]) == 0, words
            done.append(words[0])
    assert done == ["train", "evaluate", "predict", "explain", "export"]
    for page in ("runs/mine/report.html", "why/index.html", "mine.onnx"):
        assert (tmp_path / page).is_file(), page


@pytest.mark.parametrize("document", DOCUMENTS)
def test_recipes_and_fields_exist(document: str) -> None:
    """Packaged recipes load with the changes that ``train`` and ``compare`` are given."""
    for words in command_lines(document):
        if words[:1] not in (["train"], ["compare"]) or len(words) < 2:
            continue
        recipe = words[1]
        if recipe != recipe.lower() or recipe.endswith(".toml"):
            continue  # RECIPE, or a file that the page shows
        changes = [word for option, word in pairwise(words) if option == "--set"]
        changes = [word for word in changes if word != word.upper() and "=CLUSTERING" not in word]
        recipes.load(recipe, changes)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_recipe_files_are_valid(document: str, tmp_path: Path) -> None:
    for _, body in snippets(document, "toml"):
        if "extends" in tomllib.loads(body):
            file = tmp_path / "recipe.toml"
            file.write_text(body, encoding="utf-8")
            recipes.load(file)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document: str) -> None:
    """Local links and pictures, and files of this repository that the text names."""
    text = FENCED.sub("", (ROOT / document).read_text(encoding="utf-8"))
    for address in re.findall(r"\]\(([^)\s]+)\)", text):
        path = address.partition("#")[0]
        if path and "://" not in path and f"docs/reference/{Path(path).name}" not in GENERATED:
            assert ((ROOT / document).parent / path).exists(), f"{document}: {address}"
    for name in re.findall(r"`((?:benchmarks|docs|examples|src|tests)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{document}: {name}"


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = text[text.index("\nnav:") : text.index("\nvalidation:")]
    listed = re.findall(r"^ +- [^#\n]+: ([\w/.-]+\.md)$", navigation, re.MULTILINE)
    pages = {name.removeprefix("docs/") for name in {*DOCUMENTS, *GENERATED} if "docs/" in name}
    assert sorted(listed) == sorted(pages)


LoadScript = Callable[[Path], ModuleType]


@pytest.fixture(scope="module")
def build_site(load_script: LoadScript) -> ModuleType:
    return load_script(ROOT / "docs" / "build_site.py")


def test_outside_requests_are_found(build_site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text(
        '<link rel="stylesheet" href="a.css"><link rel="canonical" href="https://x.org/a.html">'
        '<a href="https://arxiv.org/abs/2203.11987">paper</a><img src="a.png">'
    )
    (tmp_path / "a.css").write_text(
        "@import 'b.css'; a { background: url(data:image/png;base64,) }"
    )
    (tmp_path / "a.js").write_text('const svg = "http://www.w3.org/2000/svg"')
    assert list(build_site.outside_requests(tmp_path)) == []

    bad = {
        "font.html": '<link rel="stylesheet" href="https://fonts.example.org/css?family=A">',
        "script.html": '<script src="//cdn.example.org/a.js"></script>',
        "image.html": '<img srcset="a.png 1x, https://example.org/b.png 2x">',
        "frame.html": '<iframe src="https://example.org"></iframe>',
        "import.css": '@import "https://example.org/a.css";',
        "url.css": "@font-face { src: url('https://example.org/a.woff2') }",
        "fetch.js": 'fetch("https://example.org/track")',
    }
    for name, text in bad.items():
        (tmp_path / name).write_text(text)
    found = list(build_site.outside_requests(tmp_path))
    assert sorted(Path(fault.partition(":")[0]).name for fault in found) == sorted(bad)


def test_scripts_that_the_theme_fetches_on_demand_are_found(
    build_site: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "bundle.js").write_text('load("https://unpkg.com/mermaid@12/dist/mermaid.min.js")')
    (tmp_path / "page.html").write_text("<p>no diagram</p>")
    assert list(build_site.outside_requests(tmp_path)) == []
    (tmp_path / "page.html").write_text('<pre class="mermaid"></pre>')
    assert len(list(build_site.outside_requests(tmp_path))) == 1


def test_broken_links_are_found(build_site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="sub/b.html#here">b</a><a href="#top">t</a><a href="sub/">s</a>'
    )
    (tmp_path / "sub" / "index.html").write_text('<a href="..">up</a><a href="mailto:a@b.c">m</a>')
    (tmp_path / "sub" / "b.html").write_text('<p id="here"></p><img src="none.png">')
    (tmp_path / "c.html").write_text('<a href="sub/b.html#nowhere">b</a><a href="d.html">d</a>')
    faults = list(build_site.broken_links(tmp_path))
    assert [fault.partition(": ")[2] for fault in faults] == [
        "sub/b.html#nowhere has no such anchor",
        "d.html does not exist",
        "none.png does not exist",
    ]


def test_public_names_that_no_page_describes_are_found(
    build_site: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "errors.md").write_text("::: pacavit.errors\n\n::: pacavit.types.Grid\n")
    names = list(pacavit.errors.__all__)
    anchors = "".join(f'<h2 id="pacavit.errors.{name}"></h2>' for name in names[1:])
    (tmp_path / "errors.html").write_text(anchors)
    (fault,) = build_site.undocumented(tmp_path, tmp_path)
    assert f"pacavit.errors.{names[0]} is not described" in fault


def test_the_page_of_the_command_line_has_every_command(
    build_site: ModuleType, tmp_path: Path
) -> None:
    page = tmp_path / "cli.md"
    build_site.write_cli_page(page)
    text = page.read_text(encoding="utf-8")
    visible = [name for name, command in cli_group().commands.items() if not command.hidden]
    assert re.findall(r"^## pacavit ([\w-]+)$", text, re.MULTILINE) == visible
    assert text.count("Usage: pacavit") == len(visible) + 1
    assert "\x1b" not in text
    assert max(len(line) for _, body in blocks(text) for line in body.splitlines()) <= 88


def test_the_page_of_fields_has_every_field(build_site: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "fields.md"
    build_site.write_fields_page(page)
    text = page.read_text(encoding="utf-8")
    for field in api.recipe_fields():
        assert f"\n| `{field.name}` | " in text
    assert "| `train.epochs` | integer at least 1 | required | passes over" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def blocks(text: str) -> list[tuple[str, str]]:
    return [(match["language"], match["body"]) for match in FENCED.finditer(text)]


def test_docstrings_become_markdown(load_script: LoadScript) -> None:
    pytest.importorskip("griffe")
    docstrings = load_script(ROOT / "docs" / "docstrings.py")
    text = "See :func:`~pacavit.testing.check_clustering` and :meth:`scores`::\n\n    scores(x)"
    expected = "See `check_clustering` and `scores`:\n\n    scores(x)"
    assert docstrings.to_markdown(text) == expected


@pytest.fixture(scope="module")
def site(build_site: ModuleType) -> Path:
    pytest.importorskip("zensical")
    build_site.write_cli_page(build_site.CLI_PAGE)
    build_site.build()
    return Path(build_site.SITE)


@pytest.mark.browser
def test_pages_opened_from_disk_request_nothing_outside(site: Path, browser: Browser) -> None:
    context = browser.new_context()
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    pages = sorted(site.rglob("*.html"))
    for path in pages:
        page.goto(path.as_uri())
    context.close()
    assert len(requests) > len(pages)
    assert [url for url in requests if not url.startswith(("file:", "data:", "about:"))] == []
    assert faults == []


@pytest.mark.browser
def test_search_works_from_disk(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("silhouette")
    page.get_by_role("link", name=re.compile("Clusterings")).last.wait_for(timeout=20_000)
    page.close()
