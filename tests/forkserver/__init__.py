"""Fork server: starts `hpo` and scripts by a fork of a process that has imported torch, which takes seconds.

What `subprocess` then starts is a child of whoever started it, with the arguments, variables, descriptors, folder,
session, signals, priority and cores that it would have had; only its imports are done. Whatever cannot be forked
starts cold, and so does all that is started within `cold()`.

    start       what a process is started with, and which can be forked
    requests    the caller's side: stands in for the function by which `subprocess` starts processes
    server      the server, and what a forked process does to become the one that was asked for
    shell       the same for the programs that a shell finds
"""
