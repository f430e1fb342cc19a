"""Small searches of other tools, of one's own writing, each with the study or the refusal that comes of it.

A folder is a tool's. Its `cases.toml` has a table for each file: `construct`, what the file is there for, and `options`
of `hpo import`. Beside the file is `NAME.expected.toml`, the study file that comes out, or `NAME.refused.txt`, all that
is against it. `python -m tests.imports` prints what came out of each, and `--write` writes these files anew.
"""
