"""What is suggested to who mistyped a name."""

from vit.names import did_you_mean

KNOWN = ["encoder", "decoder", "head"]


def test_near_names_and_nothing_where_none_is() -> None:
    assert did_you_mean("endcoder", KNOWN) == "; did you mean 'encoder'?"
    assert did_you_mean("endcoder", KNOWN, most=2) == "; did you mean 'encoder' or 'decoder'?"
    assert did_you_mean("hed", KNOWN, shown="runs/{}".format) == "; did you mean 'runs/head'?"
    assert did_you_mean("hxxx", KNOWN) == ""
    assert did_you_mean("hexx", KNOWN, cutoff=0.4) == "; did you mean 'head'?"
