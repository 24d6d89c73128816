"""The command `dumont`: operators' verbs, one file per noun. See README.md."""
