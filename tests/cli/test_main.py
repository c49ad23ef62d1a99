"""Global options, exit codes, and one line per error; test_package.py checks the help."""

from pathlib import Path

import pytest

from pacavit import api
from pacavit.errors import DataError
from pacavit_cli.main import main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pacavit")


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "evaluate" in captured.out + captured.err
    assert "error" not in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "digits"], "Did you mean 'train'"),
        (["train", "digits"], "--out"),
        (["train", "digits", "--out", "x", "--ste", "a=1"], "--ste"),
        (["predict", "model"], "IMAGE"),
        (["evaluate"], "MODEL"),
        (["list"], "KIND"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def raise_data_error(kind: str) -> list[api.Entry]:
    raise DataError("no data\nin here")


def test_users_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "list_names", raise_data_error)
    assert main(["list", "models"]) == 2
    assert capsys.readouterr().err == "error: no data in here\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "list_names", raise_data_error)
    with pytest.raises(DataError):
        main(["--debug", "list", "models"])


def test_unwritable_path_is_the_users_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_args: object, **_options: object) -> Path:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(api, "train", refuse)
    assert main(["train", "digits", "--out", "/somewhere"]) == 2
    assert "Permission denied: '/somewhere'" in capsys.readouterr().err


def test_our_own_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: str) -> list[api.Entry]:
        raise AssertionError(kind)

    monkeypatch.setattr(api, "list_names", broken)
    with pytest.raises(AssertionError):
        main(["list", "models"])


def test_interrupt_is_one_line_and_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(kind: str) -> list[api.Entry]:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "list_names", interrupt)
    assert main(["list", "models"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_plugin_is_loaded_before_the_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from pacavit import ATTENTIONS, Attention\n"
        "@ATTENTIONS.register('from_cli_test')\n"
        "class Mine(Attention):\n"
        "    '''Of a stranger.'''\n"
    )
    assert main(["--plugin", str(plugin), "list", "attentions"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["from_cli_test", "Of a stranger."] in lines
