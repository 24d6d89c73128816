"""Which of our two languages an answer speaks (Accept-Language by RFC 9110, with its q-values), and the reasons of a
refusal in it. Pure; used by the pipeline for errors only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from proto.codes import Language
from proto.reasons import reason_in

HEADER_CHARS_MAX = 200  # browsers send about 50
CACHED_MAX = 1_000

# A range with its weight; what does not look like one is no wish at all.
_RANGE = re.compile(
    r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)\s*(?:;\s*[qQ]\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?"
)
_OURS: dict[str, Language] = {"en": "en", "pt": "pt"}
NAMES: dict[Language, str] = {"en": "en", "pt": "pt-BR"}


# A language that nobody spoke of: better than one that is refused, worse than any that is wished for.
_UNSPOKEN, _UNSPOKEN_DEFAULT = 0.0002, 0.0005  # the smallest weight of the RFC is 0.001


@lru_cache(maxsize=CACHED_MAX)
def language_of(accepted: str, default: Language) -> Language:
    """The one that weighs most; of equals the one named first. Without a fitting wish the dialect's own, unless that
    is refused (`q=0`)."""
    named: dict[Language, float] = {}
    anything: float | None = None
    for part in accepted[:HEADER_CHARS_MAX].split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            continue
        weight = float(found[2] or 1)
        ours = _OURS.get(found[1].partition("-")[0].lower())
        if ours is not None:
            named[ours] = max(named.get(ours, 0.0), weight)
        elif found[1] == "*":
            anything = weight
    other: Language = "en" if default == "pt" else "pt"
    weights: dict[Language, float] = dict(named)
    weights.setdefault(default, _UNSPOKEN_DEFAULT if anything is None else anything)
    weights.setdefault(other, _UNSPOKEN if anything is None else anything)
    return default if not any(weights.values()) else max(weights, key=lambda ours: weights[ours])


def spoken(facts: Mapping[str, Any], language: Language) -> Mapping[str, Any]:
    """With the reasons in the caller's language."""
    if language == "en" or "reason" not in facts:
        return facts
    field = str(facts.get("field", ""))
    problems = [{**one, "reason": reason_in(language, one["reason"], one["field"])} for one in facts.get("errors", ())]
    said = {**facts, "reason": reason_in(language, str(facts["reason"]), field)}
    return {**said, "errors": problems} if problems else said
