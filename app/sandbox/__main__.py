"""``python -m app.sandbox``"""

from __future__ import annotations

import uvicorn

from app.sandbox.main import create_sandbox
from app.sandbox_settings import SandboxSettings


def main() -> None:
    settings = SandboxSettings()  # pyright: ignore[reportCallIssue]
    uvicorn.run(
        create_sandbox(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,  # a slow download must not hold the stop
    )


if __name__ == "__main__":
    main()
