"""AscendSpeed's pretrain_baichuan.py, as its launch scripts call it, as ``bc2-train run``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ascendspeed import train_warnings
from ascendspeed.arguments import DropInError, parse
from ascendspeed.family import family
from ascendspeed.native import Native
from ascendspeed.train_arguments import ARGUMENTS
from ascendspeed.weights import initial_weights
from bc2_ckpt.config import ModelConfig
from bc2_train import schema
from bc2_train.config import load

PROGRAM = "tools/pretrain_baichuan.py"


def translate(argv: Sequence[str] | None) -> Native:
    """Returns the command of bc2-train: its recipe, and what the command line has otherwise.

    Raises:
        Bc2Error: The command line is wrong, bc2 has nothing for part of it, or there are no
            weights where it says.
    """
    args = parse(PROGRAM, "Train as AscendSpeed's pretrain_baichuan.py does.", ARGUMENTS, argv)
    released = family(args.size)
    if args.attention_dropout or args.hidden_dropout:
        raise DropInError(
            "a dropout is above 0, but Baichuan2 has none",
            "--attention-dropout 0 --hidden-dropout 0",
        )
    weights = initial_weights(args.load, args.save, finetune=args.finetune)
    directory = _config_directory(args.tokenizer_name_or_path, weights.directory)
    config = ModelConfig.load(directory) if directory else released
    recipe = f"baichuan2-{args.size.lower()}-pretrain"
    settings = {
        **_model(directory, weights.directory),
        **_data(args),
        **_steps(args),
        **_parallel(args, config),
        **_run(args),
    }
    if not (args.eval_iters and settings["data.split"][1]):
        settings["evaluation.interval"] = 0
    differing = _differing(settings, recipe)
    options = [
        *_hosts(args),
        *(("--set", f"{key}={_text(setting)}") for key, setting in differing.items()),
        *(("--set", override) for override in args.set),
    ]
    warnings = (*weights.warnings, *train_warnings.all_of(args, config, directory))
    return Native(("bc2-train", "run", recipe), tuple(options), warnings)


def _config_directory(*candidates: str | None) -> Path | None:
    """Returns the first folder that holds config.json, None where none does."""
    found = (Path(name) for name in candidates if name and (Path(name) / "config.json").is_file())
    return next(found, None)


def _hosts(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    yield "--nproc-per-node", str(args.nproc_per_node)
    if args.nnodes == 1:
        return
    if not args.master_addr:
        raise DropInError(
            f"{args.nnodes} nodes need the address of the first",
            "set MASTER_ADDR, and NODE_RANK to 0 on the first node and to 1 on the second; or "
            "NNODES=1",
        )
    yield "--nnodes", str(args.nnodes)
    yield "--node-rank", str(args.node_rank)
    yield "--master-addr", args.master_addr
    yield "--master-port", str(args.master_port)


def _model(directory: Path | None, weights: str | None) -> dict[str, Any]:
    settings = {"model.config": str(directory)} if directory else {}
    return settings | ({"model.init": weights} if weights else {})


def _data(args: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = dict(_blend(args.data_path))
    if args.is_instruction_dataset:
        # Instruction data is not split, so there is nothing to evaluate on.
        settings |= {"data.kind": "instruction", "data.split": [1.0, 0.0, 0.0]}
    else:
        settings["data.split"] = _split(args.split)
    if args.reset_attention_mask:
        settings["data.cross_document_attention"] = False
    return settings


def _blend(paths: Sequence[str]) -> dict[str, Any]:
    if len(paths) == 1:
        return {"data.prefix": paths[0]}
    try:
        weighted = {path: float(weight) for weight, path in zip(*[iter(paths)] * 2, strict=True)}
    except ValueError:
        raise DropInError(
            f"--data-path {' '.join(paths)} is neither one path nor pairs of weight and path",
            "--data-path 0.3 FIRST 0.7 SECOND",
        ) from None
    (first, weight), *others = weighted.items()
    return {"data.prefix": first, "data.prefix_weight": weight, "data.blend": dict(others)}


def _split(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
        total = sum(shares)
        first, second, third = (share / total for share in shares)
    except (ValueError, ZeroDivisionError):
        raise DropInError(f"--split {text} is not three shares", "--split 949,50,1") from None
    return [first, second, third]


def _steps(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what the optimizer does, and how often."""
    settings: dict[str, Any] = {
        "optimizer.betas": [args.adam_beta1, args.adam_beta2],
        "precision": "float16" if args.fp16 else "bfloat16" if args.bf16 else "float32",
    }
    samples = args.global_batch_size
    if samples is None and args.micro_batch_size is not None:
        samples = args.micro_batch_size * _data_parallel(args)
    if samples is not None:
        settings["batch.global"] = samples
    iterations = args.train_iters
    if args.train_samples is not None:
        if samples is None or args.train_iters is not None:
            raise DropInError(
                "--train-samples goes with --global-batch-size, and not with --train-iters",
                "give --train-iters",
            )
        iterations = args.train_samples // samples
    if iterations is not None:
        settings["train.iterations"] = iterations
    if args.lr_decay_iters not in (None, iterations):
        raise DropInError(
            f"--lr-decay-iters is {args.lr_decay_iters}, but the learning rate decays over all "
            "iterations",
            "leave it out; --set optimizer.schedule=wsd decays over the last optimizer.decay",
        )
    settings["optimizer.warmup"] = args.lr_warmup_iters
    if args.lr_warmup_fraction is not None:
        if iterations is None:
            raise DropInError("--lr-warmup-fraction is of --train-iters, which is not given")
        settings["optimizer.warmup"] = int(args.lr_warmup_fraction * iterations)
    return settings


def _data_parallel(args: argparse.Namespace) -> int:
    model = (
        args.tensor_model_parallel_size
        * args.pipeline_model_parallel_size
        * args.context_parallel_size
    )
    return max(1, int(args.nproc_per_node * args.nnodes // model))


def _parallel(args: argparse.Namespace, config: ModelConfig) -> dict[str, Any]:
    tensor = args.tensor_model_parallel_size
    settings: dict[str, Any] = {"parallel.sequence": args.sequence_parallel and tensor > 1}
    if args.use_distributed_optimizer:
        settings["parallel.distributed_optimizer"] = True
    if args.num_layers_per_virtual_pipeline_stage:
        layers = config.num_layers // args.pipeline_model_parallel_size
        chunks = layers // args.num_layers_per_virtual_pipeline_stage
        settings["parallel.virtual_pipeline"] = chunks
    if args.checkpoint_activations or args.recompute_granularity:
        settings["train.recompute"] = args.recompute_granularity or "full"
    return settings


def _run(args: argparse.Namespace) -> dict[str, Any]:
    keyed = {argument.key: getattr(args, argument.attribute) for argument in ARGUMENTS}
    settings = {key: given for key, given in keyed.items() if key and given is not None}
    # AscendSpeed removes no checkpoint.
    return settings | {"run.dir": args.save, "checkpoint.dir": args.save, "checkpoint.keep": 0}


def _differing(settings: Mapping[str, Any], recipe: str) -> dict[str, Any]:
    """Returns the settings that the recipe does not have anyway."""
    required = [f"{key}={_text(settings[key])}" for key in ("data.prefix", "run.dir")]
    values = schema.dump(load(recipe, required))
    differing = {}
    for key, setting in settings.items():
        group, _, name = key.partition(".")
        ours = values[group][name] if name else values[group]
        if key in ("data.prefix", "run.dir") or ours != setting:
            differing[key] = setting
    return differing


def _text(setting: Any) -> str:
    """Returns a value as ``--set`` reads it: YAML, of which JSON is a part."""
    plain = isinstance(setting, str) and yaml.safe_load(setting) == setting
    return setting if plain else json.dumps(setting)
