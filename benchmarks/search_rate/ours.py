"""`python -m nas.search` with one more space: `listed`, of the models that are named first.

python -m benchmarks.search_rate.ours poolformer_s12,metaformer_id_s12 --space listed --data digits ...
"""

import sys

from nas import cli
from nas.search import search


def main() -> None:
    names = sys.argv.pop(1)
    with cli.deaf_threads():
        from benchmarks.search_rate.space import SPACE, make_listed
        from search_spaces.space import register_space
    register_space(SPACE)(make_listed(names.split(",")))
    cli.run(search)


if __name__ == "__main__":
    main()
