"""Execution of studies: workers, launches, evaluations, and where they run."""
