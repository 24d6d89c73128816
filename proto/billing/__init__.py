"""What the billing service says, is asked to do, and answers."""
