"""megatron-core's distributed checkpoint (torch_dist), read and written without megatron-core.

One copy of every tensor, loadable at any tensor- and pipeline-parallel size. The directory holds
``.metadata`` (where each piece lies), ``*.distcp`` (the pieces), ``common.pt`` and
``metadata.json`` as megatron-core 0.16 writes them, and our config.json and tokenizer files.
"""
