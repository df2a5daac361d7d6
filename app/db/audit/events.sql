-- name: job_events
-- a job's events begin with queued, go only where a job may go, each once, and end with its status
select jsonb_build_object('job', j.id, 'task', j.task_id) as ids,
  format('job is %s; events: %s', j.status, coalesce(s.words, 'none')) as found
from makeit3d.jobs j left join (
  select job_id, string_agg(status, ' ' order by xid, id) as words, min(word) filter (where not good) as bad,
    (array_agg(status order by xid, id))[1] as first, (array_agg(status order by xid desc, id desc))[1] as last
  from (
    select *, status as word, case previous
        when 'queued' then status in ('running', 'failed', 'canceled')
          or (status = 'queued' and content is distinct from previous_content)
        when 'running' then status <> 'running' or content is distinct from previous_content
        else previous is null end as good
    from (
      select *, lag(status) over w as previous, lag(content) over w as previous_content
      from job_event as e window w as (partition by job_id order by xid, id)
    ) as e
  ) as e group by job_id
) as s on s.job_id = j.id
where j.created_at > now() - interval '29 days'
  and (s.job_id is null or s.bad is not null or s.first <> 'queued' or s.last <> j.status)

-- name: asset_events
-- an output row's events are pending, processing and its end, each once, in this order
select jsonb_build_object('asset', a.id, 'job', a.job_id, 'task', a.task_id) as ids,
  format('%s row is %s; events: %s', a.table_name, a.status, coalesce(array_to_string(s.words, ' '), 'none'))
    as found
from asset a join makeit3d.jobs j on j.id = a.job_id left join (
  select (payload->>'asset_id')::uuid as asset_id, array_agg(payload->>'status' order by xid, id) as words
  from makeit3d.events where type = 'asset_update' group by 1
) as s on s.asset_id = a.id
where j.created_at > now() - interval '29 days' and (s.words is null or s.words not in (
  array['pending'], array['pending', 'processing'],
  array['pending', 'processing', 'complete'], array['pending', 'processing', 'failed'],
  array['pending', 'processing', 'canceled'], array['pending', 'failed'], array['pending', 'canceled'])
  or s.words[cardinality(s.words)] <> a.status)

-- name: task_events
-- a task's last event is its status, and only a new request repeats one
select jsonb_build_object('task', t.id) as ids,
  format('task is %s; events: %s', t.status, coalesce(s.words, 'none')) as found
from makeit3d.tasks t left join (
  select task_id, string_agg(status, ' ' order by xid, id) as words, bool_or(repeated) as repeated,
    (array_agg(status order by xid desc, id desc))[1] as last
  from (
    select *, status = lag(status) over (partition by task_id order by xid, id) and not begins as repeated
    from (
      select xid, id, task_id, payload->>'status' as status, payload ? 'request_id' as begins
      from makeit3d.events where type = 'task_update'
    ) as e
  ) as e group by task_id
) as s on s.task_id = t.id
where t.created_at > now() - interval '29 days'
  and (s.task_id is null or s.repeated or s.last <> t.status)

-- name: event_order
-- readers get the events of a task's job in the order in which they happened
select jsonb_build_object('job', job_id, 'task', task_id, 'event', id) as ids,
  format('event %s (%s) is read before event %s', id, status, earlier) as found
from (
  select *, lag(id) over (partition by job_id order by id) as earlier,
    lag(xid) over (partition by job_id order by id) as earlier_xid
  from job_event as e
) as e where xid < earlier_xid
