"""GGUF, the one file that llama.cpp loads; it is written and never read.

Sources: the GGUF specification (docs/gguf.md of ggml); ``conversion/baichuan.py`` and
``src/models/baichuan.cpp`` of llama.cpp.
"""
