"""Composition: the only place where implementations are chosen and wired."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import httpx

from app.ai_clients.registry import Providers
from app.ai_clients.registry import build_registry as built_in_providers
from app.calls.executor import PaidCallExecutor
from app.calls.paid_calls import PaidCalls
from app.calls.poller import Poller
from app.calls.reconciler import Reconciler
from app.calls.spool import Spool
from app.calls.upkeep import CallUpkeep
from app.config import Settings
from app.db import pools as pool_rows
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.user_limits import MICROS, NO_LIMITS, UserLimits
from app.job_types import refine_model
from app.job_types.generate_images import GENERATE_IMAGES
from app.job_types.generate_model import GENERATE_MODEL
from app.job_types.polled import PolledCalls
from app.job_types.registry import JobTypes
from app.job_types.render_sketch import RENDER_SKETCH
from app.job_types.toolbox import Toolbox
from app.outputs.kinds import KINDS
from app.queue.contracts import AssetKinds, Participants
from app.queue.transitions import Queue
from app.registry import Registry
from app.services.asset_content import AssetContent
from app.services.bells import Bells, OwnedBells
from app.services.breaker import Breakers
from app.services.cancellation import Cancellation
from app.services.decoders import Decoders
from app.services.engine import Engine
from app.services.event_stream import EventStream
from app.services.health import Health
from app.services.input_files import InputFiles
from app.services.input_resolver import InputResolver
from app.services.installation import InstallationGauges
from app.services.leftovers import Leftovers
from app.services.notifier import Notifier
from app.services.outcomes import RetryPolicy
from app.services.outputs import Outputs
from app.services.poll_cache import PollAnswer, PollCache
from app.services.preparation import Preparation
from app.services.principals import PrincipalVerifier
from app.services.publisher import Publisher
from app.services.rate_limits import RateLimits
from app.services.retries import Retries
from app.services.settler import Settler
from app.services.sweeper import Sweeper
from app.services.task_reading import TaskReading
from app.services.task_status import TaskStatus
from app.services.uploads import Uploads
from app.storage.base import ObjectStorage
from app.storage.supabase_storage import SupabaseStorage
from app.task_types.acceptance import Acceptance
from app.task_types.follow_ups import FollowUpPlans
from app.task_types.image_to_image import IMAGE_TO_IMAGE
from app.task_types.image_to_model import IMAGE_TO_MODEL
from app.task_types.planner import Planner
from app.task_types.refine_model import REFINE_MODEL
from app.task_types.registry import TaskTypes
from app.task_types.sketch_to_model import sketch_to_model
from app.task_types.text_to_image import TEXT_TO_IMAGE
from app.task_types.text_to_model import TEXT_TO_MODEL


def build_task_types(*, sketch_renderer: str | None = None) -> TaskTypes:
    """Every task type there is: one line each."""
    return TaskTypes(
        [
            TEXT_TO_IMAGE,
            IMAGE_TO_IMAGE,
            TEXT_TO_MODEL,
            IMAGE_TO_MODEL,
            sketch_to_model(sketch_renderer),
            REFINE_MODEL,
        ]
    )


def build_registry(*, sketch_renderer: str | None = None) -> Registry:
    """What this product can do, one line for each thing. Nothing registers itself."""
    return Registry(
        providers=built_in_providers(),
        task_types=build_task_types(sketch_renderer=sketch_renderer),
        job_types=JobTypes(
            [
                GENERATE_IMAGES,
                RENDER_SKETCH,
                GENERATE_MODEL,
                refine_model.REFINE_MODEL,
            ]
        ),
        asset_kinds=AssetKinds(KINDS),
        participants=Participants(),
        audit_checks=(),
        doctor_checks=(),
        personal_data=(),
    )


async def _open_database(settings: Settings, registry: Registry, stack: AsyncExitStack, name: str) -> Database:
    database = await Database.open(settings, registry.asset_kinds, application_name=name)
    stack.push_async_callback(database.close)
    await pool_rows.ensure(
        database, {name: (pool.provider, pool.slots) for name, pool in registry.providers.pools(settings).items()}
    )
    return database


def open_queue(
    database: Database, registry: Registry, limits: UserLimits = NO_LIMITS, planner: Planner | None = None
) -> Queue:
    """The queue with everything that is registered. A process that completes jobs has a planner, for follow-ups."""
    follow_ups = None if planner is None else FollowUpPlans(registry.task_types, planner)
    return Queue(database, registry.participants, limits=limits, follow_ups=follow_ups)


def user_limits(settings: Settings) -> UserLimits:
    """The limits of every user by settings."""
    usd = settings.user_daily_budget_usd
    return UserLimits(
        in_flight=settings.user_max_in_flight,
        unfinished=settings.user_max_unfinished,
        daily_budget_micros=None if usd is None else int(usd * MICROS),
    )


def _open_spool(settings: Settings, *, host: str = "") -> Spool:
    spool = Spool(
        settings.spool_directory,
        max_bytes=settings.spool_bytes,
        host=host,
        keep_seconds=settings.spool_keep_hours * 3600,
    )
    spool.open()
    return spool


@dataclass(slots=True)
class WorkerContainer:
    """What a worker process is made of."""

    settings: Settings
    database: Database
    storage: ObjectStorage
    engine: Engine
    sweeper: Sweeper
    pollers: dict[str, Poller]
    stack: AsyncExitStack

    @classmethod
    async def open(
        cls,
        settings: Settings,
        identity: WorkerIdentity,
        bells: Bells,
        *,
        registry: Registry | None = None,
        storage: ObjectStorage | None = None,
        providers: Providers | None = None,
    ) -> WorkerContainer:
        """Open everything a worker needs; other ends than the configured ones may be handed in."""
        registry = registry or build_registry()
        async with AsyncExitStack() as stack:
            database = await _open_database(settings, registry, stack, f"makeit3d worker {identity.name}")
            storage = storage or await SupabaseStorage.open(settings)
            stack.push_async_callback(storage.aclose)
            providers = providers or registry.providers.build(settings)
            stack.push_async_callback(providers.aclose)
            notifier = Notifier(database)
            stack.push_async_callback(notifier.aclose)
            spool = _open_spool(settings, host=identity.host)
            identity = replace(identity, host=spool.host)
            user = user_limits(settings)
            planner = Planner(providers, settings, registry.job_types.permits)
            queue = open_queue(database, registry, user, planner)
            publisher = Publisher(queue, bells, notifier, user)
            stack.push_async_callback(publisher.aclose)
            reconciler = Reconciler(database, publisher, providers.polled, settings)
            stack.push_async_callback(reconciler.aclose)
            breakers = Breakers(database, bells, settings)
            executor = PaidCallExecutor(database, spool.markers, breakers)
            calls = PaidCalls(database, settings, spool, reconciler, executor)
            pollers = {
                name: Poller(database, provider, publisher, breakers, give_up_seconds=settings.call_give_up_seconds)
                for name, provider in providers.polled.items()
            }
            for poller in pollers.values():
                stack.push_async_callback(poller.aclose)
            settler = Settler(queue, publisher, window_seconds=settings.settle_window_ms / 1000)
            leftovers = Leftovers(database, storage, settings)
            decoders = Decoders(settings)
            stack.push_async_callback(decoders.aclose)
            toolbox = Toolbox(
                settings=settings,
                database=database,
                storage=storage,
                providers=providers,
                calls=calls,
                polled=PolledCalls(providers, pollers, RetryPolicy.of(settings)),
                preparation=Preparation(database, publisher),
                inputs=InputFiles(storage, settings, settings.spool_directory, decoders),
                outputs=Outputs(database, storage, settings),
                spool=spool,
                queue=queue,
                publisher=publisher,
            )
            engine = Engine(
                queue,
                identity,
                registry.job_types.runnable(toolbox),
                posts=executor,
                settler=settler,
                publisher=publisher,
                leftovers=leftovers,
                bells=bells,
                settings=settings,
            )
            sweeper = Sweeper(
                queue,
                bells,
                leftovers,
                publisher,
                CallUpkeep(database, spool, executor, list(pollers.values()), reconciler, worker_id=identity.id),
                settings=settings,
            )
            return cls(settings, database, storage, engine, sweeper, pollers, stack.pop_all())

    async def start(self) -> None:
        """Register the process and begin housekeeping; the first shift looks for work that is already there."""
        await self.engine.start()
        self.sweeper.start()
        self.engine.wake()

    async def aclose(self) -> None:
        await self.sweeper.aclose()
        await self.engine.stop()
        await self.stack.aclose()


@dataclass(slots=True)
class OperatorContainer:
    """What a command of an operator needs that changes something."""

    database: Database
    retries: Retries
    breakers: Breakers
    stack: AsyncExitStack

    @classmethod
    async def open(cls, settings: Settings, bells: OwnedBells, registry: Registry) -> OperatorContainer:
        """Raises what opening the database raises. The bells are closed with it."""
        async with AsyncExitStack() as stack:
            database = await Database.open(settings, registry.asset_kinds, application_name="makeit3d operator")
            stack.push_async_callback(database.close)
            stack.push_async_callback(bells.aclose)
            notifier = Notifier(database)
            stack.push_async_callback(notifier.aclose)
            queue = open_queue(database, registry)
            publisher = Publisher(queue, bells, notifier, user_limits(settings))
            stack.push_async_callback(publisher.aclose)
            return cls(
                database,
                Retries(queue, publisher),
                Breakers(database, bells, settings),
                stack.pop_all(),
            )

    async def aclose(self) -> None:
        await self.stack.aclose()


@dataclass(slots=True)
class ApiContainer:
    """What an API process is made of."""

    settings: Settings
    database: Database
    storage: ObjectStorage
    verifier: PrincipalVerifier
    acceptance: Acceptance
    planner: Planner
    cancellation: Cancellation
    notifier: Notifier
    events: EventStream
    uploads: Uploads
    content: AssetContent
    tasks: TaskReading
    status: TaskStatus
    polls: PollCache[PollAnswer]
    health: Health
    installation: InstallationGauges
    stack: AsyncExitStack

    @classmethod
    async def open(cls, settings: Settings, bells: OwnedBells, registry: Registry | None = None) -> ApiContainer:
        """Open everything an API process needs; the bells are closed with it. Raises what opening raises."""
        registry = registry or build_registry()
        async with AsyncExitStack() as stack:
            database = await _open_database(settings, registry, stack, "makeit3d api")
            storage = await SupabaseStorage.open(settings)
            stack.push_async_callback(storage.aclose)
            providers = registry.providers.build(settings)
            stack.push_async_callback(providers.aclose)
            stack.push_async_callback(bells.aclose)
            polls = PollCache[PollAnswer]()
            notifier = Notifier(database, here=polls.changed)
            stack.push_async_callback(notifier.aclose)
            redis_url = settings.redis_url.get_secret_value()
            user = user_limits(settings)
            queue = open_queue(database, registry, user)
            publisher = Publisher(queue, bells, notifier, user)
            stack.push_async_callback(publisher.aclose)
            limits = RateLimits(redis_url, registry.providers.requests_per_minute(settings))
            stack.push_async_callback(limits.aclose)
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=5))
            decoders = Decoders(settings)
            stack.push_async_callback(decoders.aclose)
            inputs = InputFiles(storage, settings, settings.spool_directory, decoders)
            listen = settings.database_listen_url or settings.database_url
            events = EventStream(listen.get_secret_value(), database, listeners=[polls])
            stack.push_async_callback(events.aclose)
            health = Health(database, redis_url, storage, settings.generated_assets_bucket_name, events)
            stack.push_async_callback(health.aclose)
            events.start()
            paces = {
                name: providers.polled[pool.provider].poll_seconds
                for name, pool in registry.providers.pools(settings).items()
                if pool.provider in providers.polled
            }
            planner = Planner(providers, settings, registry.job_types.permits)
            return cls(
                settings=settings,
                database=database,
                storage=storage,
                verifier=PrincipalVerifier(settings, http),
                acceptance=Acceptance(
                    queue,
                    InputResolver(database, inputs, settings),
                    providers,
                    planner,
                    limits,
                    user,
                    publisher,
                ),
                planner=planner,
                cancellation=Cancellation(queue, publisher),
                notifier=notifier,
                events=events,
                uploads=Uploads(database, storage, inputs, _open_spool(settings), notifier, settings),
                content=AssetContent(database, storage),
                tasks=TaskReading(database),
                status=TaskStatus(database, events, paces),
                polls=polls,
                health=health,
                installation=InstallationGauges(database, worker_ttl_seconds=settings.worker_ttl_seconds),
                stack=stack.pop_all(),
            )

    async def aclose(self) -> None:
        await self.stack.aclose()
