"""Which images of a batch each of several processes has, where they train one model together."""

from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """The part of one of `number` processes; `rank` counts from 0."""

    rank: int = 0
    number: int = 1

    def rows(self, size: int) -> Tensor:
        """Places of this part in a batch of `size` images; (size / number,) int64.

        Image i and image size - 1 - i are in one part, in places that mirror each other, wherever the batch can be
        divided so: timm mixes these two, so that mixing a part gives that part of the mixed batch. Otherwise the
        places follow each other.

        Raises:
            ValueError: The batch cannot be divided.
        """
        if size % self.number:
            raise ValueError(f"size: must be a multiple of {self.number}, got {size}")
        share = size // self.number
        if share % 2:
            return torch.arange(self.rank * share, (self.rank + 1) * share)
        first = torch.arange(self.rank * (share // 2), (self.rank + 1) * (share // 2))
        return torch.cat([first, size - 1 - first.flip(0)])


ALONE = Part()
