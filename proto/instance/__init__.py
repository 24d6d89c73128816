"""What the instance service says, is asked to do, and can be asked (docs/events.md is made from this package).

Split by noun: `words` (closed word sets and shared shapes), `events`, `commands`, `queries`.
"""
