-- name: notify_oneself
-- What comes back proves that the listener hears.
select pg_notify(:channel, :payload)
