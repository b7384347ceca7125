"""Images by name: what a dataset is, and the datasets that are known.

Importing this loads no images; a dataset's module is imported when its name is asked for.
"""

from nas.data.registry import (
    SMALLEST_SIDE,
    Batch,
    DataError,
    DataInfo,
    Dataset,
    Fit,
    Look,
    Split,
    check_recipe,
    default_recipe,
    default_resolution,
    fingerprint_of,
    fit_of,
    look,
    mix_seed,
    mixes,
    names,
    open_dataset,
    register_dataset,
    shuffled_class,
    train_batch_size,
    wrong,
)

__all__ = [
    "SMALLEST_SIDE",
    "Batch",
    "DataError",
    "DataInfo",
    "Dataset",
    "Fit",
    "Look",
    "Split",
    "check_recipe",
    "default_recipe",
    "default_resolution",
    "fingerprint_of",
    "fit_of",
    "look",
    "mix_seed",
    "mixes",
    "names",
    "open_dataset",
    "register_dataset",
    "shuffled_class",
    "train_batch_size",
    "wrong",
]
