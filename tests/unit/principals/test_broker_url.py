from __future__ import annotations

import pytest
from app.domain.broker_url import celery_url, redis_py_url


@pytest.mark.parametrize(
    ("url", "celery", "redis_py"),
    [
        ("redis://localhost:6379/2", "redis://localhost:6379/2", "redis://localhost:6379/2"),
        ("rediss://:pw@cache.example/0", "rediss://:pw@cache.example/0", "rediss://:pw@cache.example/0"),
        ("unix:///run/v.sock", "redis+socket:///run/v.sock?virtual_host=0", "unix:///run/v.sock?db=0"),
        ("unix:///run/v.sock?db=3", "redis+socket:///run/v.sock?virtual_host=3", "unix:///run/v.sock?db=3"),
        ("redis+socket:///v.sock?virtual_host=1", "redis+socket:///v.sock?virtual_host=1", "unix:///v.sock?db=1"),
    ],
)
def test_both_spellings(url: str, celery: str, redis_py: str) -> None:
    assert celery_url(url) == celery
    assert redis_py_url(url) == redis_py
    assert celery_url(redis_py) == celery
    assert redis_py_url(celery) == redis_py
