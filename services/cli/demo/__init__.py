"""`demo`: an instance loses its machine again and again, and its files are still there. A client of the public API.

`verb` is the command, `stage` the platform of its own, `workspace` the files, `timeline` what the platform says
meanwhile, `acts` the story, `proofs` what must hold, `playbill` what is printed.
"""
