-- In projects where everybody owns new objects by default, everybody had the sequences behind our numbers, too.
set lock_timeout = '5s';

revoke all on sequence public.requests_number_seq, public.events_id_seq from public, anon, authenticated;
