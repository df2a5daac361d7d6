-- A paid result that storage refused for good waits on a disk: an operator's retry stores it without paying again.
set lock_timeout = '5s';

alter table public.jobs
  -- in the spool of this host, under the call that paid for it, until then; a queued job that has one runs there
  add column kept_call uuid,
  add column kept_host text,
  add column kept_until timestamptz,
  -- which pictures of the reply are still to be stored, in the order of the rows that want them
  add column kept_pictures smallint[],
  add constraint jobs_kept check (num_nonnulls(kept_call, kept_host, kept_until) in (0, 3));
create index jobs_kept on public.jobs (kept_call) where kept_call is not null;
