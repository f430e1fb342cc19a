"""Where workers run. A backend starts `hpo worker …` and nothing else."""
