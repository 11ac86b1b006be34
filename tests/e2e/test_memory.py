"""Memory stays flat, however much comes in at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from s3edge.testing.server import StartServer


UPLOADS = 64
SIZE_BYTES = 10 * 1024 * 1024
ALLOWED_GROWTH_BYTES = 150 * 1024 * 1024


def test_64_uploads_at_once_stay_within_150_mb(start_door: StartServer, scene: bytes) -> None:
    """While 64 files of 10 MiB arrive side by side, the server grows by at most 150 MB over idle."""
    server = start_door(S3EDGE_RATE_LIMITS="off")
    image = scene + b"\0" * (SIZE_BYTES - len(scene))
    started = psutil.Process(server.pid)
    # gunicorn's first process only watches over the one that serves.
    [process] = started.children() or [started]
    with server.client() as client:
        client.post("/api/v1/upload", files={"file": ("x.png", scene, "image/png")})
        idle: int = process.memory_info().rss
        together = threading.Barrier(UPLOADS)

        def upload(_: int) -> int:
            together.wait()
            return client.post(
                "/api/v1/upload", files={"file": ("x.png", image, "image/png")}
            ).status_code

        with ThreadPoolExecutor(UPLOADS) as pool:
            answers = pool.map(upload, range(UPLOADS))
            peak = idle
            statuses = []
            for status in answers:
                statuses.append(status)
                peak = max(peak, process.memory_info().rss)
        # The kernel's own high-water mark misses nothing between two looks.
        peak = max(peak, high_water_mark(process.pid))
    assert statuses == [200] * UPLOADS
    print(f"{(peak - idle) / 2**20:.0f} MiB more than {idle / 2**20:.0f} MiB")  # noqa: T201 - the figures
    assert peak - idle <= ALLOWED_GROWTH_BYTES


def high_water_mark(pid: int) -> int:
    """Return the most memory that a process ever held, in bytes; 0 where /proc does not say."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
