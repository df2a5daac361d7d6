"""A stand-in for Supabase: the Storage and Auth endpoints that supabase-py and supabase-js use."""
