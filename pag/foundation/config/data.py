"""`data` of a conf: where the images come from."""

from typing import Literal

from pag.foundation.config.section import Count, Fraction, Section, Side

Channels = Literal[1, 3]


class DataConfig(Section):
    """Where the images come from and how they are split."""

    loader: str  # a name of pag.datasets.LOADERS
    root: str | None = None  # folder or archive of the raw files; a relative path starts at the repository
    download: bool = False  # may the loader fetch missing raw files
    # The validation part: model selection may look only at it. Where the source has one of its own, nothing is cut.
    validation_fraction: Fraction = 0.1  # of the training images, stratified
    test_fraction: Fraction | None = None  # only for sources without an official test part
    train_limit: Count | None = None  # keep this many training images, class-balanced
    test_limit: Count | None = None
    image_size: Side | None = None  # resize to this side in pixels (folders of larger images); null keeps the source's
    channels: Channels | None = None  # of folders: 1 makes all images grey, 3 RGB; null: all are the one or the other
    allow_overlap: bool = False  # may over 1 % of a part's images be in another part too, or have two labels
    allow_dark: bool = False  # may the largest raw value be below a quarter of white
    note: str | None = None  # stands beside every number of the report, e.g. "JPEG copy"
