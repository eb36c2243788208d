"""A task whose trials take their time, leave a trace, and run into trouble when told to.

Every process leaves a file `trace/PID` beside this one: a line `loss` for each batch that it trained on, a line
`measured` whenever it evaluated a model.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from faulty import _Task
from torch import Tensor, nn

from rank_search.layers import Factorization


class Troubled(_Task):
    """Pauses at every batch of a training; each trouble befalls one trial, the first that comes by.

    `doomed` befalls all tries of one trial.
    """

    def __init__(self, pause: float, troubles: Sequence[str]) -> None:
        super().__init__()
        self.pause, self.troubles = pause, troubles
        self.folder = Path(__file__).parent
        self.trace = self.folder / "trace"
        self.trace.mkdir(exist_ok=True)

    def loss(self, model: nn.Module, batch: object) -> Tensor:
        loss = self.sound.loss(model, batch)
        if not torch.is_grad_enabled():  # only statistics are taken
            return loss
        self.note("loss")
        if any(isinstance(module, Factorization) for module in model.modules()):  # not the driver's rehearsal
            time.sleep(self.pause)
            loss = self.befallen(loss, str([tuple(each.shape) for each in model.parameters()]))
        return loss

    def evaluate(self, model: nn.Module, batches: Iterable[object]) -> Mapping[str, float]:
        self.note("measured")
        return self.sound.evaluate(model, batches)

    def note(self, line: str) -> None:
        with (self.trace / str(os.getpid())).open("a") as file:
            file.write(f"{line}\n")

    def befallen(self, loss: Tensor, trial: str) -> Tensor:
        for trouble in self.troubles:
            if self.strikes(trouble, trial):
                return TROUBLES[trouble](loss)
        return loss

    def strikes(self, trouble: str, trial: str) -> bool:
        """Whether this trial is the one."""
        victim = self.folder / f"{trouble}.victim"
        try:
            with victim.open("x") as file:
                file.write(trial)
        except FileExistsError:
            return trouble == "doomed" and victim.read_text() == trial
        return True


def hang(loss: Tensor) -> Tensor:
    time.sleep(3600)
    return loss


def stick(loss: Tensor) -> Tensor:
    """Holds the interpreter in C code, where no signal handler of Python runs."""
    re.match(r"(a+)+$", "a" * 60 + "b")
    return loss


def fail(loss: Tensor) -> Tensor:
    raise RuntimeError("the data's disk is gone")


def hoard(loss: Tensor) -> Tensor:
    eaten = [bytearray(2**26) for _ in range(32)]
    return loss + len(eaten) * 0


def die(loss: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return loss


TROUBLES = {
    "hangs": hang,
    "is stuck": stick,
    "raises": fail,
    "returns NaN": lambda loss: loss * torch.nan,
    "eats memory": hoard,
    "dies": die,
    "doomed": die,
}


def troubled(pause: float = 0.05, troubles: Sequence[str] = ()) -> Troubled:
    return Troubled(pause, troubles)
