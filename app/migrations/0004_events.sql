-- The log that feeds event streams.

create table makeit3d.events (
  id bigint generated always as identity primary key,
  -- a reader goes by (xid, id) below its snapshot's xmin, so a late commit is never skipped
  xid xid8 not null default pg_current_xact_id(),
  type text not null check (type in ('task_update', 'job_update', 'item_update', 'asset_update')),
  user_id uuid,
  task_id text collate "C",
  payload jsonb not null,
  created_at timestamptz not null default now()
);
create index events_user on makeit3d.events (user_id, xid, id);
create index events_task_order on makeit3d.events (task_id, xid, id);

-- A transaction gets its xid with its first lock and may then wait for its second one, while a younger transaction
-- changes the same task and commits: by the xids alone the younger one's events would be read first. So an event never
-- stands before those of its task that are there already. Raising an xid hides nothing: what is not committed is above
-- every reader's horizon by its own xid, and more so by a higher one. A plan that was made while the table was small
-- would read all of it for every event.
create function makeit3d.keep_event_order() returns trigger language plpgsql
set search_path = '' set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
begin
  new.xid := greatest(new.xid, (
    select e.xid from makeit3d.events e where e.task_id = new.task_id order by e.xid desc limit 1));
  return new;
end $$;

create trigger events_in_order before insert on makeit3d.events
  for each row when (new.task_id is not null) execute function makeit3d.keep_event_order();
