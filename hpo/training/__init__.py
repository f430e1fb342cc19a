"""Training of one cohort: data, models, optimizers, schedules, the loop, callbacks. No Optuna, no SQL."""
