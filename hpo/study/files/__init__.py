"""Files of a study: checkpoints, kept weights, artifacts, and their removal."""
