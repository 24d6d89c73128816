"""Old event shapes to new ones: pure, one function per change, applied when stored bytes no longer fit the present
struct.

Called by `libs.runtime.codec`. A new optional field needs no upcaster (docs/how-to-add-an-event.md); a changed
meaning does:

- the struct's shape gets the next version and declares `v: Literal[n]` without a default (no `v` on the wire means 1),
  so that old bytes do not fit and come here;
- `UPCASTS[(wire name, old version)]` turns the old JSON object into the next version, or into another event;
- the golden file of the old version stays for ever and proves the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Step = Callable[[dict[str, Any]], dict[str, Any]]

# More steps than any event will ever have had; a table that runs in a circle stops here.
STEPS_MAX = 32

UPCASTS: Mapping[tuple[str, int], Step] = {}


def upcast(event: dict[str, Any], steps: Mapping[tuple[str, int], Step] = UPCASTS) -> dict[str, Any]:
    """The event in its newest shape. Raises ValueError when the table does not come to an end."""
    for _ in range(STEPS_MAX):
        step = steps.get((event["type"], event.get("v", 1)))
        if step is None:
            return event
        event = step(event)
    raise ValueError(f"upcasting {event['type']} does not end after {STEPS_MAX} steps")
