"""What the warm pool service says, is asked to do, and answers."""
