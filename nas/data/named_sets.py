"""The datasets whose images are streamed: folders, torchvision's sets, tar shards, Hugging Face's, TensorFlow's."""

from nas.data.registry import Look, register_dataset
from nas.data.sources import Source
from nas.data.sources.folder import FolderSource, look_at_folder, root_of
from nas.data.streamed import Streamed
from nas.study.recipe import Recipe
from nas.study.splitting import Splitting


@register_dataset("folder", resolution=224, recipe=Recipe(), argument="PATH", takes_splitting=True)
class Folder(Streamed):
    """PATH/train/CLASS/* and PATH/val/CLASS/*: val is our test, and a part of each class in train is our val."""

    @staticmethod
    def make_source(argument: str, splitting: Splitting) -> Source:
        return FolderSource(argument, splitting)

    @classmethod
    def look(cls, argument: str) -> Look:
        """Without a list of all images, which takes minutes for a million."""
        return look_at_folder(root_of(argument))


@register_dataset("torch", resolution=224, recipe=Recipe(), argument="SET", separator="/", takes_splitting=True)
class TorchSet(Streamed):
    """cifar10, cifar100 or imagenet, with :ROOT where they do not lie in the folder of datasets."""

    @staticmethod
    def make_source(argument: str, splitting: Splitting) -> Source:
        from nas.data.sources.torch_sets import open_torch_set

        return open_torch_set(argument, splitting)


@register_dataset("wds", resolution=224, recipe=Recipe(), argument="SHARDS", separator="/", takes_splitting=True)
class Shards(Streamed):
    """Tar files of a WebDataset, such as /data/train-{000..146}.tar; those named test or val instead are our test."""

    @staticmethod
    def make_source(argument: str, splitting: Splitting) -> Source:
        from nas.data.sources.shards import ShardSource

        return ShardSource(argument, splitting)


@register_dataset("hfds", resolution=224, recipe=Recipe(), argument="PATH", separator="/", takes_splitting=True)
class HuggingFace(Streamed):
    """A folder that Hugging Face's datasets package has saved, or that it reads as Parquet files or as images."""

    @staticmethod
    def make_source(argument: str, splitting: Splitting) -> Source:
        from nas.data.sources.hugging_face import HuggingFaceSource

        return HuggingFaceSource(argument, splitting)


@register_dataset("tfds", resolution=224, recipe=Recipe(), argument="NAME", separator="/", takes_splitting=True)
class TensorFlowSet(Streamed):
    """What tensorflow-datasets has prepared as array_record, with :ROOT where it is not in the folder of datasets."""

    @staticmethod
    def make_source(argument: str, splitting: Splitting) -> Source:
        from nas.data.sources.tensorflow_sets import TensorFlowSource

        return TensorFlowSource(argument, splitting)
