"""Proximal policy optimisation on CartPole: seconds until the mean return of 100 episodes reaches 475, in treadle or PyTorch.

    python examples/ppo_cartpole.py [--library treadle|torch] [--seed N] [--threads N] [--quick]

The same code runs in both: `nn`, `optim` and the operations used here have the same names. What is random, initial values too,
comes from NumPy and is the same in both, until rounding makes one action another. Needs gymnasium. Several seeds side by side:
`python -m benches.peers.ppo`.

Source: Schulman et al. 2017, "Proximal policy optimization algorithms".
"""

from __future__ import annotations

import argparse
import importlib
import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

ENVS, HORIZON, EPOCHS, BATCH = 8, 64, 8, 128
GAMMA, LAMBDA, CLIP, RATE, NORM = 0.99, 0.95, 0.2, 2e-3, 0.5
GOAL, MOST_STEPS = 475.0, 500_000


@dataclass
class Rollout:
    """What a policy went through, as arrays over time and environments."""

    states: np.ndarray
    actions: np.ndarray
    log_probabilities: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray


class Agent:
    """A policy and a value function in one library, with the optimizer of both."""

    def __init__(self, library: str, seed: int) -> None:
        self.lib: Any = importlib.import_module(library)
        self.nn, optim = (importlib.import_module(f"{library}.{part}") for part in ("nn", "optim"))
        self.rng = np.random.default_rng(seed)
        self.policy, self.value = self._network(2), self._network(1)
        self.parameters = [*self.policy.parameters(), *self.value.parameters()]
        self.optimizer = optim.Adam(self.parameters, lr=RATE)

    def _network(self, outputs: int) -> Any:
        nn = self.nn
        network = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))
        with self.lib.no_grad():
            for layer in (network[0], network[2], network[4]):
                bound = layer.weight.shape[1] ** -0.5  # as both libraries draw them by themselves
                for part in (layer.weight, layer.bias):
                    part.copy_(self.lib.tensor(self.rng.uniform(-bound, bound, tuple(part.shape)).astype(np.float32)))
        return network

    def act(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Drawn actions, their log-probabilities, and the values of the states."""
        with self.lib.no_grad():
            x = self.lib.tensor(states)
            logp, values = self.policy(x).log_softmax(-1).numpy(), self.value(x).numpy()[:, 0]
        actions = (self.rng.random(len(states)) < np.exp(logp[:, 1])).astype(np.int64)
        return actions, logp[np.arange(len(states)), actions], values

    def values(self, states: np.ndarray) -> np.ndarray:
        """The values of states."""
        with self.lib.no_grad():
            return self.value(self.lib.tensor(states)).numpy()[:, 0]

    def learn(self, rollout: Rollout, rate: float) -> None:
        """Goes through the rollout in random batches."""
        self.optimizer.param_groups[0]["lr"] = rate
        for _ in range(EPOCHS):
            for rows in np.split(self.rng.permutation(ENVS * HORIZON), ENVS * HORIZON // BATCH):
                self._step(*(part[rows] for part in vars(rollout).values()))

    def _step(self, states: Any, actions: Any, old: Any, advantages: Any, returns: Any) -> None:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        states, actions, old, advantages, returns = map(self.lib.tensor, (states, actions, old, advantages, returns))
        logp = -self.nn.functional.cross_entropy(self.policy(states), actions, reduction="none")
        ratio = (logp - old).exp()
        plain, clipped = ratio * advantages, ratio.clip(1 - CLIP, 1 + CLIP) * advantages
        gain = self.lib.where(plain < clipped, plain, clipped).mean()
        loss = 0.5 * (self.value(states)[:, 0] - returns).square().mean() - gain
        self.optimizer.zero_grad()
        loss.backward()
        self.nn.utils.clip_grad_norm_(self.parameters, NORM)
        self.optimizer.step()


class Runner:
    """Steps of all environments, which start anew where an episode ends."""

    def __init__(self, seed: int) -> None:
        same_step = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        self.envs = gymnasium.make_vec("CartPole-v1", ENVS, vectorization_mode="sync", vector_kwargs=same_step)
        self.states, _ = self.envs.reset(seed=seed)
        self.running = np.zeros(ENVS)
        self.episodes: list[float] = []

    def collect(self, agent: Agent) -> Rollout:
        """HORIZON steps, with advantages estimated by a decaying sum of one-step errors."""
        shape = (HORIZON, ENVS)
        states, actions = np.empty((*shape, 4), np.float32), np.empty(shape, np.int64)
        logp, values, rewards, ended = (np.empty(shape, np.float32) for _ in range(4))
        for t in range(HORIZON):
            states[t] = self.states
            actions[t], logp[t], values[t] = agent.act(self.states)
            self.states, rewards[t], terminated, truncated, infos = self.envs.step(actions[t])
            self._count(terminated | truncated, rewards[t])
            ended[t] = terminated | truncated
            if truncated.any():  # the time limit is no failure: what would have come is estimated
                last = np.stack(list(infos["final_obs"][truncated])).astype(np.float32)
                rewards[t, truncated] += GAMMA * agent.values(last)
        advantages, following, ahead = np.empty(shape, np.float32), agent.values(self.states), np.zeros(ENVS, np.float32)
        for t in reversed(range(HORIZON)):
            error = rewards[t] + GAMMA * following * (1 - ended[t]) - values[t]
            advantages[t] = ahead = error + GAMMA * LAMBDA * (1 - ended[t]) * ahead
            following = values[t]
        parts = (states, actions, logp, advantages, advantages + values)
        return Rollout(*(part.reshape(-1, *part.shape[2:]) for part in parts))

    def _count(self, ended: np.ndarray, rewards: np.ndarray) -> None:
        self.running += rewards
        self.episodes += self.running[ended].tolist()
        self.running[ended] = 0


def run(library: str, seed: int, most_steps: int) -> dict[str, float]:
    """Trains until the goal, or for so many steps; the mean return, steps, and the seconds in all and of learning alone."""
    agent, runner = Agent(library, seed), Runner(seed)
    start, learning, steps, mean = time.perf_counter(), 0.0, 0, 0.0
    while steps < most_steps and mean < GOAL:
        rollout = runner.collect(agent)
        steps += ENVS * HORIZON
        before = time.perf_counter()
        agent.learn(rollout, RATE * (1 - steps / MOST_STEPS))
        learning += time.perf_counter() - before
        mean = float(np.mean(runner.episodes[-100:])) if len(runner.episodes) >= 100 else 0.0
    runner.envs.close()
    return {"return": mean, "steps": steps, "seconds": time.perf_counter() - start, "learning": learning}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Trains and prints how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", choices=("treadle", "torch"), default="treadle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads of the library (default: its own choice)")
    parser.add_argument("--quick", action="store_true", help="10,000 steps")
    options = parser.parse_args(arguments)
    if options.threads:
        importlib.import_module(options.library).set_num_threads(options.threads)
    found = run(options.library, options.seed, 10_000 if options.quick else MOST_STEPS)
    print(
        f"{options.library}, seed {options.seed}: mean return {found['return']:.1f} of 100 episodes after {found['steps']:,} steps "
        f"in {found['seconds']:.2f} s, of which learning took {found['learning']:.2f} s"
    )
    return found


if __name__ == "__main__":
    main()
