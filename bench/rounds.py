"""Loads in turn, A B C A B C …: what disturbs the machine disturbs all of a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.e2e.gateway import Gateway

from bench.bench import Bench
from bench.figures import Figure
from bench.load import Load
from bench.servers import watch


@dataclass(frozen=True, slots=True)
class Target:
    """Something to load; ``send`` gets the number of the round. With a gateway its CPU is told, too."""

    name: str
    label: str
    send: Callable[[int], Load]
    gateway: Gateway | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rounds of a target showed; CPU in seconds by group of processes."""

    loads: list[Load] = field(default_factory=list[Load])
    cpu: list[Mapping[str, float]] = field(default_factory=list[Mapping[str, float]])

    def details(self) -> str:
        """Medians of the rounds."""
        p50, p99 = (median(values) for values in zip(*((load.p50, load.p99) for load in self.loads), strict=True))
        own = median(1000 * load.cpu_seconds / load.total for load in self.loads)
        share = median(load.cpu_share for load in self.loads)
        parts = [f"p50 {p50:.1f} ms, p99 {p99:.1f} ms", f"generator {own:.3f} ms CPU each, {share:.0%} of a core"]
        if groups := list(self.cpu[0]) if self.cpu else []:
            parts.append(f"CPU ms each: {', '.join(f'{group} {self._cpu(group):.2f}' for group in groups)}")
        return "; ".join(parts)

    def _cpu(self, group: str) -> float:
        return median(1000 * cpu[group] / load.total for cpu, load in zip(self.cpu, self.loads, strict=True))


def interleave(bench: Bench, part: str, targets: Sequence[Target]) -> list[Figure]:
    """Requests per second of each target in each round."""
    seen = {target.name: Seen() for target in targets}
    for number in bench.each_round(part):
        for target in targets:
            cpu = None if target.gateway is None else watch(target.gateway)
            seen[target.name].loads.append(target.send(number))
            if cpu is not None:
                seen[target.name].cpu.append(cpu.spent())
    return [
        Figure(
            target.name,
            target.label,
            "/s",
            tuple(load.per_second for load in seen[target.name].loads),
            seen[target.name].details(),
        )
        for target in targets
    ]
