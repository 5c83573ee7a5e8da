"""What a run says of itself: a line per step or evaluation on the disk, to the trackers, and on the progress bar."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ..jobs.folders import write_whole
from ..jobs.processes import Processes
from ..jobs.progress import progress

LOG = "training_log.jsonl"


def read_log(path: Path) -> list[dict]:
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:  # the process was killed while it wrote this line
            break
    return lines


class Reporter:
    """The steps and evaluations of a run, told to whoever listens; only in the first process.

    `lines` are what this call wrote to `training_log.jsonl`; those after the step that a run goes on from are dropped.
    """

    def __init__(self, config, processes: Processes, output_dir: Path | None, first_step: int, progress_bar, keys):
        self.config, self.accelerator, self.keys = config, processes.accelerator, keys
        self.lines: list[dict] = []
        self.path = output_dir / LOG if output_dir and processes.is_main else None
        if self.path:
            kept = [json.dumps(line) + "\n" for line in read_log(self.path) if line["step"] <= first_step]
            write_whole(self.path, "".join(kept).encode())
        self.shown: dict[str, str] = {}
        self.bar = progress(
            total=config.max_steps, initial=first_step, desc="training", shown=progress_bar and processes.is_main
        )
        self.since = time.perf_counter(), first_step

    def __enter__(self) -> Reporter:
        if self.accelerator.log_with:
            values = {k: v if isinstance(v, (int, float, str)) else str(v) for k, v in vars(self.config).items()}
            self.accelerator.init_trackers("hf-explain", values)
        return self

    def step(self, step: int, row: dict[str, float]) -> None:
        self.show({key: f"{row[key]:.{1 if key == 'kappa' else 3}f}" for key in self.keys})
        self.bar.update(1)
        if step % self.config.logging_steps == 0 or step == self.config.max_steps:
            now, (before, first) = time.perf_counter(), self.since
            self.since = now, step
            seconds = {"train/seconds_per_step": (now - before) / (step - first)}
            self.tell(step, {f"train/{key}": value for key, value in row.items()} | seconds)

    def evaluation(self, step: int, scores: dict[str, float]) -> None:
        self.show({"eval": "/".join(f"{value:.3f}" for value in list(scores.values())[:2])})
        self.tell(step, {f"eval/{key}": value for key, value in scores.items()})
        self.since = time.perf_counter(), step

    def show(self, values: dict[str, str]) -> None:
        self.shown |= values
        self.bar.set_postfix(self.shown, refresh=False)

    def tell(self, step: int, values: dict[str, float]) -> None:
        self.lines.append({"step": step} | values)
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(self.lines[-1]) + "\n")
        self.accelerator.log(values, step=step)

    def __exit__(self, *exc) -> None:
        self.bar.close()
        for tracker in self.accelerator.trackers:  # end_training() would end the processes' group as well
            tracker.finish()
