"""Settings that are enough for production."""

from __future__ import annotations

COMPLETE = {
    "SUPABASE_URL": "https://ref.supabase.co",
    "SUPABASE_SERVICE_KEY": "sb_secret_real",
    "DATABASE_URL": "postgresql://x",
    "REDIS_URL": "redis://x",
    "OPENAI_API_KEY": "sk-real",
    "TRIPO_API_KEY": "tsk_real",
}
