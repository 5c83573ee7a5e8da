"""What a run says of itself: a line per step or evaluation on the disk, to the trackers, and on the progress bar."""

from __future__ import annotations

import json
import os
import time

from ..jobs.processes import Processes
from ..jobs.progress import progress
from .checkpoints import UNFINISHED

LOG = "training_log.jsonl"


class Log:
    """The lines of `training_log.jsonl`; those after the step that a run goes on from are dropped."""

    def __init__(self, output_dir: str | None, step: int):
        self.lines: list[dict] = []
        self.path = os.path.join(output_dir, LOG) if output_dir else None
        if self.path:
            kept = [line for line in read_log(self.path) if line["step"] <= step]
            with open(self.path + UNFINISHED, "w") as file:
                file.writelines(json.dumps(line) + "\n" for line in kept)
            os.replace(self.path + UNFINISHED, self.path)

    def write(self, line: dict) -> None:
        self.lines.append(line)
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(line) + "\n")


def read_log(path: str) -> list[dict]:
    lines = []
    if os.path.exists(path):
        with open(path) as file:
            for text in file:
                try:
                    lines.append(json.loads(text))
                except ValueError:  # the process was killed while it wrote this line
                    break
    return lines


class Reporter:
    """The steps and evaluations of a run, told to whoever listens; only in the first process."""

    def __init__(
        self,
        config,
        processes: Processes,
        output_dir: str | None,
        first_step: int,
        progress_bar: bool,
        keys=("deletion", "insertion"),
    ):
        self.config, self.accelerator = config, processes.accelerator
        self.log = Log(output_dir if processes.is_main else None, first_step)
        self.shown: dict[str, str] = {}
        self.keys = keys
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
        self.log.write({"step": step} | values)
        self.accelerator.log(values, step=step)

    def __exit__(self, *exc) -> None:
        self.bar.close()
        for tracker in self.accelerator.trackers:  # end_training() would end the processes' group as well
            tracker.finish()
