"""What a training run keeps: checkpoints to resume from exactly, and its metrics.

A run's folder holds `run.json` (what is trained on what, and how), `metrics.csv` (a line a step)
and the last two `step-…` folders (trained weights, the optimiser's state, random states). Nothing
in it is pickled; everything is written beside and renamed into place, so a run that is killed at
any moment leaves a whole checkpoint behind.
"""

import csv
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qwen2_book.checkpoint.files import sync
from qwen2_book.errors import TrainingError

Metrics = list[dict[str, int | float]]  # one row a step

KEPT = 2
WEIGHTS, STATE, METRICS, RUN = "weights.safetensors", "state.safetensors", "metrics.csv", "run.json"


class RunFolder:
    """One run's folder; refuses to be used for a different run."""

    def __init__(self, folder: str | Path, description: dict) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(description))
        file = self.folder / RUN
        if file.exists():
            found = _read_json(file)
            differing = sorted(_differences(found, wanted))
            if differing:
                raise TrainingError(
                    f"{self.folder}: this folder holds another run; {'; '.join(differing)}. "
                    "Resume with the same settings and data, or choose another folder."
                )
        else:
            _write(file, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
        """Write checkpoint `step`, then remove all but the last two."""
        place = self.folder / f"step-{step:08d}"
        beside = self.folder / f".{place.name}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
        weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        state = {"random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["random.cuda"] = torch.cuda.get_rng_state()
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                state[f"{key}/{names[id(parameter)]}"] = value
        for file, tensors in ((WEIGHTS, weights), (STATE, state)):
            save_file({n: t.contiguous() for n, t in tensors.items()}, beside / file)
            sync(beside / file)
        if place.exists():
            shutil.rmtree(place)
        os.replace(beside, place)
        for old in self.checkpoints()[:-KEPT]:
            shutil.rmtree(old)
        return place

    def checkpoints(self) -> list[Path]:
        """The whole checkpoints, oldest first."""
        return sorted(self.folder.glob("step-????????"))

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Put the newest checkpoint into model and optimiser; the number of steps done, else 0."""
        if not self.checkpoints():
            return 0
        place = self.checkpoints()[-1]
        weights, state = _load(place / WEIGHTS), _load(place / STATE)
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        found = {n: tuple(t.shape) for n, t in weights.items()}
        expected = {n: tuple(p.shape) for n, p in parameters.items()}
        if found != expected:
            name = next(n for n in {**expected, **found} if found.get(n) != expected.get(n))
            raise TrainingError(
                f"{place}: {name} has shape {found.get(name)}, expected {expected.get(name)}. "
                "Was this run made with another model?"
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])
        torch.set_rng_state(state.pop("random.cpu"))
        if "random.cuda" in state:
            torch.cuda.set_rng_state(state.pop("random.cuda"))
        for entry, tensor in state.items():
            key, _, name = entry.partition("/")
            optimizer.state[parameters[name]][key] = tensor.to(parameters[name].device)
        return int(place.name.removeprefix("step-"))

    def metrics(self, before: int | None = None) -> Metrics:
        """The metrics written so far, of the steps up to `before`; a torn last line is left out."""
        return read_metrics(self.folder / METRICS, before)

    def write_metrics(self, rows: Metrics) -> None:
        """Write all metrics anew, as after a resume, when steps are about to be done again."""
        lines = [",".join(rows[0])] if rows else []
        lines += [",".join(map(str, row.values())) for row in rows]
        _write(self.folder / METRICS, "".join(f"{line}\n" for line in lines))

    def append_metrics(self, row: dict[str, int | float]) -> None:
        """Add the line of one step."""
        file = self.folder / METRICS
        head = "" if file.exists() and file.stat().st_size else ",".join(row) + "\n"
        with file.open("a", encoding="utf-8") as out:
            out.write(head + ",".join(map(str, row.values())) + "\n")


def read_metrics(file: Path, before: int | None = None) -> Metrics:
    """A run's metrics as one dict a step; NaN where nothing was measured."""
    if not file.exists():
        return []
    lines = file.read_text("utf-8").splitlines(keepends=True)
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    numbers: Metrics = [{name: _number(value) for name, value in row.items()} for row in rows]
    return [row for row in numbers if before is None or row["step"] <= before]


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{file}: could not be read ({error}). Remove its folder to resume from the one before."
        ) from error


def _read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise TrainingError(f"{file}: not readable as JSON ({error}).") from error


def _differences(found: dict, wanted: dict, path: str = "") -> list[str]:
    differing = []
    for key in {**found, **wanted}:
        old, new, name = found.get(key), wanted.get(key), f"{path}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            differing += _differences(old, new, f"{name}.")
        elif old != new:
            differing.append(f"{name} was {old!r}, now {new!r}")
    return differing


def _write(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}")
    beside.write_text(text, "utf-8")
    sync(beside)
    os.replace(beside, file)
