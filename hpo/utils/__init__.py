"""Helpers that know nothing of studies or training: files, digests, signals, text."""
