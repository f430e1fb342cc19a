"""Helpers that know nothing of studies or training: files, folders, signals, text."""
