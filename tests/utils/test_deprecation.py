"""Functions under their old names."""

import inspect

import pytest

from pacavit.utils.deprecation import renamed


def double(number: int, *, offset: int = 0) -> int:
    """Twice a number."""
    return 2 * number + offset


def test_the_old_name_warns_and_calls_the_new_function() -> None:
    twice = renamed(double, "twice")
    with pytest.warns(FutureWarning, match="twice is now called double; the old name") as found:
        assert twice(3, offset=1) == 7
    assert found[0].filename == __file__
    assert (twice.__name__, double.__name__) == ("twice", "double")
    assert inspect.signature(twice) == inspect.signature(double)
