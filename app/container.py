"""Composition: the only place where implementations are chosen and wired."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import httpx

from app.ai_clients.registry import Providers, build_providers, pools
from app.config import Settings
from app.db import pools as pool_rows
from app.db.pool import Database
from app.db.workers import WorkerIdentity
from app.domain.jobs import JobType
from app.domain.user_limits import MICROS, UserLimits
from app.job_types.generate_images import GenerateImages
from app.job_types.generate_model import GenerateModel, ModelWork, RefineModel
from app.job_types.polled import PolledCalls
from app.job_types.render_sketch import RenderSketch
from app.services.asset_content import AssetContent
from app.services.bells import Bells, OwnedBells
from app.services.breaker import Breakers
from app.services.cancellation import Cancellation
from app.services.decoders import Decoders
from app.services.engine import Engine
from app.services.event_stream import EventStream
from app.services.generation import Generation
from app.services.health import Health
from app.services.input_files import InputFiles
from app.services.input_resolver import InputResolver
from app.services.installation import InstallationGauges
from app.services.job_run import JobHandler
from app.services.journal import Journal
from app.services.leftovers import Leftovers
from app.services.notifier import Notifier
from app.services.outcomes import RetryPolicy
from app.services.outputs import Outputs
from app.services.plans import Planner
from app.services.poll_cache import PollAnswer, PollCache
from app.services.poller import Poller
from app.services.posts import Posts
from app.services.preparation import Preparation
from app.services.principals import PrincipalVerifier
from app.services.rate_limits import RateLimits
from app.services.reconciler import Reconciler
from app.services.retries import Retries
from app.services.settler import Settler
from app.services.spool import Spool
from app.services.sweeper import Sweeper
from app.services.task_reading import TaskReading
from app.services.task_status import TaskStatus
from app.services.uploads import Uploads
from app.services.vacancies import Vacancies
from app.storage.base import ObjectStorage
from app.storage.supabase_storage import SupabaseStorage


async def _open_database(settings: Settings, stack: AsyncExitStack, name: str) -> Database:
    database = await Database.open(settings, application_name=name)
    stack.push_async_callback(database.close)
    await pool_rows.ensure(database, {name: (pool.provider, pool.slots) for name, pool in pools(settings).items()})
    return database


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
        storage: ObjectStorage | None = None,
        providers: Providers | None = None,
    ) -> WorkerContainer:
        """Open everything a worker needs; other ends than the configured ones may be handed in."""
        async with AsyncExitStack() as stack:
            database = await _open_database(settings, stack, f"makeit3d worker {identity.name}")
            storage = storage or await SupabaseStorage.open(settings)
            stack.push_async_callback(storage.aclose)
            providers = providers or build_providers(settings)
            stack.push_async_callback(providers.aclose)
            notifier = Notifier(database)
            stack.push_async_callback(notifier.aclose)
            spool = _open_spool(settings, host=identity.host)
            identity = replace(identity, host=spool.host)
            vacancies = Vacancies(database, bells, notifier, user_limits(settings))
            reconciler = Reconciler(database, vacancies, providers.all_models, settings)
            stack.push_async_callback(reconciler.aclose)
            breakers = Breakers(database, bells, settings)
            posts = Posts(database, spool, breakers, RetryPolicy.of(settings))
            journal = Journal(database, settings, spool, reconciler, posts)
            pollers = {
                name: Poller(
                    database, provider, vacancies, notifier, breakers, give_up_seconds=settings.call_give_up_seconds
                )
                for name, provider in providers.all_models.items()
            }
            for poller in pollers.values():
                stack.push_async_callback(poller.aclose)
            settler = Settler(database, bells, vacancies, notifier, window_seconds=settings.settle_window_ms / 1000)
            leftovers = Leftovers(database, storage, settings)
            decoders = Decoders(settings)
            stack.push_async_callback(decoders.aclose)
            engine = Engine(
                database,
                identity,
                _handlers(settings, database, storage, providers, journal, pollers, spool, decoders, vacancies),
                posts=posts,
                settler=settler,
                vacancies=vacancies,
                leftovers=leftovers,
                bells=bells,
                notifier=notifier,
                settings=settings,
            )
            sweeper = Sweeper(
                database,
                bells,
                notifier,
                list(pollers.values()),
                leftovers,
                reconciler,
                vacancies,
                posts=posts,
                worker_id=identity.id,
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
    async def open(cls, settings: Settings, bells: OwnedBells) -> OperatorContainer:
        """Raises what opening the database raises. The bells are closed with it."""
        async with AsyncExitStack() as stack:
            database = await Database.open(settings, application_name="makeit3d operator")
            stack.push_async_callback(database.close)
            stack.push_async_callback(bells.aclose)
            notifier = Notifier(database)
            stack.push_async_callback(notifier.aclose)
            return cls(
                database, Retries(database, bells, notifier), Breakers(database, bells, settings), stack.pop_all()
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
    generation: Generation
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
    async def open(cls, settings: Settings, bells: OwnedBells) -> ApiContainer:
        """Open everything an API process needs; the bells are closed with it. Raises what opening raises."""
        async with AsyncExitStack() as stack:
            database = await _open_database(settings, stack, "makeit3d api")
            storage = await SupabaseStorage.open(settings)
            stack.push_async_callback(storage.aclose)
            providers = build_providers(settings)
            stack.push_async_callback(providers.aclose)
            stack.push_async_callback(bells.aclose)
            polls = PollCache[PollAnswer]()
            notifier = Notifier(database, here=polls.changed)
            stack.push_async_callback(notifier.aclose)
            redis_url = settings.redis_url.get_secret_value()
            user = user_limits(settings)
            vacancies = Vacancies(database, bells, notifier, user)
            limits = RateLimits(
                redis_url,
                {"openai": settings.openai_requests_per_minute, "tripo": settings.tripo_requests_per_minute},
            )
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
                name: providers.all_models[pool.provider].poll_seconds
                for name, pool in pools(settings).items()
                if pool.provider in providers.all_models
            }
            return cls(
                settings=settings,
                database=database,
                storage=storage,
                verifier=PrincipalVerifier(settings, http),
                generation=Generation(
                    database,
                    InputResolver(database, inputs, settings),
                    providers,
                    Planner(providers, settings),
                    limits,
                    user,
                    bells,
                    vacancies,
                    notifier,
                ),
                cancellation=Cancellation(database, vacancies, notifier),
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


def _handlers(
    settings: Settings,
    database: Database,
    storage: ObjectStorage,
    providers: Providers,
    journal: Journal,
    pollers: dict[str, Poller],
    spool: Spool,
    decoders: Decoders,
    vacancies: Vacancies,
) -> dict[JobType, JobHandler]:
    inputs = InputFiles(storage, settings, settings.spool_directory, decoders)
    outputs = Outputs(database, storage, settings)
    calls = PolledCalls(providers, journal, pollers, RetryPolicy.of(settings))
    preparation = Preparation(database, vacancies)
    work = ModelWork(database, calls, inputs, preparation, spool, outputs, settings)
    return {
        JobType.GENERATE_IMAGES: GenerateImages(providers, inputs, preparation, journal, spool, outputs),
        JobType.RENDER_SKETCH: RenderSketch(work, settings),
        JobType.GENERATE_MODEL: GenerateModel(work),
        JobType.REFINE_MODEL: RefineModel(work),
    }
