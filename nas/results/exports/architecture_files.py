"""Writing the architecture as text: YAML, JSON, and a Python file that builds the model."""

import os
from pathlib import Path

from metaformer.errors import printable
from nas.results.exports.subject import Subject
from nas.results.picks import architecture_text, origin_lines

_SNIPPET = '''"""{title}

{facts}
"""

from pathlib import Path

import metaformer

ARCHITECTURE = """\\
{architecture}"""


def build({parameter}) -> metaformer.MetaFormer:
    """{first_line}"""
    arch = metaformer.Architecture.from_yaml(ARCHITECTURE)
    return {made}.eval()


if __name__ == "__main__":
    print(build())
'''


def write_yaml(subject: Subject, target: Path, *, name: str) -> None:
    """The architecture below comments that say where it comes from."""
    target.write_text(architecture_text(subject.run.name, subject.trial, file=name), encoding="utf-8")


def write_json(subject: Subject, target: Path) -> None:
    """The architecture alone; `metaformer.build` reads it, since JSON is YAML."""
    target.write_text(subject.trial.architecture.model_dump_json(indent=2) + "\n", encoding="utf-8")


def write_python(subject: Subject, target: Path, *, out: Path, weights: Path | None) -> None:
    """A file whose `build()` gives the model, with the trained weights where there is a file of them."""
    title, *facts = origin_lines(subject.run.name, subject.trial)
    if weights is None:
        parameter, made, first_line = "", "metaformer.build(arch)", "The model, freshly initialised."
    else:
        place = Path(os.path.relpath(weights.parent.resolve(), out.parent.resolve())) / weights.name
        parameter = f"weights: Path = Path(__file__).parent / {str(place)!r}"
        made, first_line = "metaformer.load(arch, weights)", "The model with its trained weights."
    text = _SNIPPET.format(
        title=_quotable(title),
        facts=_quotable("\n".join(facts)),
        architecture=subject.trial.architecture.to_yaml(),
        parameter=parameter,
        made=made,
        first_line=first_line,
    )
    target.write_text(text if weights else text.replace("from pathlib import Path\n\n", ""), encoding="utf-8")


def _quotable(text: str) -> str:
    """The text as it may stand inside a docstring."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')
