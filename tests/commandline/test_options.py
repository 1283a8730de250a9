"""What jsonargparse is told beyond types."""

from typing import Optional, Union  # as packages write them, which typing remembers

import pytest
from jsonargparse import ArgumentParser

from vit.commandline.options import integers_first


@pytest.mark.parametrize("hint", [Union[float, int], Optional[Union[float, int, str]]])  # noqa: UP007, UP045
def test_a_whole_number_is_no_share_whatever_typing_remembers(hint: object):
    parser = ArgumentParser()
    parser.add_argument("--size", type=hint)
    parser.add_argument("--name", type=str)
    assert [type(parser.parse_args([f"--size={text}"]).size) for text in ("1", "1.0")] == [float, float]
    integers_first(parser)
    assert [type(parser.parse_args([f"--size={text}"]).size) for text in ("1", "1.0", "0.5")] == [int, float, float]
    assert parser.parse_args(["--name=1"]).name == "1"
