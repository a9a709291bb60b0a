"""Hugging Face directories: config.json, and .bin or safetensors shards with or without index."""
