"""Peer: the same job as a Faust agent with a Table, the way Faust's own guide writes one.

    python faust_textbook.py BOOTSTRAP EVENTS_TOPIC RESULTS_TOPIC FOLDER

For each event: decode its JSON, step the user's GRU state (H = 128; a Table with a changelog, values as raw
bytes because lists of floats in JSON cost more), score 10,000 items and send the ten best as JSON. Frozen:
it may only be made faster.
"""

import json
import sys

import faust
import numpy as np
import torch

HIDDEN, ITEMS, K, PARTITIONS = 128, 10_000, 10, 4

bootstrap, events_topic, results_topic, folder = sys.argv[1:5]
torch.set_num_threads(1)  # a step and a product for one user are too small to be shared
torch.manual_seed(0)
cell = torch.nn.GRUCell(HIDDEN, HIDDEN)
items = torch.randn(ITEMS, HIDDEN) * 0.3
names = [f"item-{i}" for i in range(ITEMS)]
index_of = {name: i for i, name in enumerate(names)}
nobody = np.zeros(HIDDEN, np.float32).tobytes()


class Event(faust.Record, serializer="json"):
    user_id: str
    item_id: str
    timestamp: int
    event_type: str


app = faust.App(
    f"bench-{results_topic}",
    broker=f"kafka://{bootstrap}",
    store="memory://",
    datadir=folder,
    web_enabled=False,
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
)
events = app.topic(events_topic, key_type=str, value_type=Event)
results = app.topic(results_topic, key_serializer="raw", value_serializer="raw", partitions=PARTITIONS)
states = app.Table("states", partitions=PARTITIONS, key_type=str, value_type=bytes, default=lambda: nobody)


@app.agent(events)
async def recommend(stream: faust.StreamT[Event]) -> None:
    async for event in stream:
        with torch.inference_mode():
            before = torch.frombuffer(bytearray(states[event.user_id]), dtype=torch.float32)
            state = cell(items[index_of[event.item_id]][None], before[None])
            states[event.user_id] = state.numpy().tobytes()
            score, index = torch.topk(torch.mv(items, state[0]), K)
        best = [
            {"item_id": names[i], "score": round(s, 4)}
            for i, s in zip(index.tolist(), score.tolist(), strict=True)
        ]
        answer = {"user_id": event.user_id, "items": best, "timestamp": event.timestamp}
        await results.send(key=event.user_id.encode(), value=json.dumps(answer).encode())


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "warn", "--without-web"]
    app.main()
