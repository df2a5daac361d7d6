-- name: begin_round
-- Whether this process may do the round: one at a time in the whole installation; the key is "swee" in ASCII.
select pg_try_advisory_xact_lock(1937204581)
