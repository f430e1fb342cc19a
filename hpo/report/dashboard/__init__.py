"""optuna-dashboard over a storage: server, middleware, published reports."""
