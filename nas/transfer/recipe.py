"""How a backbone is fine-tuned on a dense task: a written-down recipe, by name a file in `recipes/`.

torch is not needed here.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from metaformer.documents import exists, parse_mapping, read_text
from metaformer.errors import explain, unknown_name
from metaformer.specs import Flag, PositiveFloat, Spec
from nas.study.recipe import BelowOne, Fraction, NonNegativeFloat, Part, Precision, Recipe
from nas.study.recipe_files import RecipeError

Task = Literal["retinanet", "mask_rcnn", "semantic_fpn"]
TASKS: tuple[Task, ...] = get_args(Task)
_FOLDER = Path(__file__).parent / "recipes"
_WARMUP_PART = 10  # a short training warms up for a tenth of its steps at most
Pixels = Annotated[int, Field(strict=True, ge=32, le=8192)]
Count = Annotated[int, Field(strict=True, gt=0, le=10**8)]
Channels = Annotated[int, Field(strict=True, ge=8, le=4096)]


class TransferRecipe(Spec):
    """One way to fine-tune on a dense task.

    AdamW on all parameters. The rate of step i of N, counted from 0: the peak `lr`, times the part that the schedule
    leaves of it, times a linear rise from `warmup_factor` to 1 over the warm-up. Schedules:
    - step: a tenth from each of `lr_drops` on.
    - poly: (1 - i / N) ** 0.9.
    """

    task: Task
    epochs: Annotated[int, Field(strict=True, gt=0, le=100_000)] | None = None  # or `steps`
    steps: Count | None = None
    evaluations: Count | None = None  # evenly spread, the last at the end; None: one after each epoch
    batch_size: Annotated[int, Field(strict=True, gt=0, le=65_536)] = 16
    lr: PositiveFloat = 1e-4  # at `batch_size`
    weight_decay: NonNegativeFloat = 1e-4
    clip_grad: PositiveFloat | None = None  # largest norm of the gradient
    schedule: Literal["step", "poly"] = "step"
    lr_drops: tuple[Part, ...] = ()  # parts of the training
    warmup_steps: Annotated[int, Field(strict=True, ge=0, le=10**8)] = 0  # at most a tenth of all
    warmup_factor: Fraction = 0.001
    drop_path: BelowOne | None = None  # rate of the last block; None: the architecture's own
    size: Pixels = 800  # shorter side of the image; of segmentation also the side of the square training crop
    max_size: Pixels = 1333  # longest that the other side becomes
    scale_range: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)  # by which training images of segmentation differ
    photometric: Flag = False  # change brightness, contrast, saturation and hue of training images of segmentation
    flip: Fraction = 0.5  # probability of a horizontal flip
    channels: Channels = 256  # of the feature pyramid; the semantic head has half as many
    precision: Precision = "auto"  # of backbone and pyramid; heads of detectors and all losses are float32

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs: must be given where steps are not, and only there, got {self.epochs}")
        if self.max_size < self.size:
            raise ValueError(f"max_size: must be at least the size {self.size}, got {self.max_size}")
        if self.scale_range[0] > self.scale_range[1]:
            raise ValueError(f"scale_range: must not fall, got {self.scale_range}")
        if self.schedule != "step" and self.lr_drops:
            raise ValueError(f"lr_drops: must be empty unless schedule is step, got {self.lr_drops}")
        if self.task != "semantic_fpn" and (self.photometric or self.scale_range != (1.0, 1.0)):
            raise ValueError(f"scale_range, photometric: must have their defaults with task {self.task}, got others")
        return self

    def num_steps(self, num_images: int) -> int:
        """Steps in all, for so many training images."""
        return (
            self.steps if self.steps is not None else max(1, round((self.epochs or 0) * num_images / self.batch_size))
        )

    def rounds(self, num_images: int) -> list[int]:
        """After how many steps each evaluation comes."""
        total = self.num_steps(num_images)
        number = min(total, self.evaluations or max(1, round(total * self.batch_size / num_images)))
        return [round(total * (index + 1) / number) for index in range(number)]

    def rate(self, step: int, num_steps: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.schedule == "poly":
            part = (1 - step / num_steps) ** 0.9
        else:
            part = 0.1 ** sum(step >= round(place * num_steps) for place in self.lr_drops)
        warmup = min(self.warmup_steps, num_steps // _WARMUP_PART)
        if step < warmup:
            part *= self.warmup_factor + (1 - self.warmup_factor) * step / warmup
        return self.lr * part

    @property
    def optimisation(self) -> Recipe:
        """What the makers of optimizers, of drop path and of autocast read."""
        return Recipe(
            batch_size=self.batch_size,
            lr_per_1024=self.lr * 1024 / self.batch_size,
            weight_decay=self.weight_decay,
            no_decay=(),
            drop_path=self.drop_path,
            precision=self.precision,
        )


def names() -> list[str]:
    """The known names."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def find_recipe(source: str | None, task: str, changes: dict[str, Any]) -> TransferRecipe:
    """The recipe of a name or in a YAML file, or the published one of the task, with changes over it.

    Another `batch_size` changes the rate in proportion; another `size` changes `max_size` so.

    Raises:
        RecipeError: The task, name or a field is unknown, or the recipe is of another task.
    """
    if task not in TASKS:
        raise RecipeError(unknown_name("task", task, TASKS))
    fields = _fields(source if source is not None else f"{task}_published")
    if fields.setdefault("task", task) != task:
        raise RecipeError(f"recipe: must be one of task {task}, got {source} of {fields['task']}")
    recipe = _validated(fields)
    fields = recipe.model_dump()
    if "epochs" in changes or "steps" in changes:
        fields.update(epochs=None, steps=None)
    if "batch_size" in changes:
        fields["lr"] = recipe.lr * changes["batch_size"] / recipe.batch_size
    if "size" in changes:
        fields["max_size"] = round(recipe.max_size * changes["size"] / recipe.size)
    return _validated(fields | changes)


def _fields(source: str) -> dict[str, Any]:
    if source in names():
        path = _FOLDER / f"{source}.yaml"
    elif Path(source).suffix in {".yaml", ".yml"} or exists(source):
        path = Path(source)
    else:
        raise RecipeError(unknown_name("recipe", source, names()))
    return parse_mapping(read_text(path, "recipe", error=RecipeError), f"recipe {path}", error=RecipeError)


def _validated(fields: dict[str, Any]) -> TransferRecipe:
    try:
        return TransferRecipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"recipe.{explain(error, TransferRecipe)}") from None
