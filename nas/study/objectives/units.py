"""Numbers with units, as people write and read them."""

import re
from collections.abc import Mapping

from metaformer.errors import UserError, shown

_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def short_count(count: float) -> str:
    """A count in three figures: `152 k`, `11.9 M`, `1.82 G`."""
    size, unit = next(((size, unit) for size, unit in _COUNTS if count >= 0.9995 * size), (1, ""))
    value = count / size
    digits = 0 if value >= 99.95 or not unit else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}".strip()


def parse_quantity(field: str, text: str, units: Mapping[str, float], *, example: str) -> float:
    """A number above 0 with a unit, in the unit whose factor is 1.

    Raises:
        UserError: The text has another form; the message names the field and shows the example.
    """
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([A-Za-z]+)", text.strip())
    if not match or match[2] not in units or float(match[1]) == 0:
        raise UserError(
            f"{field}: must be a number above 0 and one of {', '.join(units)}, as {example}, got {shown(text)}"
        )
    return float(match[1]) * units[match[2]]
