"""The registry: whole versions or none, nothing trusted on the way in."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file

from eddy.models import registry
from eddy.models.config import CELLS, ModelConfig, TrainConfig
from eddy.models.errors import EddyError
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.trained import Trained
from eddy.models.vocabulary import Vocabulary
from tests.support.versions import edit_description
from tests.support.waiting import eventually

pytestmark = pytest.mark.unit


def trained(cell: str = "gru") -> Trained:
    torch.manual_seed(1)
    config = ModelConfig(cell=cell, hidden=8, dim=4, item_buckets=2)
    vocabulary = Vocabulary([f"i{n}" for n in range(12)], ["view", "buy"], config.item_buckets)
    return Trained(Recommender(config, 12, 2).eval(), vocabulary, EventRules(negative="buy<1"), {"loss": 1.5})


@pytest.mark.parametrize("cell", CELLS)
def test_a_published_version_loads_as_it_was(tmp_path: Path, cell: str) -> None:
    given = trained(cell)
    version = registry.publish(tmp_path, given, {"events": "a.parquet"})
    assert version.vocabulary.items == given.vocabulary.items
    assert version.vocabulary.types == ["view", "buy"]
    assert version.recommender.config == given.recommender.config
    assert (version.metrics, version.lineage) == ({"loss": 1.5}, {"events": "a.parquet"})
    for name, tensor in given.recommender.state_dict().items():
        assert torch.equal(version.recommender.state_dict()[name], tensor)
    assert version.rules == given.rules
    assert not version.recommender.training


def test_what_a_version_says_of_itself_can_be_read_by_any_reader_of_json(tmp_path: Path) -> None:
    lineage = {"training": TrainConfig().to_dict(), "odd": float("nan")}
    version = registry.publish(tmp_path, trained(), lineage)
    description = (version.path / "version.json").read_text(encoding="utf-8")
    stored = json.loads(description, parse_constant=pytest.fail)["lineage"]
    assert (stored["training"]["seconds"], stored["odd"]) == (None, None)


def test_versions_are_numbered_in_order_and_the_last_is_the_latest(tmp_path: Path) -> None:
    ids = [registry.publish(tmp_path, trained(), {}).id for _ in range(3)]
    assert [name[:8] for name in ids] == ["v000001-", "v000002-", "v000003-"]
    assert registry.versions(tmp_path) == ids
    assert registry.latest(tmp_path).id == ids[-1]


@pytest.mark.parametrize("left", [".writing", ".writing-00ff", ".v000001"])
def test_what_a_killed_publisher_left_neither_counts_nor_blocks_nor_stays(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir()
    (tmp_path / left / "model.safetensors").touch()
    assert registry.versions(tmp_path) == []
    assert registry.publish(tmp_path, trained(), {}).id.startswith("v000001-")
    assert not (tmp_path / left).exists()


def test_a_publisher_waits_for_another_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(1) as threads:
        with FileLock(tmp_path / ".lock", thread_local=False):
            published = threads.submit(registry.publish, tmp_path, trained(), {})
            eventually(lambda: "waiting for another training" in caplog.text)
            assert str(tmp_path / ".lock") in caplog.text
            assert registry.versions(tmp_path) == []
        version = published.result(60)
        assert registry.versions(tmp_path) == [version.id]


def test_the_lock_of_a_killed_publisher_is_free(tmp_path: Path) -> None:
    lines = (
        "import filelock, sys",
        "with filelock.FileLock(sys.argv[1]):",
        "    print(flush=True)",
        "    input()",
    )
    command = [sys.executable, "-c", "\n".join(lines), str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".lock").acquire(timeout=0)
        holder.kill()
    assert registry.publish(tmp_path, trained(), {}).id.startswith("v000001-")


def test_publishers_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(lambda _: registry.publish(tmp_path, trained(), {}).id, range(8)))
    assert registry.versions(tmp_path) == sorted(ids)
    assert [name[:7] for name in sorted(ids)] == [f"v{n:06d}" for n in range(1, 9)]


def test_an_empty_or_missing_registry_says_how_to_fill_it(tmp_path: Path) -> None:
    assert registry.versions(tmp_path / "none") == []
    with pytest.raises(EddyError, match="eddy train"):
        registry.latest(tmp_path / "none")


def test_an_id_that_no_version_has_says_how_to_find_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        EddyError, match=r"v000007-00000000: no version is there .* eddy models list"
    ) as refused:
        registry.load(tmp_path / "v000007-00000000")
    assert "Errno" not in str(refused.value)


def test_weights_that_are_not_numbers_are_not_published(tmp_path: Path) -> None:
    broken = trained()
    with torch.no_grad():
        broken.recommender.item_bias[3] = torch.nan
    with pytest.raises(EddyError, match="item_bias"):
        registry.publish(tmp_path, broken, {})
    assert registry.versions(tmp_path) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A version that names no digests, as anybody could write who also wrote the right ones."""
    path = registry.publish(tmp_path, trained(), {}).path
    edit_description(path, files={})
    return path


def test_a_flipped_bit_of_any_file_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path = registry.publish(tmp_path, trained(), {}).path
    for file in path.iterdir():
        if file.name == "version.json":
            continue
        data = file.read_bytes()
        for place in np.linspace(0, len(data) - 1, 7).astype(int).tolist():
            file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(EddyError, match=rf"{file.name}: not what was published"):
                registry.load(path)
        file.write_bytes(data)
    registry.load(path)


def test_a_digest_of_a_file_elsewhere_is_refused(path: Path) -> None:
    edit_description(path, files={"../../secret": "0" * 64})
    with pytest.raises(EddyError, match="not a file of the version"):
        registry.load(path)


@pytest.mark.parametrize("file", ["version.json", "vocabulary.parquet", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_file_is_named(path: Path, file: str, damage: str) -> None:
    damaged = path / file
    data = damaged.read_bytes()
    if damage == "missing":
        damaged.unlink()
    else:
        damaged.write_bytes(
            {"empty": b"", "cut": data[: len(data) // 2], "noise": b"\x80\x05noise" * 9}[damage]
        )
    with pytest.raises(EddyError, match=file):
        registry.load(path)


def test_another_format_is_refused(path: Path) -> None:
    edit_description(path, format=99)
    with pytest.raises(EddyError, match="format 99"):
        registry.load(path)


def test_an_unknown_setting_is_refused(path: Path) -> None:
    edit_description(path, config={"cell": "gru", "exec": "rm"})
    with pytest.raises(EddyError, match="exec"):
        registry.load(path)


def test_a_config_that_implies_huge_tensors_allocates_nothing(path: Path) -> None:
    edit_description(path, config={**ModelConfig(hidden=1_000_000, dim=4, item_buckets=2).to_dict()})
    with pytest.raises(EddyError, match="shape"):
        registry.load(path)


def test_weights_of_another_name_shape_type_or_without_numbers_are_refused(path: Path) -> None:
    file = path / "model.safetensors"
    good = load_file(file)
    bad = {
        "do not match": {**good, "extra": torch.zeros(1)},
        "shape": {**good, "item_bias": torch.zeros(3)},
        "type": {**good, "item_bias": good["item_bias"].double()},
        "not numbers": {**good, "item_bias": good["item_bias"] + torch.nan},
    }
    for message, weights in bad.items():
        save_file(weights, file)
        with pytest.raises(EddyError, match=message):
            registry.load(path)


def test_a_vocabulary_of_another_size_or_with_repeats_is_refused(path: Path) -> None:
    for ids in (["i0"] * 12, [f"i{n}" for n in range(11)]):
        pq.write_table(pa.table({"item_id": ids}), path / "vocabulary.parquet")
        with pytest.raises(EddyError, match=r"vocabulary"):
            registry.load(path)
