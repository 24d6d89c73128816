"""The parent of everything that `./dumont up` runs on one machine. See README.md."""
