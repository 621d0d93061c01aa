"""Python's full garbage collections, during which a process answers nobody.

A full collection looks at every object that could be part of a cycle, with all threads
held up. A service has some 200,000 of them before it does anything, nearly all code,
classes and schemas of its libraries: 150 ms of processor time, once in about 2,000
requests. With 16 clients each of which waits for it, that is the slowest hundredth.
"""

import gc

YOUNG, MIDDLE, FULL = 700, 10, 100
"""Python's own thresholds, but for the last: ten times fewer full collections. Objects
that nobody has any more are freed at once, as ever; only cycles wait, and most of those
are found young."""


def keep_what_is_built() -> int:
    """Let no collection look again at what there is now; it stays for ever.

    For the moment before the work begins: what the work makes may become garbage, and
    is collected as before.

    Returns
    -------
    int
        How many objects that are.
    """
    gc.collect()  # else what is garbage already would stay too
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, FULL)
    return gc.get_freeze_count()
