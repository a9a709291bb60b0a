"""The engine on DeepSpeed: ZeRO 0 to 3 on the Hugging Face model, straight from any checkpoint.

`accelerator` must be imported, and its ``install`` called, before `engine`, which imports
deepspeed: DeepSpeed looks for its device once, at import.
"""
