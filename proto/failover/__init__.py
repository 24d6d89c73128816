"""What the failover service says, is asked to do, and answers."""
