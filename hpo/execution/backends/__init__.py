"""Backends, which start workers: local processes, Ray, Slurm. A backend runs `hpo worker …` and nothing else."""
