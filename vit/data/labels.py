"""What learns from labels, or is tested on them, needs some."""

from vit.data.catalog import Description


def require_labels(data: Description, what: str) -> None:
    """Raise ValueError where all pictures are of one class: there is nothing for ``what`` to tell apart."""
    if len(data.classes) < 2:
        raise ValueError(
            f"{what} needs labels: expected pictures of at least two classes, got {data.name!r} with "
            f"{', '.join(data.classes)!r} alone; name labelled pictures, or pretrain without labels by -c pretrain/mae"
        )
