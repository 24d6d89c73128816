"""One spelling for GPU names: `RTX_4090`, `rtx-4090` and `NVIDIA GeForce RTX 4090` are `RTX 4090`.

Used by all dialects. Pure.
"""

from __future__ import annotations

import re

_SEPARATORS = re.compile(r"[\s_\-]+")
_VENDOR = re.compile(r"^(?:NVIDIA |GEFORCE |TESLA )+")
# `RTX4090` is written without the blank by some clients; `A100`, `H100`, `L40S` never have one.
_GLUED = re.compile(r"^(RTX|GTX)(\d)")
_MEMORY = re.compile(r" (\d+) GB$")


def gpu_name(text: str) -> str:
    """As offers spell it: upper case, single blanks, no vendor. A memory size (`24GB`) is part of it and stays."""
    name = _VENDOR.sub("", _SEPARATORS.sub(" ", text.strip()).upper())
    return _MEMORY.sub(r" \1GB", _GLUED.sub(r"\1 \2", name))
