"""Recipes by name, each a file in `recipes/` beside this module, and recipes in files of one's own."""

from pathlib import Path

from pydantic import ValidationError

from metaformer.documents import exists, parse_mapping, read_text
from metaformer.errors import UserError, check_type, explain, unknown_name
from nas.study.recipe import Recipe

_FOLDER = Path(__file__).parent / "recipes"


class RecipeError(UserError):
    """A recipe that cannot be read; the message names field, rule and value."""


def names() -> list[str]:
    """The known names."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def find_recipe(source: str) -> Recipe:
    """The recipe of a known name, or in a YAML file; fields that a file leaves out have the defaults of `Recipe`.

    Raises:
        RecipeError: The name is not known, or the file is missing or not a recipe.
    """
    check_type(source, str, "recipe: must be a name or a path", error=RecipeError)
    if source in names():
        return _read(_FOLDER / f"{source}.yaml")
    if Path(source).suffix in {".yaml", ".yml"} or exists(source):
        return _read(Path(source))
    raise RecipeError(unknown_name("recipe", source, names()))


def _read(path: Path) -> Recipe:
    fields = parse_mapping(read_text(path, "recipe", error=RecipeError), f"recipe {path}", error=RecipeError)
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"recipe {path}: {explain(error, Recipe)}") from None
