"""python -m nas.replay: what other settings would have found."""

from nas import cli
from nas.replay import replay

if __name__ == "__main__":
    cli.run(replay)
