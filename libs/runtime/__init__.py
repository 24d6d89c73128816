"""The one loop of every service: load-fold-decide-append, hear-react, project-checkpoint, effect-report,
deadline-command.

`run.py` is the entry; `service.py` says what a service is; `store.py` and `bus.py` are ports (with `libs.eventlog`).
"""
