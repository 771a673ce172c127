"""The floor of the serving benchmark: FastAPI on the same server and loop, returning a constant of the size
of a list.

    python -m tests.bench.serving_floor PORT
"""

from __future__ import annotations

import sys

import msgspec
import uvicorn
from fastapi import FastAPI, Response

_ITEMS = [{"item_id": f"item-{i}", "score": round(-i / 3, 4), "title": None} for i in range(20)]
_BODY = msgspec.json.encode(
    {
        "user_id": "user-1", "known": True, "items": _ITEMS, "stream_time": 1_795_915_688_579, "epoch": 1,
        "version": "v000001-d9cf3680", "partition": 3, "offset": 1,
    }
)  # fmt: skip

app = FastAPI()


@app.get("/readyz")
async def readyz() -> Response:
    """It is."""
    return Response()


@app.get("/v1/users/{user_id:path}/recommendations")
async def constant(user_id: str, k: int) -> Response:
    """Always the same list."""
    return Response(_BODY, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, loop="uvloop",
        http="httptools", lifespan="off",
    )  # fmt: skip
