"""An Optuna storage on SQL: cached, batched, leased."""
