"""``vit bench``: what things cost on this machine."""

from vit.experiments import attention_bench, model_bench
from vit.names import did_you_mean

BENCHES = {"attention": attention_bench.main, "model": model_bench.main}
USAGE = """\
vit bench attention   a block's parts, numbers of heads and every mixer's core: time, multiply-adds, memory
vit bench model       a whole net beside timm's of the same shape: images per second, memory, multiply-adds
--help after either lists its options."""


def main(args: list[str]) -> int:
    """Run one bench.

    Raises:
        ValueError: one line for what cannot be.
    """
    name = args[0] if args else "--help"
    if name in ("-h", "--help"):
        print(USAGE)
        return 0
    if name not in BENCHES:
        hint = did_you_mean(name, BENCHES) or f"; there are {', '.join(BENCHES)}"
        raise ValueError(f"unknown bench {name!r}{hint}")
    return BENCHES[name](args[1:])
