"""Loads in turn, A B C A B C …: what disturbs the machine disturbs all of a round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.e2e.gateway import Gateway

from bench.bench import Bench
from bench.figures import Figure
from bench.load import Load
from bench.servers import spent, watch


@dataclass(frozen=True, slots=True)
class Target:
    """Something to load; ``send`` gets the number of the round. With a gateway its CPU is told, too."""

    name: str
    label: str
    send: Callable[[int], Load]
    gateway: Gateway | None = None


def interleave(bench: Bench, part: str, targets: Sequence[Target]) -> list[Figure]:
    """Requests per second of each target in each round; the details are the last round's."""
    samples: dict[str, list[float]] = {target.name: [] for target in targets}
    details: dict[str, str] = {}
    for number in bench.each_round(part):
        for target in targets:
            cpu = None if target.gateway is None else watch(target.gateway)
            seen = target.send(number)
            samples[target.name].append(seen.per_second)
            details[target.name] = _details(seen, "" if cpu is None else spent(cpu, seen.total))
    return [
        Figure(target.name, target.label, "/s", tuple(samples[target.name]), details[target.name]) for target in targets
    ]


def _details(seen: Load, cpu: str) -> str:
    latency = f"p50 {seen.p50:.1f} ms, p99 {seen.p99:.1f} ms"
    generator = (
        f"generator {1000 * seen.cpu_seconds / max(1, seen.total):.3f} ms CPU each, {seen.cpu_share:.0%} of a core"
    )
    return "; ".join(part for part in (latency, generator, cpu) if part)
