"""The training loop: AdamW, warm-up and cosine, clipping, accumulation, exact resume."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from qwen2_book.errors import TrainingError
from qwen2_book.model import Qwen2
from qwen2_book.training.data import Batch, Source
from qwen2_book.training.loss import language_loss, mean_loss
from qwen2_book.training.run_folder import Metrics, RunFolder

NOT_PART_OF_THE_RUN = ("save_every", "evaluate_every")  # may differ when a run is resumed


@dataclass(frozen=True)
class Settings:
    """How to train. Rates are per step; `accumulate` batches make one step.

    `precision` "bfloat16" computes in bfloat16 and keeps weights and optimiser in float32.
    """

    steps: int
    peak_rate: float = 1e-3
    final_share: float = 0.1  # of the peak rate, at the end of the cosine
    warm_up: int = 0  # steps
    weight_decay: float = 0.1  # of matrices only
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0  # largest norm of the gradient
    accumulate: int = 1
    precision: str = "float32"
    save_every: int = 0  # steps; 0 saves at the end only
    evaluate_every: int = 0

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise TrainingError(
                f"precision: found {self.precision!r}, expected 'float32' or 'bfloat16'. float16 "
                "overflows in this family."
            )
        if self.steps < 1 or self.accumulate < 1:
            raise TrainingError(
                f"found {self.steps} steps of {self.accumulate} batches, expected at least 1 each."
            )

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, …: a line up, then half a cosine down."""
        if step < self.warm_up:
            return self.peak_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up - 1)
        share = self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * done))
        return self.peak_rate * share


def make_optimizer(model: torch.nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW whose decay is decoupled from the gradient and spares norms and biases."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.peak_rate, betas=betas, fused=True)


def train(
    model: Any,
    source: Any,
    settings: Settings,
    folder: str | Path | None = None,
    loss: Callable[[Any, Any], Tensor] = language_loss,
    held_out: list[Batch] | None = None,
    on_step: Callable[[Metrics], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Metrics:
    """Train `model` in place on `source`; the metrics of every step, also in `folder`/metrics.csv.

    `loss(model, batch)` is a SUM, and is divided by the `weight` of all batches of a step, so that
    accumulating small batches gives the gradient of one large batch. With a folder, checkpoints are
    written and an interrupted run goes on from the last one, to the same weights, bit for bit on a
    CPU. `held_out` is measured every `evaluate_every` steps. `optimizer` takes the place of
    `make_optimizer`'s; its rate follows the settings. Raises TrainingError for a loss that
    is not finite (the last checkpoint stays) and for a folder that holds another run.
    """
    optimizer = optimizer or make_optimizer(model, settings)
    run = None if folder is None else RunFolder(folder, _description(model, source, settings))
    start = 0 if run is None else run.restore(model, optimizer)
    metrics = [] if run is None else run.metrics(start)
    if run is not None:
        run.write_metrics(metrics)
    model.train()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("training", total=settings.steps, completed=start)
        for step in range(start, settings.steps):
            row = _step(model, source, settings, optimizer, loss, step, run)
            last = step + 1 == settings.steps
            due = settings.evaluate_every and (step + 1) % settings.evaluate_every == 0
            measured = held_out is not None and (last or due)
            row["held_out"] = _evaluate(model, held_out) if held_out and measured else math.nan
            metrics.append(row)
            if run is not None:
                run.append_metrics(row)
                if last or (settings.save_every and (step + 1) % settings.save_every == 0):
                    run.save(step + 1, model, optimizer)
            if on_step is not None:
                on_step(metrics)
            progress.update(bar, advance=1, description=f"loss {row['loss']:.3f}")
    model.eval()
    return metrics


def _step(
    model: Any,
    source: Source,
    settings: Settings,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any, Any], Tensor],
    step: int,
    run: RunFolder | None,
) -> dict[str, int | float]:
    for group in optimizer.param_groups:
        group["lr"] = settings.rate(step)
    first = step * settings.accumulate
    batches = [source.batch(first + k).to(model.device) for k in range(settings.accumulate)]
    weight = sum(batch.weight for batch in batches)
    if weight == 0:
        raise TrainingError(f"batch {first}: nothing in it is to be learned.")
    total = 0.0
    optimizer.zero_grad()
    half = settings.precision == "bfloat16"
    for number, batch in enumerate(batches, first):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
            part = loss(model, batch) / weight
        part.backward()
        total += part.item()
        if not math.isfinite(total):
            _stop(f"the loss is {total}", step, number, run)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, settings.clip).item()
    if not math.isfinite(norm):
        _stop(f"the gradient's norm is {norm}", step, first, run)
    optimizer.step()
    return {
        "step": step + 1,
        "loss": total,
        "rate": settings.rate(step),
        "gradient_norm": norm,
        "learned": weight,
    }


def _stop(what: str, step: int, batch: int, run: RunFolder | None) -> None:
    kept = run.checkpoints() if run is not None else []
    there = f"The last good checkpoint is {kept[-1]}." if kept else "There is no checkpoint yet."
    raise TrainingError(
        f"step {step + 1}, batch {batch}: {what}, expected a finite number; the weights were not "
        f"changed by it. {there} Look at that batch (source.batch({batch})), lower peak_rate, or "
        "warm up for longer."
    )


def _evaluate(model: Qwen2, held_out: list[Batch]) -> float:
    model.eval()
    found = mean_loss(model, [batch.to(model.device) for batch in held_out])
    model.train()
    return found


def _description(model: Any, source: Source, settings: Settings) -> dict:
    how = dataclasses.asdict(settings)
    for name in NOT_PART_OF_THE_RUN:
        del how[name]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "model": model.config.to_dict(),
        "trained_parameters": trained,
        "source": source.fingerprint,
        "settings": how,
    }
