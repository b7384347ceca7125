"""python -m nas.transfer: an architecture as the backbone of a detector or a segmenter."""

from nas import cli
from nas.transfer import transfer

if __name__ == "__main__":
    cli.run(transfer)
