"""What is read of the machine: CPU time of processes, the processor's name, and the other queues' versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench.cpu import CpuWatch, family_seconds, parse_stat
from bench.machine import processor_of
from bench.peers.environment import LOCK

from bench import cpu

_BURN = "import time\nwhile time.process_time() < 0.2: pass"


def test_a_process_may_be_called_anything() -> None:
    assert parse_stat("7 (a) b) S 1 2 3\n")[:2] == ["S", "1"]


@pytest.mark.skipif(not cpu.available(), reason="needs /proc")
def test_cpu_of_children_counts_for_their_parent_also_when_they_have_ended() -> None:
    watch = CpuWatch({"us": [os.getpid()]})
    subprocess.run([sys.executable, "-c", _BURN], check=True)
    assert watch.spent()["us"] >= 0.2


@pytest.mark.skipif(not cpu.available(), reason="needs /proc")
def test_a_process_that_is_gone_has_spent_nothing_more() -> None:
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    assert family_seconds(done.pid) == 0


def test_the_processor_has_a_name() -> None:
    assert processor_of(["vendor_id : x", "model name\t: Some CPU @ 2 GHz", "model name : other"]) == "Some CPU @ 2 GHz"
    assert processor_of([]) == ""


def test_the_other_queues_are_pinned_as_they_are_asked_for_and_with_hashes() -> None:
    wanted = LOCK.with_name("requirements.in").read_text(encoding="utf-8")
    pinned = LOCK.read_text(encoding="utf-8")
    for name, number in re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==([\d.]+)", wanted, re.MULTILINE):
        assert re.search(rf"^{name}=={re.escape(number)} .*\\$", pinned, re.MULTILINE)
    blocks = re.split(r"\n(?=[a-z])", pinned)
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in pinned
    assert not (Path(LOCK).parents[2] / "requirements.lock").read_text(encoding="utf-8").count("procrastinate")
