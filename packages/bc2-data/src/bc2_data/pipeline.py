"""Tokenises files into Megatron datasets with a manifest, all of it or nothing."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from dataclasses import replace

from bc2_data.atomic import refuse_existing
from bc2_data.config import TokenizeConfig
from bc2_data.datasets import manifest_path
from bc2_data.errors import DataError
from bc2_data.handlers import make_handler
from bc2_data.handlers.base import Kind
from bc2_data.job import Job
from bc2_data.launchers import Task, make_launcher
from bc2_data.manifest import Manifest, read_manifest
from bc2_data.outputs import finish_datasets, joined_paths, output_paths
from bc2_data.shards.joining import Joiner
from bc2_data.shards.plan import make_plan
from bc2_data.shards.report import Progress, ShardReport
from bc2_data.shards.tasks import (
    Encoder,
    EncodeShard,
    Event,
    HashInput,
    InputChecksum,
    shared_tokenizer,
)
from bc2_data.shards.totals import Totals
from bc2_data.shards.workspace import Workspace, open_workspace
from bc2_data.sources import open_sources
from bc2_data.throughput import Throughput

__all__ = ["TokenizeConfig", "tokenize"]


def tokenize(config: TokenizeConfig) -> Manifest:
    """Writes the datasets of all inputs and their manifest.

    The outputs appear at the end, the manifest last; on an error nothing does. Shards that were
    finished before an error are kept beside the outputs, hidden, for a run that resumes.

    Raises:
        DataError: An input cannot be used, an output exists already, a worker died, or an
            interrupted run left work and the configuration does not say what to do with it.
    """
    shared_tokenizer.cache_clear()  # the file may have changed since an earlier job
    tokenizer = shared_tokenizer(config.tokenizer, config.special_tokens, config.engine)
    handler = make_handler(config.handler, config.handler_options, tokenizer.special)
    config = _with_pack_limit(config, handler.kind)
    plan = make_plan(open_sources(config.inputs, config.max_row_bytes))
    job = Job(config, plan, tokenizer, handler.kind)
    destinations = output_paths(config.prefix, job.kind)
    with open_workspace(
        config.prefix, job.describe(), resume=config.resume, overwrite=config.overwrite
    ) as workspace:
        is_done = config.resume and job.is_done(destinations)
        if not (is_done or workspace.is_finished):
            refuse_existing(*destinations, overwrite=config.overwrite)
            _fill(workspace, job)
        workspace.publish(destinations)
    return read_manifest(destinations[-1])


def _fill(workspace: Workspace, job: Job) -> None:
    """Writes all outputs into a workspace."""
    # What is packed comes of whole datasets, which are no outputs then.
    staging = workspace.folder if job.config.pack else workspace.outputs
    prefix = staging / job.config.prefix.name
    totals = Totals(job.plan)
    joiner = Joiner(
        workspace.folder,
        joined_paths(prefix, job.kind),
        [shard.index for shard in job.shards],
        totals.add,
    )
    _encode(workspace, job, joiner)
    if not totals.documents and job.config.part is None:
        workspace.discard()  # to resume would end here again
        raise DataError(
            f"no document is left of {totals.rows.total():,} rows "
            f"({totals.describe_losses() or 'no rows'})",
            "look at the rows, --handler and --max-length",
        )
    files = finish_datasets(prefix, job.kind, joiner.columns)
    manifest = job.manifest(totals, workspace.input_checksums(), files)
    manifest_path(prefix).write_text(manifest.to_json(), encoding="utf-8")
    if job.config.pack:
        from bc2_data.packing import pack

        pack(
            prefix,
            workspace.outputs / prefix.name,
            job.config.pack,
            overlong=job.config.limit.overlong,
            overwrite=True,
            inputs=manifest.inputs,
        )


def _encode(workspace: Workspace, job: Job, joiner: Joiner) -> None:
    """Has every shard encoded that is not yet, and every input's checksum taken."""
    config = job.config
    done = joiner.resume(workspace.reports())
    tasks = _tasks(workspace, job, {report.index for report in done})
    # The engine loads with the first text that it sees.
    launcher = make_launcher(config.launcher, config.workers, lambda: job.tokenizer.encode([""]))
    with (
        Throughput(job.size, sum(report.size for report in done), config.log_interval) as bar,
        closing(launcher.run(tasks)) as events,
    ):
        for event in events:
            match event:
                case Progress():
                    bar.advance(event)
                case ShardReport():
                    joiner.add(event)
                case InputChecksum():
                    workspace.keep_input_checksum(event.input, event.sha256)


def _tasks(workspace: Workspace, job: Job, done: set[int]) -> list[Task[Event]]:
    """Returns what is left to do, in the order of the inputs.

    An input's checksum comes before its shards: the last tasks are then short, and all workers end
    at about the same time.
    """
    config = job.config
    encoder = Encoder(
        tokenizer=config.tokenizer,
        special_tokens=config.special_tokens,
        engine=config.engine,
        handler=config.handler,
        handler_options=config.handler_options,
        limit=config.limit,
    )
    tasks: dict[int, list[Task[Event]]] = defaultdict(list)
    for number in set(job.begun_inputs) - workspace.input_checksums().keys():
        tasks[number].append(HashInput(number, job.plan.inputs[number].location))
    for shard in job.shards:
        if shard.index not in done:
            tasks[shard.input].append(EncodeShard(encoder, shard, workspace.folder))
    return [task for number in sorted(tasks) for task in tasks[number]]


def _with_pack_limit(config: TokenizeConfig, kind: Kind) -> TokenizeConfig:
    """Returns a configuration that lets no conversation be longer than a row of its pack.

    Raises:
        DataError: This job cannot be packed.
    """
    if config.pack is None:
        return config
    if kind == "pretrain":
        raise DataError(
            f"--handler {config.handler} makes pretraining data, which needs no packing",
            "leave --pack out: samples are cut from one stream of all documents",
        )
    if config.part is not None:
        raise DataError(
            "a part of a job is not packed by itself",
            "leave --pack out, merge the parts with bc2-data merge, and then use bc2-data pack",
        )
    capacity = config.pack + 1
    most = min(config.limit.tokens or capacity, capacity)
    limit = replace(config.limit, tokens=most, name="the room in a packed row")
    return replace(config, limit=limit)
