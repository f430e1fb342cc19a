"""Checks of a study, each with a finding and advice."""
