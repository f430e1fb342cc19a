"""Many models trained as one: stacked layers, losses and optimizers."""
