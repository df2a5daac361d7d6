-- name: begin_round
-- Whether this process may do the round: none begins one while another begins it; the key is "swee" in ASCII.
select pg_try_advisory_xact_lock(1937204581)
