"""One folder per service; services meet only on the bus."""
