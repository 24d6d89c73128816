"""Which rows of `schema.sql` follow from one event. Pure; called by the runtime for every own event, in log order.

Split by noun: `rows` (instances, machines, hosts, orphans; and which event goes where), `snapshots`,
`cpu_standbys`, `gpu_returns`.
"""

from services.instance.projection.rows import project

__all__ = ["project"]
