"""Published datasets in miniature, in the formats in which they are published, made anew for a test."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.nas.photographs import photographs, write_photographs

NUM_CLASSES = {"cifar10": 10, "cifar100": 100}


def write_cifar(root: Path, name: str, *, per_class: int = 6, per_class_test: int = 2) -> Path:
    """`root`, with the binary version: records of labels and the pixels of each colour, shuffled over the files."""
    num_classes = NUM_CLASSES[name]
    folder = root / {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[name]
    folder.mkdir(parents=True)
    if name == "cifar10":
        train = [f"data_batch_{number}.bin" for number in range(1, 6)]
        names, test = "batches.meta.txt", "test_batch.bin"
    else:
        train, names, test = ["train.bin"], "fine_label_names.txt", "test.bin"
    shuffle = np.random.default_rng(0)
    for seed, (files, count) in enumerate(((train, per_class), ([test], per_class_test))):
        labels_N = shuffle.permutation(np.repeat(np.arange(num_classes, dtype=np.uint8), count))
        pixels_NCSS = photographs(len(labels_N), 32, seed=seed).transpose(0, 3, 1, 2)
        columns = [labels_N[:, None], pixels_NCSS.reshape(len(labels_N), -1)]
        if name == "cifar100":
            columns.insert(0, labels_N[:, None] // 5)  # the coarse label
        for file, records in zip(files, np.array_split(np.concatenate(columns, axis=1), len(files)), strict=True):
            (folder / file).write_bytes(records.tobytes())
    (folder / names).write_text("".join(f"class_{number}\n" for number in range(num_classes)) + "\n", encoding="utf-8")
    return root


def write_shards(root: Path, *, num_shards: int = 3, per_shard: int = 20, num_classes: int = 3) -> str:
    """Shards of training and one of test images below `root`; what stands after wds/ in a name."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(num_shards):
        write_shard(root / f"photos-train-{number:03d}.tar", per_shard, num_classes, seed=number)
    write_shard(root / "photos-val-000.tar", 3 * num_classes, num_classes, seed=99)
    return f"{root}/photos-train-{{000..{num_shards - 1:03d}}}.tar"


def write_shard(path: Path, num_images: int, num_classes: int, *, seed: int) -> None:
    with tarfile.open(path, "w") as tar:
        for index, image_SSC in enumerate(photographs(num_images, 32, seed=seed)):
            add(tar, f"{seed:03d}/{index:06d}.jpg", jpeg(image_SSC))
            add(tar, f"{seed:03d}/{index:06d}.cls", str(index % num_classes).encode())
            add(tar, f"{seed:03d}/{index:06d}.json", b"{}")  # what else there may be


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def jpeg(image_SSC: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_SSC).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_imagenet(root: Path) -> Path:
    """`root`, as torchvision unpacks ImageNet: names of classes are of WordNet, those of images end with JPEG."""
    write_photographs(root, side=40, per_class=8)
    for part in ("train", "val"):
        for old, new in (("a", "n01440764"), ("b", "n01443537")):
            folder = (root / part / old).rename(root / part / new)
            for path in folder.iterdir():
                path.rename(path.with_suffix(".JPEG"))
    return root


def write_hugging_face(root: Path, form: str) -> Path:
    """`root`, as `datasets` saves it ("saved"), as the Hub keeps it ("parquet"), or as folders of images ("images")."""
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    if form == "images":
        write_photographs(root / "images", side=32, per_class=12)
        (root / "images" / "val").rename(root / "images" / "test")
        return root / "images"
    features = datasets.Features(
        {"id": datasets.Value("int64"), "img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    parts = {}
    for seed, (part, count) in enumerate((("train", 24), ("test", 6))):
        rows = [
            {"id": index, "img": {"bytes": jpeg(image_SSC), "path": None}, "label": index % 2}
            for index, image_SSC in enumerate(photographs(count, 32, seed=seed))
        ]
        parts[part] = datasets.Dataset.from_list(rows, features=features)
    if form == "saved":
        datasets.disable_progress_bars()
        datasets.DatasetDict(parts).save_to_disk(str(root / form))
    else:
        for part, rows in parts.items():
            (root / form / "data").mkdir(parents=True, exist_ok=True)
            rows.to_parquet(str(root / form / "data" / f"{part}-00000-of-00001.parquet"))
    return root / form


TENSORFLOW_BUILDER = """
import tensorflow_datasets as tfds

class Builder(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=["cat", "dog"])}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(24, 0), "test": self._generate_examples(6, 1)}

    def _generate_examples(self, number, seed):
        import io
        from tests.nas.photographs import photographs
        from tests.nas.sets import jpeg
        for index, image in enumerate(photographs(number, 32, seed=seed)):
            yield index, {"image": io.BytesIO(jpeg(image)), "label": index % 2}
"""


def write_tensorflow(root: Path) -> Path:
    """`root`, with a set called pets, prepared by tensorflow-datasets in a process of its own."""
    pytest.importorskip("tensorflow_datasets", reason="needs the package tensorflow-datasets")
    package = root / "code" / "pets"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "pets_builder.py").write_text(TENSORFLOW_BUILDER, encoding="utf-8")
    code = """if True:
        import sys
        from pets.pets_builder import Builder
        Builder(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
    """
    paths = [str(package.parent), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", code, str(root / "sets")], check=True, capture_output=True, env=environment)
    return root / "sets"


def write_set(kind: str, root: Path) -> str:
    """A set of a kind below `root`, and its name."""
    if kind.startswith("cifar"):
        return f"torch/{kind}:{write_cifar(root, kind)}"
    if kind == "imagenet":
        return f"torch/imagenet:{write_imagenet(root)}"
    if kind == "shards":
        return f"wds/{write_shards(root)}"
    if kind == "pets":
        return f"tfds/pets:{write_tensorflow(root)}"
    return f"hfds/{write_hugging_face(root, kind)}"
