"""One violation of each invariant of rows and events, as SQL against the database that test_audit.py lives in.

Words in capitals stand for rows of it. Constraints look away while a plant is made, as for a hand at the console.
"""

from __future__ import annotations

ROWS = {
    # what goes with a first step that runs
    "BEGUN": """update makeit3d.requests set status = 'running' where task_id = 'audit-waiting';
      update makeit3d.tasks set status = 'running' where id = 'audit-waiting';
      update concept_images set status = 'processing' where job_id = FIRST_STEP;
      EVENT || '{"status": "running"}' from makeit3d.events where task_id = 'audit-waiting' and type = 'task_update';
      EVENT || '{"status": "running"}' from makeit3d.events where type = 'job_update'
        and payload->>'job_id' = FIRST_STEP::text;
      EVENT || '{"status": "processing"}' from makeit3d.events where type = 'asset_update'
        and payload->>'asset_id' = (select id::text from concept_images where job_id = FIRST_STEP)""",
    "IMAGE_JOB": "(select id from makeit3d.jobs where type = 'generate_images' and status = 'completed')",
    "MODEL_JOB": "(select id from makeit3d.jobs where task_id = 'audit-done' and type = 'generate_model')",
    "REFUSED_JOB": "(select id from makeit3d.jobs where task_id = 'audit-refused')",
    "CANCELED_JOB": "(select id from makeit3d.jobs where task_id = 'audit-canceled')",
    "FIRST_STEP": "(select id from makeit3d.jobs where task_id = 'audit-waiting' and step = 1)",
    "SECOND_STEP": "(select id from makeit3d.jobs where task_id = 'audit-waiting' and step = 2)",
    "FIRST_REQUEST": "(select id from makeit3d.requests where task_id = 'audit-done' order by number limit 1)",
    "FIRST_IMAGE": "(select id from concept_images where task_id = 'audit-done' and number = 0)",
    "WORKER": "'00000000-0000-0000-0000-00000000000a'::uuid",
    # an open paid call of a job, put in front of ``from jobs j where j.id = …``
    "OPEN_CALL": """insert into makeit3d.provider_calls (id, job_id, task_id, user_id, attempt, worker_id, provider,
      pool, kind,
      state, request_hash, estimate_micros, price_version, deadline)
      select gen_random_uuid(), j.id, j.task_id, j.user_id, 1, WORKER, 'openai', 'openai', 'generation', 'intent',
        'hash', 1, 'test', now() + interval '1 hour'""",
    # another accepted call like the model job's
    "PAID_CALL": """insert into makeit3d.provider_calls (id, job_id, task_id, user_id, attempt, worker_id, provider,
      pool, kind,
      state, request_hash, estimate_micros, price_version, deadline, cost_micros, settled_at, provider_task_id)
      select gen_random_uuid(), job_id, task_id, user_id, attempt, worker_id, provider, pool""",
    "EVENT": "insert into makeit3d.events (type, user_id, task_id, payload) select type, user_id, task_id, payload",
}

PLANTS = {
    "request_status": "update makeit3d.requests set status = 'canceled' where id = FIRST_REQUEST",
    "task_status": """
        update makeit3d.tasks set status = 'running' where id = 'audit-waiting';
        EVENT || '{"status": "running"}' from makeit3d.events where task_id = 'audit-waiting' and type = 'task_update'
        """,
    "asset_status": """
        update concept_images set status = 'canceled', error_code = 'x' where id = FIRST_IMAGE;
        update makeit3d.files set state = 'removed' where key = 'concepts/audit-done/0.png';
        update makeit3d.events set payload = payload || '{"status": "canceled"}' where payload->>'status' = 'complete'
          and payload->>'asset_id' = FIRST_IMAGE::text
        """,
    "job_has_output": """
        update concept_images set status = 'failed', error_code = 'x' where job_id = IMAGE_JOB;
        update makeit3d.files set job_id = null where kind = 'concept';
        update makeit3d.events set payload = payload || '{"status": "failed"}' where payload->>'status' = 'complete'
          and payload->>'table' = 'concept_images'
        """,
    "ended_says_why": "update makeit3d.jobs set error_code = null where id = REFUSED_JOB",
    "ended_says_when": "update makeit3d.jobs set finished_at = null where id = REFUSED_JOB",
    "waiting_reason": "update makeit3d.jobs set waiting_for = null where id = SECOND_STEP",
    "due_is_woken": """
        update makeit3d.jobs set waiting_for = 'retry', run_after = now() - interval '1 hour' where id = FIRST_STEP
        """,
    "planned_steps": """
        update makeit3d.requests set steps = steps || '[{"step": 9}]' where task_id = 'audit-done'
        """,
    "main_job": "update makeit3d.requests set job_id = gen_random_uuid() where id = FIRST_REQUEST",
    "idempotency": "update makeit3d.requests set matches = false where id = FIRST_REQUEST",
    "reserved_numbers": "update makeit3d.tasks set reserved = '{\"concept\": 1}' where id = 'audit-done'",
    "one_owner": "update makeit3d.files set user_id = gen_random_uuid() where job_id = MODEL_JOB and kind = 'preview'",
    "one_task": """
        update makeit3d.files set task_id = 'audit-refused' where job_id = MODEL_JOB and kind = 'preview'
        """,
    "running_is_alive": """
        update makeit3d.workers set seen_at = now() - interval '1 hour';
        update makeit3d.jobs set status = 'running', worker_id = WORKER, attempt = 1, started_at = now()
          where id = FIRST_STEP;
        BEGUN
        """,
    "end_is_written": """
        update makeit3d.jobs set status = 'running', worker_id = gen_random_uuid(), attempt = 1, started_at = now(),
          stuck = '{"columns": {"status": "completed"}}' where id = FIRST_STEP;
        BEGUN
        """,
    "claim_is_counted": "update makeit3d.jobs set started_at = null where id = REFUSED_JOB",
    "resume_is_paid": "update makeit3d.jobs set resume = true where id = FIRST_STEP",
    "slots": """
        update makeit3d.pools set slots = 1 where name = 'openai';
        OPEN_CALL from makeit3d.jobs j where j.id in (FIRST_STEP, REFUSED_JOB)
        """,
    "one_open_call": """
        drop index makeit3d.provider_calls_open;
        OPEN_CALL from makeit3d.jobs j cross join generate_series(1, 2) where j.id = REFUSED_JOB
        """,
    "paid_once": """
        PAID_CALL, kind, 'settled', 'hash', 1, 'test', now(), 0, now(), null
        from makeit3d.provider_calls where job_id = MODEL_JOB
        """,
    "provider_task_once": """
        drop index makeit3d.provider_calls_provider_task;
        PAID_CALL, 'another-kind', 'settled', 'hash', 1, 'test', now(), 0, now(), provider_task_id
        from makeit3d.provider_calls where job_id = MODEL_JOB
        """,
    "job_cost": "update makeit3d.jobs set cost_micros = cost_micros + 1 where id = MODEL_JOB",
    "booked_when_over": "update makeit3d.provider_calls set settled_at = null where job_id = MODEL_JOB",
    "completed_is_over": """
        OPEN_CALL from makeit3d.jobs j where j.id = MODEL_JOB
        """,
    "refused_is_settled": """
        update makeit3d.jobs set error_code = 'storage_refused_size' where id = REFUSED_JOB;
        OPEN_CALL from makeit3d.jobs j where j.id = REFUSED_JOB
        """,
    "calls_are_watched": """
        OPEN_CALL - interval '3 hours' from makeit3d.jobs j where j.id = REFUSED_JOB
        """,
    "user_place": "update makeit3d.jobs set waiting_for = 'user_limit' where id = FIRST_STEP",
    "dependency_open": "update makeit3d.jobs set waiting_for = 'dependency' where id = FIRST_STEP",
    "dependents_told": """
        insert into makeit3d.task_dependencies (request_id, task_id, depends_on, depends_on_request)
        select r.id, r.task_id, 'audit-done', FIRST_REQUEST from makeit3d.requests r where r.task_id = 'audit-waiting'
        """,
    "breaker_exists": "delete from makeit3d.providers where name = 'openai'",
    "breaker_state": "update makeit3d.providers set trips = 1 where name = 'openai'",
    "breaker_wait": """
        update makeit3d.providers set state = 'open', failures = 5, trips = 3, error_code = 'provider_unavailable',
          opened_at = now() - interval '3 hours', tripped_at = now() - interval '1 minute', probe_at = now()
        where name = 'openai';
        update makeit3d.jobs set created_at = now() - interval '3 hours' where id = FIRST_STEP
        """,
    "asset_has_file": "update concept_images set asset_url = asset_url || '.bak' where id = FIRST_IMAGE",
    "input_has_file": """
        insert into makeit3d.files (id, bucket, key, task_id, user_id, kind, content_type)
        select WORKER, 'b', 'inputs/x.png', id, user_id, 'input', 'image/png' from makeit3d.tasks
          where id = 'audit-done';
        insert into input_assets (task_id, user_id, input_asset_type, status, file_id)
        select id, user_id, 'uploaded_photo', 'complete', WORKER from makeit3d.tasks where id = 'audit-done'
        """,
    "file_has_asset": """
        insert into makeit3d.files (id, bucket, key, task_id, user_id, job_id, kind, content_type, state, size, sha256,
          stored_at)
        select WORKER, bucket, key || '.more', task_id, user_id, job_id, kind, content_type, state, size, sha256,
          stored_at from makeit3d.files where job_id = MODEL_JOB and kind = 'model'
        """,
    "stored_is_measured": "update makeit3d.files set sha256 = null where kind = 'preview'",
    "uploads_end": """
        insert into makeit3d.files (id, bucket, key, task_id, user_id, kind, content_type, created_at)
        select WORKER, 'b', 'inputs/x.png', id, user_id, 'input', 'image/png', now() - interval '1 day'
        from makeit3d.tasks where id = 'audit-done'
        """,
    "job_events": """
        EVENT from makeit3d.events where payload->>'job_id' = MODEL_JOB::text and payload->>'status' = 'completed'
        """,
    "asset_events": """
        delete from makeit3d.events where payload->>'status' = 'processing' and payload->>'asset_id' = FIRST_IMAGE::text
        """,
    "task_events": """
        EVENT - 'request_id' from makeit3d.events where id = (
          select max(id) from makeit3d.events where task_id = 'audit-done' and type = 'task_update')
        """,
    "event_order": """
        with running as (
          select id, xid, row_number() over (order by id) as place from makeit3d.events
          where payload->>'job_id' = MODEL_JOB::text and payload->>'status' = 'running'
        )
        update makeit3d.events e set xid = (select xid from running where place <> mine.place)
        from running as mine where e.id = mine.id and mine.place <= 2
          and (select max(place) from running) = 2
        """,
    "output_key": """
        update makeit3d.files set key = 'concepts/audit-done/7.png' where key = 'concepts/audit-done/0.png';
        update concept_images set asset_url = replace(asset_url, '/0.png', '/7.png') where id = FIRST_IMAGE
        """,
}


def plant_of(name: str) -> str:
    """The SQL of a plant."""
    sql = PLANTS[name]
    for word in ("OPEN_CALL", "PAID_CALL", *ROWS):
        sql = sql.replace(word, ROWS[word])
    return sql
