"""Device time: budgets as people write them, and the ledger that spends one once."""

import re
from typing import Literal, NamedTuple, Self

from metaformer.errors import UserError, check_type, shown

DeviceKind = Literal["cpu", "gpu"]
_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
_CONVERGED = 0.005  # of the hypervolume: what `converged` stands for
_MOST = 1e9  # of any unit; nobody has more, and what is larger was mistyped
_LONGEST = 100 * 365 * 86400.0  # seconds of wall time
_FORM = re.compile(
    r"(?P<amount>[0-9]+(?:\.[0-9]+)?)(?P<device>cpu|gpu)-(?P<unit>seconds|minutes|hours|days|second|minute|hour|day)"
)


class BudgetError(UserError):
    """A budget that cannot be read or spent; the message names field, rule and value."""


class Budget(NamedTuple):
    """So many seconds of one kind of device: a CPU core or a GPU."""

    device: DeviceKind
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """The budget written as `text`, such as `64gpu-days` or `90cpu-minutes`.

        Raises:
            BudgetError: The text has another form, or the amount is not above 0.
        """
        check_type(text, str, "budget: must be text such as 64gpu-days", error=BudgetError)
        match = _FORM.fullmatch(text.strip())
        if not match or not 0 < float(match["amount"]) < _MOST:
            raise BudgetError(
                "budget: must be a number above 0 and a unit such as 64gpu-days, 36gpu-hours or 90cpu-minutes, "
                f"got {shown(text)}; nearest: {_nearest(text)}"
            )
        unit = match["unit"] if match["unit"].endswith("s") else match["unit"] + "s"
        device: DeviceKind = "gpu" if match["device"] == "gpu" else "cpu"
        return cls(device, float(match["amount"]) * _SECONDS[unit])

    def __str__(self) -> str:
        return format_device_time(self.seconds, self.device)

    def extended(self, more: "Budget") -> str:
        """This budget and `more` together, written so that nothing is rounded away.

        Raises:
            BudgetError: They are of different devices.
        """
        if more.device != self.device:
            raise BudgetError(f"extend: must be {self.device.upper()} time, as the budget is, got {str(more)!r}")
        total = Budget(self.device, self.seconds + more.seconds)
        is_exact = total.seconds >= 0.01 and Budget.parse(str(total)) == total
        return str(total) if is_exact else f"{total.seconds:f}{self.device}-seconds"


def format_device_time(seconds: float, device: DeviceKind) -> str:
    """Device time in the largest unit that gives at least 1, such as `5.9cpu-minutes`; `parse` reads it."""
    sizes = sorted(_SECONDS.items(), key=lambda item: -item[1])
    unit, size = next(((unit, size) for unit, size in sizes if seconds >= size), ("seconds", 1))
    return f"{round(seconds / size, 2):g}{device}-{unit}"


def parse_duration(field: str, text: str) -> float:
    """Seconds of wall time written as `text`, such as `12h`, `90m`, `2d` or `30s`.

    Raises:
        BudgetError: The text has another form, or the amount is not above 0.
    """
    check_type(text, str, f"{field}: must be text such as 12h", error=BudgetError)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text.strip())
    sizes = {unit[0]: size for unit, size in _SECONDS.items()}
    seconds = float(match[1]) * sizes[match[2]] if match else 0.0
    if seconds > _LONGEST:
        raise BudgetError(f"{field}: must be at most 36500d, got {shown(text)}")
    if not seconds:
        raise BudgetError(f"{field}: must be a number above 0 and a unit such as 12h, 90m or 2d, got {shown(text)}")
    return seconds


def parse_interval(field: str, text: str) -> float | None:
    """Seconds of wall time between two events; None for `never`.

    Raises:
        BudgetError: The text is neither a duration nor never.
    """
    check_type(text, str, f"{field}: must be text such as 5m, or never", error=BudgetError)
    return None if text.strip() == "never" else parse_duration(field, text)


def parse_share(field: str, text: str) -> float | None:
    """The part of a budget that is written as `text`, such as `20%`, in (0, 1); 0 for `off`, None for `auto`.

    Raises:
        BudgetError: The text is none of these.
    """
    check_type(text, str, f"{field}: must be text such as 20%, off or auto", error=BudgetError)
    known = {"off": 0.0, "auto": None}
    if text.strip() in known:
        return known[text.strip()]
    return _part(field, text, "off, auto, or a part of the budget above 0% and below 100%, such as 20%")


def parse_until(text: str) -> float | None:
    """The part of the hypervolume below which the rest of a budget is not worth spending; None for `budget`.

    Raises:
        BudgetError: The text is neither `budget`, `converged` nor such a part.
    """
    check_type(text, str, "until: must be text such as converged", error=BudgetError)
    known = {"budget": None, "converged": _CONVERGED}
    if text.strip() in known:
        return known[text.strip()]
    return _part("until", text, "budget, converged, or a part of the hypervolume above 0% and below 100%, such as 0.5%")


def _part(field: str, text: str, allowed: str) -> float:
    """A percentage as a number in (0, 1)."""
    match = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]{1,6})?) ?%", text.strip())
    if not match or not float(match[1]):
        raise BudgetError(f"{field}: must be {allowed}, got {shown(text)}")
    return float(match[1]) / 100


def _nearest(text: str) -> str:
    """A budget that can be read and is most like `text`."""
    number = re.search(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text)
    amount = number.group() if number and float(number.group()) > 0 else "1"
    device = "cpu" if "cpu" in text.lower() else "gpu"
    usual = "minutes" if device == "cpu" else "days"
    unit = next((unit for unit in _SECONDS if unit.removesuffix("s") in text.lower()), usual)
    return f"{amount}{device}-{unit}"
