"""The warm pool service: see README.md."""
