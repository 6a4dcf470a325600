"""What the C library does with memory that a training step has freed."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 2**31 - 1
LARGEST_IN_HEAP = 32 * 2**20  # glibc allows no more


def keep_freed_memory() -> None:
    """Keep it for the next step, which needs the same again.

    Otherwise glibc returns it to the system after every step and gets it back page by page, each filled with zeros
    first: a tenth of a supernet's step on a CPU. The peak stays as it is. Without glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(MMAP_THRESHOLD, LARGEST_IN_HEAP)
    mallopt(TRIM_THRESHOLD, LARGEST)
