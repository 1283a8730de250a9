"""What the terminal shows of warnings."""

import warnings

import pytest

from vit.commandline.quiet import quiet


def test_a_warning_is_one_line_without_the_place_in_the_code() -> None:
    before = warnings.formatwarning
    with quiet():
        said = warnings.formatwarning("left out:\n  a.png", UserWarning, "splits.py", 3, "code")
    assert said == "vit: warning: left out: a.png\n" and warnings.formatwarning is before


@pytest.mark.filterwarnings("default")
def test_known_chatter_is_not_shown_and_the_rest_is() -> None:
    with quiet(), warnings.catch_warnings(record=True) as came:
        warnings.warn("Grad strides do not match bucket view strides. This may indicate", stacklevel=1)
        warnings.warn("something new", stacklevel=1)
    assert [str(warning.message) for warning in came] == ["something new"]
