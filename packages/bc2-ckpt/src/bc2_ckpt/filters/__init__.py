"""Readers around readers: what happens to tensors between any source and any writer.

A filter is a `bc2_ckpt.formats.protocol.CheckpointReader` itself, so filters can be stacked and no
format knows of them.
"""
