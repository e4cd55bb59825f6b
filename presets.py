"""Presets: recipes other than the default, given how much there is to learn from.

A preset, for `main.py --preset`, gives values in place of the defaults of `settings.py`; a flag of
the user's goes over it.
"""

import math
from collections.abc import Callable
from typing import Any


def best(frames: int) -> dict[str, Any]:
    """Return a recipe for a low NLL in minutes on 2 CPU cores.

    Chosen by the valid splits of Nottingham and JSB Chorales, in single runs.
    `benchmarks/results.py ablation` takes it apart; the README has what that said of JSB Chorales.
    What depends on the set depends on how many frames there are to learn from: the fewer, the more
    is dropped and moved to other keys, and the sooner it has been learnt.

    Args:
        frames: of the training split.
    """
    # 0 from 262,144 frames on, 0.14 for Nottingham, 1 for JSB Chorales: a quarter each halving.
    scarcity = min(max(math.log2(2**18 / frames) / 4, 0.0), 1.0)
    return {
        "embed_size": 128,
        "hidden_size": 384,
        "latent_size": 128,  # dropout keeps many units from learning the tunes by heart
        # Attention of an LSTM over its own past (Grave et al. 2017, arXiv:1612.04426), with a bias
        # for each lag (Raffel et al. 2020, arXiv:1910.10683); its length bounds time and memory.
        "memory": 1024,
        "heads": 2,
        "head_size": 48,
        # So that the model sees whether what the memory said a moment ago came true.
        "upper_layers": 1,
        # What is known in one key, and of one voice, is known in all (Lattner et al. 2018,
        # arXiv:1806.08236).
        "intervals": True,
        # What is repeated tells one tune from all others, and intervals do so in every key: without
        # this, JSB Chorales are learnt by heart, although every one of them is transposed.
        "view_dropout": round(0.38 + 0.12 * scarcity, 2),
        # Where no time is crossed (Zaremba et al. 2014, arXiv:1409.2329).
        "dropout": round(0.48 + 0.22 * scarcity, 2),
        # The benchmark's sets are in C: unmoved, most keys would hardly be heard. Told by how much
        # it was moved, the model need not wonder which key a tune is in.
        "transpose": round(0.53 + 0.47 * scarcity, 2),
        "batch_size": 16,
        "steps": round(9_200 - 5_600 * scarcity),
        "lr": 0.0025,
        "warmup": 0.3,  # one cycle (Smith and Topin 2018, arXiv:1708.07120)
    }


# Each is given the frames of the training split.
PRESETS: dict[str, Callable[[int], dict[str, Any]]] = {"default": lambda frames: {}, "best": best}
