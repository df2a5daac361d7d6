-- While a job's pictures are decoded, its pool has its slot: a slot is for the provider's work.
set lock_timeout = '5s';

alter table public.jobs
  -- of a running job that has not been submitted: it has the slot, it gave it back, or it waits to have it again
  add column slot text not null default 'held' check (slot in ('held', 'lent', 'wanted'));
