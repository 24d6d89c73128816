"""The rules of API keys and the table of codes."""
