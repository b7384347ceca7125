"""What spaces of isotropic models share: one stage of equal blocks behind square patches."""

from abc import abstractmethod

from metaformer import zoo
from metaformer.architecture import Architecture
from metaformer.specs import Stage, Stem
from search_spaces.space import SMALL_IMAGES, SMALL_WIDTHS, Genes, SearchSpace, SpaceError, SpaceSettings

PATCH = "patch"  # the gene; its values are text, since the divisors of a resolution are not evenly spaced
LARGEST_PATCH = 32  # pixels
SIDES = range(4, 33)  # of the map of tokens


class OneStageSpace(SearchSpace):
    """One stage behind the patches of the gene `patch`, which takes the place of the stem of the settings.

    The patches are those up to 32 pixels that divide the resolution into a map of 4 to 32 tokens a side.
    """

    takes_stem = False
    num_maps = 1

    def __init__(self, settings: SpaceSettings) -> None:
        """Find the patches for the resolution.

        Raises:
            SpaceError: No patch fits the resolution, or the settings have a stem.
        """
        super().__init__(settings)
        if settings.stem != Stem():
            raise SpaceError(
                f"settings.stem: must be left out in {self.name}, whose gene patch is the stem, got a kernel of "
                f"{settings.stem.kernel} and stride {settings.stem.stride}"
            )
        self.sides = sides_by_patch(settings.resolution)

    @property
    def patches(self) -> tuple[str, ...]:
        """The values of the gene `patch`, from the finest."""
        return tuple(str(patch) for patch in self.sides)

    @property
    def is_small(self) -> bool:
        """Whether the images are as small as those of CIFAR."""
        return self.settings.resolution <= SMALL_IMAGES

    @abstractmethod
    def reference_names(self) -> tuple[str, ...]:
        """The models of the zoo that are references for images of this size."""

    def references(self) -> dict[str, Architecture]:
        """The genes that a model has in the space of its own images, with the patch that gives as many tokens."""
        return {name: self._fitted(zoo.get(name)) for name in self.reference_names()}

    def stem_text(self) -> str:
        *most, last = self.patches
        return f"patches of {' or '.join([', '.join(most), last]) if most else last} pixels"

    def scaled(self, width: int) -> int:
        """A width in channels after the settings' factor."""
        return round(width * self.settings.width_scale)

    def width_gene(self, stage: Stage) -> int:
        """The width of a stage before that factor."""
        return round(stage.width / self.settings.width_scale)

    def stage_and_stem(self, arch: Architecture) -> tuple[Stage, Stem]:
        """The two parts that carry the genes.

        Raises:
            SpaceError: The architecture has more stages, or no patches.
        """
        stage = self.only_stage(arch)
        if not isinstance(arch.stem, Stem):
            raise SpaceError(f"stem.kind: must be conv in {self.name}, got {arch.stem.kind}")
        return stage, arch.stem

    def only_stage(self, arch: Architecture) -> Stage:
        """The stage of an architecture that has one.

        Raises:
            SpaceError: It has more.
        """
        if len(arch.stages) != 1:
            raise SpaceError(f"stages: must be one in {self.name}, got {len(arch.stages)}")
        return arch.stages[0]

    def _fitted(self, arch: Architecture) -> Architecture:
        """A published model at the resolution, classes and widths of the settings.

        It keeps the side of its map. Where no patch gives that side, it has the next smaller one.
        """
        is_small = arch.resolution <= SMALL_IMAGES
        own = SpaceSettings(
            resolution=arch.resolution,
            num_classes=arch.head.num_classes,
            width_scale=SMALL_WIDTHS if is_small else 1.0,
        )
        genes: Genes = type(self)(own).encode(arch)
        [side] = arch.sides()
        smaller = [patch for patch, of_patch in self.sides.items() if of_patch <= side]
        return self.decode({**genes, PATCH: str(min(smaller)) if smaller else self.patches[-1]})


def sides_by_patch(resolution: int) -> dict[int, int]:
    """Each patch that fits images of a resolution, in pixels, and the side of its map, in tokens.

    Raises:
        SpaceError: None fits.
    """
    found = _sides_by_patch(resolution)
    if not found:
        nearest = min(_FITTING, key=lambda other: abs(other - resolution))
        raise SpaceError(
            f"resolution: must be a patch of up to {LARGEST_PATCH} pixels times {SIDES[0]} to {SIDES[-1]} tokens, such "
            f"as {nearest}, got {resolution}"
        )
    return found


def useful_size(size: int, side: int) -> int:
    """The window that sees as much: from 2 * side - 1 tokens on, each window holds the whole map of that side."""
    return min(size, 2 * side - 1)


def _sides_by_patch(resolution: int) -> dict[int, int]:
    return {
        patch: resolution // patch
        for patch in range(1, LARGEST_PATCH + 1)
        if resolution % patch == 0 and resolution // patch in SIDES
    }


_FITTING = sorted({patch * side for patch in range(1, LARGEST_PATCH + 1) for side in SIDES})  # resolutions in pixels
