"""Trials and evaluations of a study as rows."""
