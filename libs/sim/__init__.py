"""Deterministic simulation: whole services in one process, in virtual time, on ports that fail in seeded ways.

Called by `tests/sim` and `just sim SEED`. A run is a function of its seed: the loop's clock jumps from timer to timer,
every fault, delay and id comes from generators seeded by it, and nothing reads the real world. What fails once fails
again under the same seed, and the trace says what led there.

Cast: `VirtualLoop` is time; `Chance` is luck; `Life` is one run of one process, which may be killed between any two
steps; `SimLog`, `SimStore` and `SimBus` are what that process sees of the shared log, database and bus; `World` holds
everything, starts, kills and restarts processes, and asks the invariants at the end.
"""
