"""The names under which dashboards show a record."""

from __future__ import annotations

from bc2_train.metrics.records import Evaluation, RankTimes, Record, Save, StepMetrics


def scalars(record: Record) -> dict[str, float]:
    """Returns what a dashboard shows of a record, by the name that it has there.

    The first ones have the names that AscendSpeed and Megatron give them (``training_log`` in
    their training.py), those that they have none for follow the same pattern.
    """
    match record:
        case StepMetrics():
            return {
                "lm-loss-training/lm loss": record.loss,
                "grad-norm/grad-norm": record.grad_norm,
                "learning-rate/learning-rate": record.lr,
                "batch-size/batch-size": round(record.samples_per_second * record.step_time),
                "loss-scale/loss-scale": record.loss_scale,
                "iteration-time/iteration-time": record.step_time,
                "iteration-time/data": record.data_time,
                "iteration-time/forward-backward": record.forward_backward_time,
                "iteration-time/optimizer": record.optimizer_time,
                "throughput/samples per second": record.samples_per_second,
                "throughput/tokens per second per device": record.tokens_per_second_per_device,
                "throughput/TFLOPs per device": record.tflops_per_device,
                "memory/peak": record.memory,
                "skipped/skipped iterations": record.skipped,
            }
        case Evaluation():
            return {
                "lm-loss-validation/lm loss validation": record.loss,
                "lm-loss-validation/lm loss validation ppl": record.perplexity,
                "pauses/evaluation": record.seconds,
            }
        case Save():
            return {"pauses/save": record.seconds}
        case RankTimes():
            return {f"rank-probe/rank {rank}": seconds for rank, seconds in enumerate(record.probe)}
