"""``make soak``: the whole stack under load and kills, for as long as you like; exit 0 only without a difference."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from tests.chaos.soak.plan import Plan, Wishes, plan_of
from tests.chaos.soak.soak import SETTINGS, Result, Soak
from tests.e2e.gateway import Gateway
from tests.servers import server_home


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=0.7, help="requests per second")
    parser.add_argument("--kills", type=float, default=6.0, help="kills per minute")
    parser.add_argument("--seed", type=int, default=None, help="the same seed asks and kills the same again")
    parser.add_argument("--no-faults", action="store_true", help="leave the far ends well")
    parser.add_argument("--keep", type=Path, default=None, help="copy data and logs there when something differs")
    wanted = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if wanted.seed is None else wanted.seed
    plan = plan_of(Wishes(wanted.minutes, wanted.rate, wanted.kills, seed))
    say(f"seed {seed}: {len(plan.orders)} requests and {len(plan.kills)} kills in {wanted.minutes:g} minutes")
    with server_home("soak") as home, Gateway.running(home, **SETTINGS) as gateway:
        try:
            result = asyncio.run(soak(gateway, plan, faults=not wanted.no_faults))
        except (KeyboardInterrupt, asyncio.CancelledError):
            say("stopped")
            return 130
        if result.differences and wanted.keep is not None:
            shutil.copytree(home / "logs", wanted.keep, dirs_exist_ok=True)
    return told(result, plan)


async def soak(gateway: Gateway, plan: Plan, *, faults: bool) -> Result:
    """An interrupt ends the load early; a second one ends everything."""
    run = Soak(gateway, plan, faults=faults, say=say)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, run.interrupt)
    return await run.run()


def told(result: Result, plan: Plan) -> int:
    for difference in result.differences:
        say(f"✗ {difference}")
    say(", ".join(f"{count} {outcome}" for outcome, count in sorted(result.outcomes.items()) if count))
    say(result.line(plan))
    return 1 if result.differences else 0


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
