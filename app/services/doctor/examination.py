"""Runs the groups of checks side by side: each check has its own time, and none stops the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.ai_clients.registry import ProviderRegistry
from app.config import Settings
from app.domain.asset_kinds import AssetKinds
from app.services.doctor.findings import Code, Finding, Ill

T = TypeVar("T")

# findings, and facts worth a word when nothing is wrong
Seen = Sequence[Finding | str]


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What is looked at: an installation by its settings, of a gateway with these providers and kinds of assets."""

    settings: Settings
    providers: ProviderRegistry
    kinds: AssetKinds


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """Checks of one thing, which is opened once for all of them. ``open`` raises Ill. ``silence`` is what it means when
    one does not end in time."""

    name: str
    open: Callable[[CheckContext], AbstractAsyncContextManager[T]]
    checks: tuple[Callable[[T], Awaitable[Seen]], ...]
    silence: Code = Code.NO_ANSWER


def by_settings(
    open_: Callable[[Settings], AbstractAsyncContextManager[T]],
) -> Callable[[CheckContext], AbstractAsyncContextManager[T]]:
    """For what is opened by settings alone."""
    return lambda context: open_(context.settings)


@dataclass(frozen=True, slots=True)
class Examined:
    """What one group saw. ``skipped``: another group's findings are in its way."""

    group: str
    findings: tuple[Finding, ...]
    facts: tuple[str, ...] = ()
    skipped: bool = False


async def examine(
    context: CheckContext, groups: Sequence[Group[Any]], *, patience_seconds: float
) -> AsyncGenerator[Examined]:
    """What each group saw, as they end; all end within three times the patience, which each check has."""
    tasks = [asyncio.create_task(_examine(group, context, patience_seconds)) for group in groups]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()


async def _examine(group: Group[Any], context: CheckContext, patience: float) -> Examined:
    skipped = False
    seen: list[Finding | str] = []
    try:
        async with asyncio.timeout(3 * patience):  # opening and closing included
            await _look(group, context, patience, seen)
    except Ill as error:
        skipped = error.finding is None
        seen += [] if error.finding is None else [error.finding]
    except TimeoutError:
        seen.append(_nothing(group, group.name, patience))
    except Exception as error:  # noqa: BLE001 - the other groups have more to tell
        seen.append(Finding(Code.CHECK_BROKE, f"{group.name}: {type(error).__name__}"))
    findings = tuple(item for item in seen if isinstance(item, Finding))
    facts = tuple(item for item in seen if isinstance(item, str))
    return Examined(group.name, findings, facts, skipped)


async def _look(group: Group[Any], context: CheckContext, patience: float, seen: list[Finding | str]) -> None:
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(patience):
            patient = await stack.enter_async_context(group.open(context))
        for result in await asyncio.gather(
            *(_patiently(group, _name(check), check(patient), patience) for check in group.checks)
        ):
            seen += result


async def _patiently(group: Group[Any], name: str, check: Awaitable[Seen], patience: float) -> Seen:
    try:
        async with asyncio.timeout(patience):
            return await check
    except Ill as error:
        return [] if error.finding is None else [error.finding]
    except TimeoutError:
        return [_nothing(group, name, patience)]
    except Exception as error:  # noqa: BLE001 - the other checks have more to tell
        return [Finding(Code.CHECK_BROKE, f"{group.name}, {name}: {type(error).__name__}")]


def _name(check: Callable[..., object]) -> str:
    return getattr(check, "__name__", "check").strip("_").replace("_", " ")


def _nothing(group: Group[Any], name: str, patience: float) -> Finding:
    return Finding(group.silence, f"{name}: nothing within {patience:g} s")
