"""The program inside every rented machine: it reports to the gateway and does what the answer asks."""
