"""The configuration of one trial: parameters, their defaults, bounds and effects, and the registry of components."""
