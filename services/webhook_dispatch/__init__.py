"""Webhook dispatch: every public fact to every URL that wants to hear it, at least once and in order per instance."""
