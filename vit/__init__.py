"""Which vision architecture should I train on this many images, how well will it do, and what does it look at?"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from vit.bundle import load


def __getattr__(name: str) -> object:
    """`vit.load` without importing torch when only `vit` is imported."""
    if name == "load":
        from vit.bundle import load

        return load
    raise AttributeError(f"module 'vit' has no attribute {name!r}")
