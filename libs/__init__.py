"""Machinery without business words: two services must need a thing before it moves in here."""
