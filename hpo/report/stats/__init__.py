"""Statistics of trials and evaluations."""
