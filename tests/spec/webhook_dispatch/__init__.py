"""Specs of webhook dispatch."""
