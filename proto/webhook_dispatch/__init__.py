"""The language of webhook dispatch: endpoints and deliveries. `words`, `events`, `commands`, `queries`."""
