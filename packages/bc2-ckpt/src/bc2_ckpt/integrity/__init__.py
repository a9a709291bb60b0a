"""Whether a checkpoint is what it should be: checksums, verification, comparison, downloads."""
