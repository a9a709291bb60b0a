"""The subcommands of ``bc2-train``: each module's `add` declares one and its arguments.

They import what carries a subcommand out only when it is called: ``--help`` answers at once.
"""
