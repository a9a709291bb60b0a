"""The subcommands of ``bc2-model``: each module's `add` declares one and its arguments.

They import what carries a subcommand out only when it is called: ``--help`` answers at once.
"""
