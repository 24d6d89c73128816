"""The contracts as files: everything that can be written down from the code is, and drift fails the check.

`python -m services.contracts` writes `proto/generated/*`, `docs/events.md`, `docs/adr/README.md` and `deploy/env.md`;
`--check` shows a diff instead. No service imports this package; it may read all of them.
"""
