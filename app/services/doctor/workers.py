"""The running installation, by what its processes wrote: workers, pools, circuit breakers."""

from __future__ import annotations

from importlib.metadata import version

from app.db import breakers, doctor
from app.domain.breakers import BreakerState
from app.services.doctor.examination import Group, Seen
from app.services.doctor.findings import Code, Finding
from app.services.doctor.opening import DatabasePatient, open_migrated

_API_PROCESSES = 1  # at least


async def _lanes(patient: DatabasePatient) -> Seen:
    ttl = patient.settings.worker_ttl_seconds
    served = await doctor.lanes_served(patient.database, worker_ttl_seconds=ttl)
    return [
        f"{alive} on {lane}" if alive else Finding(Code.LANE_UNSERVED, f"{lane}: no live worker")
        for lane, alive in served.items()
    ]


async def _job_types(patient: DatabasePatient) -> Seen:
    ttl = patient.settings.worker_ttl_seconds
    unserved = await doctor.job_types_unserved(patient.database, worker_ttl_seconds=ttl)
    waiting = ", ".join(f"{jobs} of type {name}" for name, jobs in unserved.items())
    return [Finding(Code.JOB_TYPE_UNSERVED, f"queued: {waiting}")] if unserved else []


async def _versions(patient: DatabasePatient) -> Seen:
    here = version("makeit3d-bff")
    ttl = patient.settings.worker_ttl_seconds
    others = await doctor.workers_of_other_versions(patient.database, here, worker_ttl_seconds=ttl)
    return [Finding(Code.WORKER_VERSIONS, f"this is {here}; {', '.join(others)}")] if others else []


async def _slots(patient: DatabasePatient) -> Seen:
    wanted = {name: pool.slots for name, pool in patient.context.providers.pools(patient.settings).items()}
    there = await doctor.slots(patient.database)
    other = [
        f"{name} has {there[name]}, here it is {slots}"
        for name, slots in wanted.items()
        if there.get(name, slots) != slots
    ]
    return [Finding(Code.SLOTS_DIFFER, ", ".join(other))] if other else []


async def _breakers(patient: DatabasePatient) -> Seen:
    return [
        Finding(Code.BREAKER_OPEN, f"{item.provider}: {item.state}, {item.error_code or 'it failed too often'}")
        for item in await breakers.read_all(patient.database)
        if item.state is not BreakerState.CLOSED
    ]


async def _connections(patient: DatabasePatient) -> Seen:
    ttl = patient.settings.worker_ttl_seconds
    processes = await doctor.live_workers(patient.database, worker_ttl_seconds=ttl) + _API_PROCESSES
    size, most = patient.settings.database_pool_size, patient.server.max_connections
    if processes * size > most:
        return [Finding(Code.CONNECTIONS_SHORT, f"{processes} processes with {size} each, {most} in all")]
    return []


WORKERS = Group("workers", open_migrated, (_lanes, _job_types, _versions, _slots, _breakers, _connections))
