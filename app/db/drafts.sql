-- name: call_of_draft
-- The call of a user's own journal that made a provider's task.
select kind, state = 'settled' and error_code is null as is_finished from makeit3d.provider_calls
where provider = :provider and provider_task_id = :provider_task_id and user_id = :user_id
