from __future__ import annotations

import pytest

from pacavit import errors
from pacavit.errors import PacavitError, UnknownNameError


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_a_pacavit_error(name: str) -> None:
    assert issubclass(getattr(errors, name), PacavitError)


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("covn", ["conv", "mlp"], "unknown clustering 'covn'; did you mean 'conv'?"),
        ("mlpp", ["mlp", "mlps"], "unknown clustering 'mlpp'; did you mean 'mlp' or 'mlps'?"),
        ("zzz", ["conv", "mlp"], "unknown clustering 'zzz'; known: conv, mlp"),
        ("zzz", [], "unknown clustering 'zzz'; known: none"),
    ],
)
def test_unknown_name_helps(name: str, known: list[str], message: str) -> None:
    error = UnknownNameError("clustering", name, known)
    assert str(error) == message
    assert (error.kind, error.name, error.known) == ("clustering", name, tuple(known))


def test_unknown_name_takes_any_iterable() -> None:
    error = UnknownNameError("clustering", "covn", iter(["conv"]))
    assert error.known == ("conv",)
    assert "'conv'" in str(error)
