"""Chapters of the report, one a module."""
