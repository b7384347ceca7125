"""The ledger: device time that is given, spent and reserved."""

from nas.study.budget import BudgetError


class Ledger:
    """Device-seconds given, spent and reserved; a lease is charged what it has used so far, never twice.

    Its figures may be read from another thread than the one that changes them.
    """

    def __init__(self, seconds: float, *, spent: float = 0.0, lost: float = 0.0) -> None:
        self.total = seconds
        self.spent = spent
        self.lost = lost  # what is spent and no lease reported, since its driver was killed
        self.reserved = 0.0  # what the open leases are expected to use yet
        self._open: dict[str, tuple[float, float]] = {}  # lease name: (charged, expected)

    @property
    def left(self) -> float:
        """What is not spent; below 0 where the last reports came after the end."""
        return self.total - self.spent

    @property
    def free(self) -> float:
        """What is neither spent nor reserved."""
        return self.left - self.reserved

    def open(self, name: str, *, expected: float) -> None:
        """Reserve `expected` seconds for a new lease."""
        if name in self._open:
            raise BudgetError(f"lease: must be opened once, got {name!r} again")
        self._open[name] = (0.0, expected)
        self.reserved += max(0.0, expected)

    def charge(self, name: str, seconds: float) -> float:
        """Note that an open lease has used `seconds` in all by now; what it is charged, which never falls."""
        before, expected = self._open[name]
        charged = max(before, seconds)
        self._open[name] = (charged, expected)
        self.spent += charged - before
        self._release(max(0.0, expected - before) - max(0.0, expected - charged))
        return charged

    def expect(self, name: str, more: float) -> None:
        """Reserve for an open lease so many seconds beyond what it is charged, in place of what is left of before."""
        charged, expected = self._open[name]
        self._open[name] = (charged, charged + max(0.0, more))
        self.reserved = max(0.0, self.reserved + max(0.0, more) - max(0.0, expected - charged))

    def lose(self, seconds: float) -> None:
        """Note what a lease had used that its driver left open, beyond what it was charged."""
        self.spent += seconds
        self.lost += seconds

    def close(self, name: str) -> None:
        """End a lease; what it used stays spent, the rest of its reservation is free."""
        charged, expected = self._open.pop(name)
        self._release(max(0.0, expected - charged))

    def _release(self, seconds: float) -> None:
        """Take from what is reserved; nothing of it is left to rounding where no lease is open."""
        self.reserved = max(0.0, self.reserved - seconds) if self._open else 0.0
