"""Table of the shared parameters, in parts: `TrialConfig` has the fields of all."""
