"""Simple classifiers on the same pixels as the models see: what a search on a small dataset has to beat.

N images of a split, F numbers of an image.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from nas.data import DataInfo, Dataset, Split
from nas.study.recipe import Recipe

_MOST_NUMBERS = 10_000_000  # of all images together; beyond it the classifiers would take minutes


def is_small(info: DataInfo) -> bool:
    """Whether the classifiers take seconds at most on such a dataset."""
    return sum(info.num_images.values()) * 3 * info.resolution**2 <= _MOST_NUMBERS


def simple_classifiers(dataset: Dataset, recipe: Recipe) -> dict[str, tuple[float, float]]:
    """Accuracies in [0, 1] on val and on test of 1-nearest neighbour and logistic regression, trained on train.

    Raises:
        DataError: An image cannot be read.
    """
    from sklearn.linear_model import LogisticRegression  # takes two seconds, for small sets alone
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    splits: tuple[Split, ...] = ("train", "val", "test")
    train, val, test = (_pixels(dataset, split, recipe) for split in splits)
    classifiers = {
        "1-nearest neighbour": KNeighborsClassifier(1),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=1e-3)),
    }
    found = {}
    for name, classifier in classifiers.items():
        classifier.fit(*train)
        found[name] = (float(classifier.score(*val)), float(classifier.score(*test)))
    return found


def _pixels(dataset: Dataset, split: Split, recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The images of a split as rows (N, F) without numbers that repeat another channel's, and their labels (N,)."""
    batches = list(dataset.eval_batches(split, recipe, device=torch.device("cpu")))
    x_NCHW = torch.cat([batch.x_BCHW for batch in batches])
    if bool((x_NCHW == x_NCHW[:, :1]).all()):
        x_NCHW = x_NCHW[:, :1]
    return x_NCHW.flatten(1).numpy(), torch.cat([batch.y for batch in batches]).numpy()
