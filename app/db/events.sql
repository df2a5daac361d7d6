-- name: events_after
-- A user's events behind a cursor, below every transaction that still runs: a commit cannot appear behind the reader.
-- The order names the table: a bare xid would be the text of the answer, and "10" comes before "9".
select xid::text as xid, id, type, payload, created_at from makeit3d.events
where user_id = :user_id and (xid, id) > (:xid::text::xid8, :id)
  and xid < pg_snapshot_xmin(pg_current_snapshot())
order by events.xid, events.id limit :limit

-- name: events_of_task_after
-- Those of one of the user's tasks.
select xid::text as xid, id, type, payload, created_at from makeit3d.events
where user_id = :user_id and task_id = :task_id and (xid, id) > (:xid::text::xid8, :id)
  and xid < pg_snapshot_xmin(pg_current_snapshot())
order by events.xid, events.id limit :limit

-- name: events_now
-- The transaction from which nothing that commits later is missed.
select pg_snapshot_xmin(pg_current_snapshot())::text

-- name: event_horizon
-- How far the log can be read now, and whether the user has committed events beyond it.
select pg_snapshot_xmin(pg_current_snapshot())::text as xmin, exists (
  select from makeit3d.events where user_id = :user_id and xid >= pg_snapshot_xmin(pg_current_snapshot())) as hidden

-- name: event_news
-- Which of these users and tasks have events since a transaction, and the one to ask from next time.
select pg_snapshot_xmin(pg_current_snapshot())::text as xmin,
  array(select u from unnest(:user_ids::uuid[]) as u
    where exists (select from makeit3d.events e where e.user_id = u and e.xid >= :since::text::xid8)) as user_ids,
  array(select t from unnest(:task_ids::text[]) as t
    where exists (select from makeit3d.events e where e.task_id = t collate "C"
      and e.xid >= :since::text::xid8)) as task_ids

-- name: notify_events
-- Hints to listeners, in one transaction.
select pg_notify(:channel, p) from unnest(:payloads::text[]) as p

-- name: remove_old_events
-- Forget what is older than so many days.
delete from makeit3d.events where id in (
  select id from makeit3d.events where created_at < now() - make_interval(days => :days) order by id limit :limit)
