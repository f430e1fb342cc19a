"""Callbacks of other frameworks' trainers: reports, pruning and checkpoints of a trial. Imports none of them."""
