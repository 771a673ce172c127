"""Peer: the same job as a Quix Streams application with a stateful `apply`.

    python quix_stateful.py BOOTSTRAP EVENTS_TOPIC RESULTS_TOPIC FOLDER

For each event: decode its JSON, step the user's GRU state (H = 128; Quix's RocksDB store with a changelog,
values as bytes), score 10,000 items and send the ten best as JSON. Quix's defaults otherwise: at least once,
commits every 5 s. Frozen: it may only be made faster.
"""

import sys
from typing import Any

import numpy as np
import torch
from quixstreams import Application, State

HIDDEN, ITEMS, K = 128, 10_000, 10

bootstrap, events_topic, results_topic, folder = sys.argv[1:5]
torch.set_num_threads(1)  # a step and a product for one user are too small to be shared
torch.manual_seed(0)
cell = torch.nn.GRUCell(HIDDEN, HIDDEN)
items = torch.randn(ITEMS, HIDDEN) * 0.3
names = [f"item-{i}" for i in range(ITEMS)]
index_of = {name: i for i, name in enumerate(names)}
nobody = np.zeros(HIDDEN, np.float32).tobytes()


@torch.inference_mode()
def recommend(event: dict[str, str], state: "State[Any, Any]") -> dict[str, object]:
    before = torch.frombuffer(bytearray(state.get_bytes("hidden", nobody)), dtype=torch.float32)
    after = cell(items[index_of[event["item_id"]]][None], before[None])
    state.set_bytes("hidden", after.numpy().tobytes())
    score, index = torch.topk(torch.mv(items, after[0]), K)
    best = [
        {"item_id": names[i], "score": round(s, 4)}
        for i, s in zip(index.tolist(), score.tolist(), strict=True)
    ]
    return {"user_id": event["user_id"], "items": best, "timestamp": event["timestamp"]}


def main() -> None:
    app = Application(
        bootstrap, consumer_group=f"bench-{results_topic}", auto_offset_reset="earliest", state_dir=folder,
        loglevel="WARNING",
    )  # fmt: skip
    events = app.topic(events_topic, key_deserializer="str", value_deserializer="json")
    results = app.topic(results_topic, key_serializer="str", value_serializer="json")
    app.dataframe(events).apply(recommend, stateful=True).to_topic(results)
    app.run()


if __name__ == "__main__":
    main()
