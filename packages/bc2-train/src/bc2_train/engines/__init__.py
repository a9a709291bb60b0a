"""Engines: how one optimizer step is computed over many devices."""
