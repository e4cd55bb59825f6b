"""The metres of MIDI files, read from their bytes, without their notes.

Source: the Standard MIDI File 1.0, meta event FF 58 04: numerator, power of two of the denominator.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_TIME_SIGNATURE = re.compile(rb"\xff\x58\x04([\x01-\x40])([\x00-\x06])", re.DOTALL)
_MAX_BYTES = 2**23  # of one MIDI file


def count_metres(files: Iterable[Path]) -> Counter[str]:
    """Count the first metres of MIDI files, such as "6/8".

    Args:
        files: the files. Those that can't be read, or are larger than 8 MB, are left out.

    Returns:
        {metre: number of files}; "none" counts the files without a time signature, which means 4/4.
    """
    metres: Counter[str] = Counter()
    for path in files:
        try:
            if path.stat().st_size > _MAX_BYTES:
                continue
            found = _TIME_SIGNATURE.search(path.read_bytes())
        except OSError:
            continue
        metres[f"{found[1][0]}/{2 ** found[2][0]}" if found else "none"] += 1
    return metres
