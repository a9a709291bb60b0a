"""Times attention on this machine's device: our backends and what else there is."""
