"""Configuration of one trial: parameters, their defaults, bounds and effects; the registry of components."""
