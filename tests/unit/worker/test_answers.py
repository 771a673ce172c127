"""Recommendation lists as messages: the bytes are those that the schema's own encoder would accept and
give.
"""

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eddy.models.hashing import item_hashes
from eddy.models.scoring.backend import TopK
from eddy.stream.engine.batch_report import Lists
from eddy.stream.records.schema import Recommendation, Recommended
from eddy.stream.worker.answers import SCORE_DECIMALS, encode_lists
from tests.support.engines import TOPIC_ID, new_engine, random_version

pytestmark = pytest.mark.unit

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return random_version(tmp_path_factory.mktemp("registry"))


@settings(max_examples=50)
@given(
    users=st.lists(NAMES, min_size=1, max_size=5, unique=True),
    items=st.lists(NAMES, min_size=1, max_size=6, unique=True),
    scores=st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=6),
    lengths=st.lists(st.integers(0, 6), min_size=5, max_size=5),
)
def test_messages_say_what_the_lists_say(  # type: ignore[no-untyped-def]
    version, users: list[str], items: list[str], scores: list[float], lengths: list[int]
) -> None:
    engine = new_engine(version)
    engine.names.name_items(items)
    known = engine.names.catalogue.find(item_hashes(items))
    n = len(users)
    item = np.full((n, 6), -1, np.int64)
    for user in range(n):
        length = min(lengths[user], len(items))
        item[user, :length] = known[:length]
    score = np.where(item >= 0, np.array(scores, np.float32), np.float32(-np.inf))
    none = np.zeros(0, np.int64)
    topk = TopK(*map(torch.from_numpy, (item, score, none, none)))
    at_home = np.arange(n, dtype=np.int32) % 3
    where = at_home, np.arange(n) + 7, np.arange(n) + 1000
    version_id = engine.newest.live.version.id
    lists = Lists(users, *where, lambda: topk, engine.names.json_ids(), 1, version_id)
    found: dict[bytes, Recommendation] = {}
    for partition, messages in encode_lists(lists, TOPIC_ID).items():
        for key, value in messages:
            assert key is not None
            assert value is not None
            found[key] = msgspec.json.decode(value, type=Recommendation)
            assert found[key].partition == partition
    for user, name in enumerate(users):
        length = min(lengths[user], len(items))
        ranked = [Recommended(items[i], round(float(score[user, i]), SCORE_DECIMALS)) for i in range(length)]
        expected = Recommendation(
            name, ranked, TOPIC_ID.hex(), user % 3, user + 7, user + 1000, 1, version_id
        )
        assert found[name.encode()] == expected
