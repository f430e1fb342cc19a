"""One cohort in training: data, models, optimizers, schedules, the loop, callbacks. No Optuna, no SQL."""
