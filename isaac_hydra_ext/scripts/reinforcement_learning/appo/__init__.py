"""`train` and `play` as Isaac Lab users type them."""

import os

# Before NumPy is imported: where OpenBLAS has threads, Kit may crash as it forks during its start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
