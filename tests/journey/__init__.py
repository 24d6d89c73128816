"""User stories over HTTP against a whole platform started by `./dumont up`, among them the seeds' own snippets, word
for word."""
