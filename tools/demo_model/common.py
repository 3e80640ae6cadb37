"""What the training stages share: where files lie, how long a stage runs, averaged weights."""
import copy
import math
import os
import time

import torch


class Workspace:
    """The folder in which the stages hand their results to each other."""

    def __init__(self, root):
        self.root = root
        os.makedirs(root, exist_ok=True)

    def __getattr__(self, name):
        """workspace.tokenizer, .geometry, .text_encoder, .transformer, .vae: subfolders."""
        if name not in ("tokenizer", "geometry", "text_encoder", "transformer", "vae"):
            raise AttributeError(name)
        return os.path.join(self.root, name)


class Budget:
    """How long a stage runs: a number of steps or, if `seconds` is given, until they are over.

    Steps make a run repeatable; seconds fit it to a machine. Learning rates follow `fraction`, 0 to 1.
    """

    def __init__(self, steps, seconds=None):
        self.steps, self.seconds = steps, seconds
        self.step = 0
        self._start = time.monotonic()

    def __iter__(self):
        while self.fraction() < 1:
            yield self.step
            self.step += 1

    def elapsed(self):
        return time.monotonic() - self._start

    def fraction(self):
        return self.elapsed() / self.seconds if self.seconds else self.step / self.steps

    def rate(self, peak, warmup_steps, flat, floor):
        """The learning rate now: linear warm-up, flat until `flat` of the budget, then a cosine down to floor * peak."""
        rate = peak * min(1.0, (self.step + 1) / warmup_steps)
        past = max(0.0, self.fraction() - flat) / (1 - flat)
        return rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, past))))


class Averaged:
    """An exponential moving average of a module's weights, which is what is saved."""

    def __init__(self, module, decay, resumed=False):
        self._live, self._decay = module, decay
        # A resumed run starts from an average already: it forgets its start more slowly.
        self._head = 60 if resumed else 0
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, step):
        decay = min(self._decay, (step + self._head) / (step + self._head + 10))
        torch._foreach_lerp_(list(self.module.parameters()), list(self._live.parameters()),
                             1 - decay)


class Log:
    """Prints the mean of the last values now and then."""

    def __init__(self, name, every=50, window=40):
        self._name, self._every, self._window, self._rows = name, every, window, []

    def add(self, budget, **values):
        self._rows.append(values)
        if (budget.step + 1) % self._every:
            return
        last = self._rows[-self._window:]
        means = {k: sum(r[k] for r in last if k in r) / max(1, sum(k in r for r in last))
                 for k in sorted({k for r in last for k in r})}
        rate = (budget.step + 1) / budget.elapsed()
        print(f"{self._name} step {budget.step + 1} {budget.elapsed():.0f} s {rate:.2f} steps/s "
              + "  ".join(f"{k} {v:.4f}" for k, v in means.items()), flush=True)


def start(seed, threads=1):
    """One thread per process: two stages side by side run at full speed, two threads wait for each other."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
