"""What AscendSpeed's command lines stand for in bc2.

`data` is about preprocess_data.py, `ckpt` about convert_weights_from_huggingface.py, and `train`,
with the modules that it imports, about pretrain_baichuan.py, which the launch scripts call. Each
has a table of the arguments, which `--help` and docs/from-ascendspeed.md show, and a translation.

Source: AscendSpeed's scripts of the same names, and its ascendspeed/arguments.py.
"""
