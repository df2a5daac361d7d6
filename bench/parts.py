"""The parts of the benchmark. Another one is a file with a function like these and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from bench.accepts import accepts
from bench.bench import Part
from bench.claims import claims
from bench.drain import drain
from bench.finish import finish
from bench.inputs import inputs
from bench.latency import latency
from bench.memory import memory
from bench.polls import polls

PARTS: Mapping[str, Part] = {
    "polls": polls,
    "accepts": accepts,
    "claims": claims,
    "finish": finish,
    "drain": drain,
    "latency": latency,
    "inputs": inputs,
    "memory": memory,
}
