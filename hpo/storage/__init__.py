"""SQL storage on Optuna's schema: cached, batched and leased. It knows nothing of studies' definitions."""
