"""The tests, each process with one thread, also in programs that they start.

Two processes with two threads each, beside other programs, spend their time waiting for each other. Workers of a search
set their own number.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
