"""How much of what its devices can do a run achieved, and how that is computed."""

from __future__ import annotations

from bc2_ckpt.config import PRESETS
from bc2_data.vocab import padded_vocab_size
from bc2_train import throughput
from bc2_train.metrics.records import StepMetrics
from bc2_train.peaks import peak_tflops
from bc2_train.report.document import Block, Paragraph, Table
from bc2_train.report.rates import WARMUP_STEPS, number
from bc2_train.report.run import Run


def exact_tflops(run: Run, step: StepMetrics) -> float:
    """Returns the TFLOP/s of a device by the exact count; the run's model must be known."""
    assert run.model is not None
    flops = throughput.exact_flops(
        run.model, batch_size=run.samples(step), seq_length=run.length(step)
    )
    return throughput.tflops_per_device(flops, step_time=step.step_time, devices=run.devices)


def peak(run: Run) -> float | None:
    """Returns the peak TFLOP/s of a device of the run, or None where it is not known."""
    if not run.environments or run.config is None:
        return None
    names = set(run.environments[-1].devices)
    # Devices of several kinds have no one peak.
    return peak_tflops(names.pop(), run.config.precision) if len(names) == 1 else None


def explain() -> list[Block]:
    """Returns how every figure of the report is computed."""
    return [
        Paragraph(
            f"Steady window: all steps but the first {WARMUP_STEPS}, or the second half of a run "
            f"of fewer than {2 * WARMUP_STEPS}. All figures of a row are of the same window. "
            "The mean of a rate is work over time, so each step weighs as long as it took; median "
            "and standard deviation are over steps."
        ),
        Paragraph(
            "With B samples a step of s positions each, padding included, N devices and t seconds "
            "a step: samples/s = B / t, of the whole job; tokens/s/device = B s / (t N); "
            "TFLOP/s/device = operations / (t N 10^12). Saves and evaluations are no part of t."
        ),
        Paragraph(
            "AscendSpeed's count, after equation 3 of Narayanan et al. (2021): "
            "24 k B s L h^2 (1 + s / (6 h) + V / (16 L h)), with L layers of width h, a padded "
            "vocabulary of V rows and k = 3 passes. It takes the MLP for one of width 4 h and "
            "attention for full. It gives what AscendSpeed's README says of its own runs:"
        ),
        _published_rows(),
        Paragraph(
            "The exact count: 3 B (s (L (8 h^2 + 6 h f) + 2 h V) + L 2 h s (s + 1)), with a SwiGLU "
            "MLP of width f, whose three matrices cost 6 h f, causal attention, which keeps "
            "s (s + 1) / 2 pairs, and the V true rows of the vocabulary. Both counts take a "
            "multiply-add for two operations, a backward pass for two forward passes, and each "
            "sample for one document; recomputation counts in neither."
        ),
        Paragraph(
            "MFU (model FLOPs utilisation) = exact TFLOP/s/device / the device's dense bfloat16 "
            "peak, where that is known."
        ),
    ]


def _published_rows() -> Table:
    rows = []
    for model, samples, step_time, devices, divisor in (
        ("baichuan2-7b", 128, 24.97, 8, 128),
        ("baichuan2-13b", 256, 49.716, 16, 8),
    ):
        size = PRESETS[model]
        rows_padded = padded_vocab_size(size.vocab_size, divisor, 8)
        counts = (
            throughput.ascendspeed_flops(
                size, batch_size=samples, seq_length=4096, padded_vocab_size=rows_padded
            ),
            throughput.exact_flops(size, batch_size=samples, seq_length=4096),
        )
        rates = [
            throughput.tflops_per_device(count, step_time=step_time, devices=devices)
            for count in counts
        ]
        shown = f"{rates[0]:.3f}", number(rates[1])
        rows.append((model, str(samples), "4096", number(step_time), str(devices), *shown))
    columns = (
        "README's run",
        "B",
        "s",
        "t (s)",
        "N",
        "TFLOP/s/device, AscendSpeed's count",
        "TFLOP/s/device, exact",
    )
    return Table(columns, rows)
