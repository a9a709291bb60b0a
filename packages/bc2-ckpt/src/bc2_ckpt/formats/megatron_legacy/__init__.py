"""Megatron's legacy checkpoints: one torch.save file for each tensor- and pipeline-parallel rank.

::

    latest_checkpointed_iteration.txt            "release", or the iteration
    release/ or iter_0000100/
        mp_rank_00/model_optim_rng.pt            without a pipeline: tensor-parallel rank
        mp_rank_00_001/model_optim_rng.pt        with one: tensor- and pipeline-parallel rank

A file holds ``{"checkpoint_version": 3.0, "model": ...}``, and ``model0``, ``model1`` ... where a
rank has several chunks of a virtual pipeline. What training adds (arguments, optimizer, random
states) is left out. Sources: AscendSpeed's ``tools/ckpt_convert/llama`` and ``checkpointing.py``,
Megatron-LM's ``checkpointing.py``.
"""
