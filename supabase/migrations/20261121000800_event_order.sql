-- Readers go through the log by (xid, id). A transaction gets its xid with its first lock and may then wait for its
-- second one, while a younger transaction changes the same task and commits: by the xids alone the younger one's
-- events would be read first. So an event never stands before those of its task that are there already. Raising an
-- xid hides nothing: what is not committed is above every reader's horizon by its own xid, and more so by a higher one.
set lock_timeout = '5s';

create index events_task_order on public.events (task_id, xid, id);
drop index public.events_task;

create function public.keep_event_order() returns trigger language plpgsql set search_path = '' as $$
begin
  new.xid := greatest(new.xid, (
    select e.xid from public.events e where e.task_id = new.task_id order by e.xid desc limit 1));
  return new;
end $$;
revoke all on function public.keep_event_order() from public, anon, authenticated;

create trigger events_in_order before insert on public.events
  for each row when (new.task_id is not null) execute function public.keep_event_order();
