-- name: renumber_outputs
-- Fresh numbers for the unfinished outputs of a job, while its lease lives.
with unfinished as (
-- each table union all
  select id, {kind} as kind, number from {table} where job_id = :job_id and status in ('pending', 'processing')
-- end
), mine as (
  select id, kind, row_number() over w - 1 as position, count(*) over (partition by kind) as wanted from unfinished
  window w as (partition by kind order by number)
), reserved as (
  update makeit3d.tasks t set reserved = makeit3d.add_counts(t.reserved, (
    select coalesce(jsonb_object_agg(kind, wanted), '{}') from (select distinct kind, wanted from mine) as each))
  from makeit3d.jobs j
  where j.id = :job_id and j.worker_id = :worker_id and j.attempt = :attempt and j.status = 'running'
    and t.id = j.task_id
  returning t.reserved
),
-- each table ,
renumbered_{n} as (
  update {table} a set number = (reserved.reserved ->> mine.kind)::integer - mine.wanted + mine.position
  from mine, reserved where a.id = mine.id returning a.id
)
-- end
select count(*) from (
-- each table union all
  select id from renumbered_{n}
-- end
) as renumbered
