"""What the doctor can find. The runbook's table is held to this one by a test."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class Severity(StrEnum):
    ERROR = "error"  # something does not work, or would be paid for and lost
    WARNING = "warning"  # it works, and not as well as it could


@dataclass(frozen=True, slots=True)
class Entry:
    """A stable code, what it means, and what to do."""

    code: str
    severity: Severity
    meaning: str
    remedy: str


_ERROR, _WARNING = Severity.ERROR, Severity.WARNING


class Code(Enum):
    """Every finding, in the order of the groups that look for them."""

    # the doctor itself
    NO_ANSWER = Entry(
        "no_answer", _ERROR, "a check did not end in time", "look at network, firewall and load; then run doctor again"
    )
    CHECK_BROKE = Entry(
        "check_broke", _ERROR, "a check ended with an error nobody expected", "run doctor again; report it if it stays"
    )

    # settings
    SETTINGS_INVALID = Entry(
        "settings_invalid", _ERROR, "a setting is missing or can not be read", "mend what is named; see .env.example"
    )
    SANDBOX_IN_PRODUCTION = Entry(
        "sandbox_in_production",
        _ERROR,
        "production would use the stand-ins of the sandbox; no process starts",
        "set the real address or key, or MAKEIT3D_ENVIRONMENT=sandbox",
    )
    PUBLIC_URL_LOCAL = Entry(
        "public_url_local",
        _ERROR,
        "apps can not reach the address that links are made of",
        "set PUBLIC_BASE_URL to the address under which apps reach the API",
    )
    PLAIN_HTTP = Entry(
        "plain_http", _ERROR, "keys or tokens travel unencrypted in production", "use https:// in the settings named"
    )
    DATABASE_PLAIN = Entry(
        "database_plain",
        _WARNING,
        "the connection to a remote database may be unencrypted",
        "add sslmode=require to the URL",
    )
    BROKER_OPEN = Entry(
        "broker_open",
        _WARNING,
        "a remote broker is used without a password in production",
        "give Redis a password and put it into REDIS_URL; use rediss:// where it offers TLS",
    )
    METRICS_OPEN = Entry(
        "metrics_open", _WARNING, "anybody who reaches the API can read its metrics", "set BFF_METRICS_TOKEN"
    )
    GRACE_SHORT = Entry(
        "grace_short",
        _ERROR,
        "a restart can cut a paid call that the provider would still have answered",
        "raise BFF_SHUTDOWN_GRACE_SECONDS above the longest provider timeout, and the process manager's grace with it",
    )
    TIME_LIMIT_SHORT = Entry(
        "time_limit_short",
        _ERROR,
        "jobs end while their provider may still answer in time; what was paid is wasted",
        "raise the time limits named above the longest provider timeout",
    )
    SLOTS_ABOVE_ACCOUNT = Entry(
        "slots_above_account",
        _WARNING,
        "a pool has more slots than a provider's usual account allows; calls beyond are refused and wait",
        "lower the setting named, or ignore this if your account has more",
    )
    POLLING_FAST = Entry(
        "polling_fast",
        _WARNING,
        "a provider is polled more often than it likes",
        "set the pace that is named to 2 or more",
    )
    MODEL_UNKNOWN = Entry(
        "model_unknown",
        _WARNING,
        "a version is not one this gateway knows; the provider refuses undated and retired names",
        "set the variable that is named to a dated version",
    )
    POOLER_CACHE = Entry(
        "pooler_cache",
        _ERROR,
        "prepared statements break at random behind a transaction pooler",
        "set BFF_DATABASE_STATEMENT_CACHE_SIZE=0, or use the direct or session address (port 5432)",
    )
    LISTEN_POOLED = Entry(
        "listen_pooled",
        _WARNING,
        "a transaction pooler delivers no notifications; event streams are up to 5 seconds late",
        "set DATABASE_LISTEN_URL to the direct or session address (port 5432)",
    )
    SPOOL_NOT_WRITABLE = Entry(
        "spool_not_writable",
        _ERROR,
        "results can not pass through this machine; no process starts",
        "make MAKEIT3D_HOME a directory that the gateway's user may write",
    )
    SPOOL_SHORT = Entry(
        "spool_short",
        _ERROR,
        "the disk has no room for one large result on its way",
        "free space, or point MAKEIT3D_HOME at a larger disk",
    )

    # database
    DATABASE_UNREACHABLE = Entry(
        "database_unreachable",
        _ERROR,
        "Postgres does not answer; nothing is accepted, no worker starts",
        "look whether it runs, and at host and port of DATABASE_URL",
    )
    DATABASE_LOGIN = Entry(
        "database_login",
        _ERROR,
        "Postgres refuses user or password",
        "set the right ones in DATABASE_URL (special characters as %40, %23, …)",
    )
    DATABASE_MISSING = Entry(
        "database_missing", _ERROR, "there is no such database", "mend the last part of DATABASE_URL, or create it"
    )
    DATABASE_FULL = Entry(
        "database_full",
        _ERROR,
        "Postgres has no connection left",
        "lower BFF_DATABASE_POOL_SIZE or the number of processes, or raise max_connections",
    )
    DATABASE_READ_ONLY = Entry(
        "database_read_only",
        _ERROR,
        "the database can not be written: a replica, or a full disk",
        "point DATABASE_URL at the primary, or end the read-only mode",
    )
    DATABASE_OLD = Entry("database_old", _ERROR, "Postgres is older than 15", "upgrade it")
    CONNECTIONS_SHORT = Entry(
        "connections_short",
        _WARNING,
        "all pools together may open more connections than Postgres allows",
        "lower BFF_DATABASE_POOL_SIZE, raise max_connections, or use a pooler",
    )
    CLOCK_SKEW = Entry(
        "clock_skew",
        _WARNING,
        "this machine's clock and the database's differ; tokens may seem expired or too young",
        "let NTP keep the clocks",
    )
    LISTEN_DEAF = Entry(
        "listen_deaf",
        _WARNING,
        "a notification did not come through; event streams are up to 5 seconds late",
        "set DATABASE_LISTEN_URL to a direct or session address of the same database",
    )

    # schema
    NOT_MIGRATED = Entry("not_migrated", _ERROR, "the database has none of our tables", "run `makeit3d migrate`")
    MIGRATIONS_MISSING = Entry(
        "migrations_missing", _ERROR, "the schema is older than this code", "run `makeit3d migrate`"
    )
    MIGRATION_CHANGED = Entry(
        "migration_changed",
        _ERROR,
        "a migration was edited after it was applied; the tables are not what the code expects",
        "restore the file in app/migrations, and put the change into a new one",
    )
    SCHEMA_NEWER = Entry(
        "schema_newer",
        _WARNING,
        "our tables were migrated by something that this code does not know",
        "update this installation to the version that brought the migration",
    )
    TABLE_MISSING = Entry(
        "table_missing",
        _ERROR,
        "there is no table of that name",
        "mend INPUT_ASSETS_TABLE_NAME, CONCEPT_IMAGES_TABLE_NAME or MODELS_TABLE_NAME, or create the table",
    )
    COLUMNS_WRONG = Entry(
        "columns_wrong",
        _ERROR,
        "columns that the gateway writes are missing or of another type",
        "add them as in app/migrations, or name a table that has them",
    )
    ROW_SECURITY_OFF = Entry(
        "row_security_off",
        _ERROR,
        "every signed-in user may read the rows of all",
        "`alter table … enable row level security`, with the policies of app/migrations",
    )
    BROWSERS_MAY_WRITE = Entry(
        "browsers_may_write",
        _ERROR,
        "browsers have rights that the gateway did not give them",
        "revoke them from anon and authenticated, as in app/migrations",
    )
    BROWSERS_MAY_NOT_READ = Entry(
        "browsers_may_not_read",
        _ERROR,
        "apps get “permission denied” for their own rows",
        "`grant select … to authenticated`, as in app/migrations",
    )
    ROLE_LIMITED = Entry(
        "role_limited",
        _ERROR,
        "the gateway's own database role lacks rights, or row-level security hides rows from it",
        "use the tables' owner in DATABASE_URL",
    )
    STORAGE_POLICIES_MISSING = Entry(
        "storage_policies_missing",
        _WARNING,
        "signed-in users may not use their own folder of an input bucket",
        "run `makeit3d migrate`: it prints the policies to make in the SQL editor of the Supabase dashboard",
    )
    REALTIME_MISSING = Entry(
        "realtime_missing",
        _WARNING,
        "apps that subscribe to a status table hear nothing",
        "`alter publication supabase_realtime add table …`",
    )

    # broker
    BROKER_UNREACHABLE = Entry(
        "broker_unreachable",
        _ERROR,
        "Redis does not answer: work begins up to BFF_SWEEP_SECONDS late, and rates are not limited",
        "look whether it runs, and at host and port of REDIS_URL",
    )
    BROKER_LOGIN = Entry("broker_login", _ERROR, "Redis refuses user or password", "set the right ones in REDIS_URL")
    BROKER_READ_ONLY = Entry(
        "broker_read_only", _ERROR, "Redis is a read-only replica", "point REDIS_URL at the primary"
    )
    BROKER_EVICTS = Entry(
        "broker_evicts",
        _ERROR,
        "Redis drops keys when its memory is full, queued bells among them",
        "set maxmemory-policy to noeviction",
    )
    BROKER_FULL = Entry(
        "broker_full", _ERROR, "Redis has hardly any memory left", "raise maxmemory, or give the gateway its own"
    )

    # storage
    PUBLISHABLE_KEY = Entry(
        "publishable_key",
        _ERROR,
        "SUPABASE_SERVICE_KEY holds the key of browsers, which may not do what the gateway does",
        "set the secret key (sb_secret_… or service_role)",
    )
    STORAGE_UNREACHABLE = Entry(
        "storage_unreachable",
        _ERROR,
        "Storage does not answer: no uploads, no results",
        "look at SUPABASE_URL and the project's state",
    )
    STORAGE_KEY_REFUSED = Entry(
        "storage_key_refused", _ERROR, "Storage refuses the key", "set SUPABASE_SERVICE_KEY to the project's secret key"
    )
    BUCKET_MISSING = Entry(
        "bucket_missing",
        _ERROR,
        "there is no such bucket",
        "create it, or mend GENERATED_ASSETS_BUCKET_NAME or INPUT_BUCKET_NAMES",
    )
    INPUT_BUCKET_PUBLIC = Entry(
        "input_bucket_public",
        _WARNING,
        "whoever knows or guesses a link can see what users uploaded",
        "make the bucket private; the gateway reads it with its key",
    )
    RESULTS_UNREADABLE = Entry(
        "results_unreadable",
        _ERROR,
        "finished rows hold public links into a bucket that is private now",
        "make the bucket public again, or rewrite the links",
    )
    PROJECT_LIMIT_SMALL = Entry(
        "project_limit_small",
        _ERROR,
        "the project takes no files as large as the gateway's results; they would be paid for and not stored",
        "raise the global file size limit in the project's Storage settings, or lower BFF_MAX_MODEL_BYTES",
    )
    BUCKET_LIMIT_SMALL = Entry(
        "bucket_limit_small",
        _ERROR,
        "the bucket refuses files that the gateway would pay for or accept",
        "raise the bucket's size limit, or lower BFF_MAX_MODEL_BYTES, BFF_MAX_IMAGE_BYTES or BFF_MAX_INPUT_BYTES",
    )
    BUCKET_TYPES = Entry(
        "bucket_types",
        _ERROR,
        "the bucket refuses content types that the gateway stores",
        "allow the types named in the bucket's settings",
    )

    # identity
    JWKS_UNREACHABLE = Entry(
        "jwks_unreachable",
        _ERROR,
        "the project's signing keys can not be fetched; users are refused",
        "look at SUPABASE_URL and the project's state",
    )
    JWT_SECRET_MISSING = Entry(
        "jwt_secret_missing",
        _ERROR,
        "the project signs with a shared secret that the gateway does not have; users are refused",
        "set SUPABASE_JWT_SECRET, or rotate the project to signing keys",
    )
    JWT_SECRET_WRONG = Entry(
        "jwt_secret_wrong",
        _ERROR,
        "SUPABASE_JWT_SECRET is not the project's",
        "copy it again from the project, or unset it when the project has signing keys",
    )

    # providers
    PROVIDER_UNREACHABLE = Entry(
        "provider_unreachable",
        _ERROR,
        "a provider does not answer properly; its jobs wait",
        "look at its status page, at the network, and at the address that is set for it",
    )
    PROVIDER_KEY_REFUSED = Entry(
        "provider_key_refused",
        _ERROR,
        "a provider refuses the key; its jobs wait",
        "set the provider's key; some keys work at the address of one region only",
    )
    PROVIDER_FORBIDS = Entry(
        "provider_forbids",
        _ERROR,
        "the key is good, and its account may not do this here",
        "verify the organisation, and look whether the provider serves the country of this machine",
    )
    MODEL_UNAVAILABLE = Entry(
        "model_unavailable",
        _ERROR,
        "the provider does not offer the configured model to this account",
        "set the provider's model to one that it has",
    )
    BALANCE_EMPTY = Entry("balance_empty", _ERROR, "a provider's account is out of credits", "top it up")
    BALANCE_LOW = Entry("balance_low", _WARNING, "a provider's credits are soon used up", "top it up")

    # api
    API_UNREACHABLE = Entry(
        "api_unreachable",
        _WARNING,
        "nothing like this gateway answers at its public address, of which links are made",
        "start `makeit3d api`, or mend PUBLIC_BASE_URL or the proxy in front",
    )

    # workers
    LANE_UNSERVED = Entry(
        "lane_unserved", _ERROR, "no live worker takes work of a lane", "start `makeit3d worker --lane LANE`"
    )
    JOB_TYPE_UNSERVED = Entry(
        "job_type_unserved",
        _ERROR,
        "jobs wait for a worker that handles their type, and none of the live ones does",
        "update the workers to the version that accepted these jobs",
    )
    WORKER_VERSIONS = Entry(
        "worker_versions",
        _WARNING,
        "workers run another version of the code than this one",
        "restart them with this version, or update this machine",
    )
    SLOTS_DIFFER = Entry(
        "slots_differ",
        _WARNING,
        "another process was started with other BFF_*_SLOTS than these; the last one to start wins",
        "give all processes the same settings and restart them",
    )
    BREAKER_OPEN = Entry(
        "breaker_open",
        _ERROR,
        "a provider takes no work; its jobs wait",
        "mend the reason shown, then `makeit3d breaker close PROVIDER`",
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: one of ours, or an entry of a registered check. ``seen`` says what was there, without
    secrets."""

    code: Code | Entry
    seen: str

    @property
    def entry(self) -> Entry:
        return self.code.value if isinstance(self.code, Code) else self.code


class Ill(Exception):
    """What a group looks at can not even be opened, and this is why. Without a finding another group says it."""

    def __init__(self, finding: Finding | None = None) -> None:
        super().__init__("" if finding is None else f"{finding.entry.code}: {finding.seen}")
        self.finding = finding
