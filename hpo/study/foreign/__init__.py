"""Searches that other tools describe, as studies."""
