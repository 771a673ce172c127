"""The registry: a folder of immutable versions, each a folder of its own.

    v000007-1a2b3c4d/
        version.json         format, config, types, rules, metrics, lineage, time of creation
        vocabulary.parquet   ids of items, in the order of the item vectors
        features.parquet     hashes of features, in the order of their vectors
        items.parquet        hashes of items, and of those of their features that have a vector
        model.safetensors    weights

features.parquet and items.parquet are there only where a version was trained with metadata.

A version is there whole or not at all (eddy.models.atomic_files). A publisher holds the lock file `.lock`,
which becomes free when its process ends, however it ends. So the folder of an unfinished version that the
next publisher finds was left by a killed process, and is removed. Nothing that is loaded is trusted: no
pickle, no unknown setting, no tensor of another name, shape or type than the config implies.
"""

import json
import re
import secrets
import shutil
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from eddy.models.atomic_files import atomic_write
from eddy.models.config import ModelConfig
from eddy.models.errors import EddyError
from eddy.models.locks import locked
from eddy.models.logs.item_features import MAX_FEATURES, MAX_ITEMS, ItemFeatures
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.trained import Trained
from eddy.models.vocabulary import Vocabulary

FORMAT = 2
_FEATURES = pa.schema([("feature", pa.uint64())])
_ITEMS = pa.schema([("item", pa.uint64()), ("features", pa.list_(pa.uint64()))])
LOCK, _DRAFT = ".lock", ".writing"
_LEFTOVER = re.compile(r"^\.(writing(-[0-9a-f]+)?|v\d{6,})$")
"""Names of unfinished versions, and of folders by which earlier releases claimed the next number."""

_NAME = re.compile(r"^v(\d{6,})-[0-9a-f]{8}$")


@dataclass(frozen=True)
class Version:
    """A loaded version; the recommender is in evaluation mode, on the CPU."""

    id: str
    path: Path
    recommender: Recommender
    vocabulary: Vocabulary
    rules: EventRules
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    created: str
    features: ItemFeatures = field(default_factory=ItemFeatures)
    """of all items that the metadata named when it was trained, also of those without any event"""


def publish(registry: Path, trained: Trained, lineage: dict[str, Any]) -> Version:
    """Write a version with the next number into the folder `registry` (made if missing).

    lineage: what the version was made from, as JSON (events, settings, parent version).
    Errors: EddyError when a weight is not a number, or the folder cannot be written.
    """
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in trained.recommender.state_dict().items()
    }
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise EddyError(
                f"not published: {name} has values that are not numbers; train with a lower learning rate"
            )
    description = {
        "format": FORMAT,
        "config": trained.recommender.config.to_dict(),
        "items": len(trained.vocabulary),
        "types": trained.vocabulary.types,
        "rules": trained.rules.to_dict(),
        "metrics": trained.metrics,
        "lineage": lineage,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        registry.mkdir(parents=True, exist_ok=True)
        with locked(registry / LOCK, "another training to publish"):
            _remove_leftovers(registry)
            path = _write(registry, trained, weights, description)
    except (OSError, SafetensorError) as error:
        raise EddyError(
            f"registry {registry}: cannot write a version ({error}); check space and permissions"
        ) from None
    return load(path)


def _write(registry: Path, trained: Trained, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> Path:
    """Write a version and give it the next number; only for the holder of the lock."""
    number = max((int(match[1]) for match in map(_NAME.match, _names(registry)) if match), default=0) + 1
    path = registry / f"v{number:06d}-{secrets.token_hex(4)}"
    with atomic_write(path, registry / _DRAFT) as draft:
        draft.mkdir()
        save_file(weights, draft / "model.safetensors")
        ids = pa.table({"item_id": pa.array(trained.vocabulary.items, pa.string())})
        pq.write_table(ids, draft / "vocabulary.parquet")
        if trained.vocabulary.features:
            _write_features(draft, trained.vocabulary, trained.features)
        (draft / "version.json").write_text(json.dumps(about, indent=1, default=plain), encoding="utf-8")
    return path


def _remove_leftovers(registry: Path) -> None:
    """Remove what killed publishers left; only for the holder of the lock."""
    for name in _names(registry):
        if _LEFTOVER.match(name):
            shutil.rmtree(registry / name, ignore_errors=True)


def _names(registry: Path) -> list[str]:
    return [entry.name for entry in registry.iterdir()]


def versions(registry: Path) -> list[str]:
    """Ids of all versions, oldest first; empty when there is no such folder."""
    if not registry.is_dir():
        return []
    numbered = [(int(match[1]), name) for name in _names(registry) if (match := _NAME.match(name))]
    return [name for _, name in sorted(numbered)]


def latest(registry: Path) -> Version:
    """The version with the highest number. Errors: EddyError when there is none."""
    ids = versions(registry)
    if not ids:
        raise EddyError(
            f"registry {registry}: no version in it; make one with: eddy train --registry {registry}"
        )
    return load(registry / ids[-1])


def load(path: Path) -> Version:
    """Read and check one version's folder. Errors: EddyError saying which file is wrong and why."""
    if not _NAME.match(path.name):
        raise EddyError(f"{path}: not a version's folder (a name like v000001-1a2b3c4d)")
    try:
        description = json.loads((path / "version.json").read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise EddyError(
                f"{path}: format {description['format']}, but this program reads format {FORMAT}; "
                "train it anew"
            )
        config = ModelConfig.from_dict(description["config"])
        rules = EventRules(**description["rules"])
        items, types = int(description["items"]), [str(name) for name in description["types"]]
        metrics, lineage, created = (
            dict(description["metrics"]),
            dict(description["lineage"]),
            description["created"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EddyError(f"{path}/version.json: unreadable ({type(error).__name__}: {error})") from None
    try:
        ids = pq.read_table(path / "vocabulary.parquet", columns=["item_id"])["item_id"].to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise EddyError(f"{path}/vocabulary.parquet: unreadable ({error})") from None
    if len(ids) != items or not all(isinstance(name, str) for name in ids):
        raise EddyError(f"{path}/vocabulary.parquet: {len(ids)} ids where version.json says {items}")
    feature_hashes, features = _read_features(path, config.features)
    vocabulary = Vocabulary(ids, types, config.item_buckets, feature_hashes)
    recommender = _read_weights(path / "model.safetensors", config, items, len(types))
    return Version(path.name, path, recommender, vocabulary, rules, metrics, lineage, str(created), features)


def _write_features(folder: Path, vocabulary: Vocabulary, features: ItemFeatures) -> None:
    feature_hashes = vocabulary.features
    items, features_of = [], []
    for item, hashes in features.items():
        items.append(item)
        features_of.append([feature for feature in hashes.tolist() if feature in feature_hashes])
    pq.write_table(pa.table([pa.array(feature_hashes, pa.uint64())], _FEATURES), folder / "features.parquet")
    columns = [pa.array(items, pa.uint64()), pa.array(features_of, pa.list_(pa.uint64()))]
    pq.write_table(pa.table(columns, _ITEMS), folder / "items.parquet")


def _read_features(path: Path, count: int) -> tuple[list[int], ItemFeatures]:
    """The hashes of the features that have a vector, and the features of items.

    Errors: EddyError naming the file that does not fit version.json.
    """
    features = ItemFeatures()
    if not count:
        return [], features
    feature_hashes = _read_table(path / "features.parquet", _FEATURES)["feature"].to_pylist()
    if len(feature_hashes) != count or len(set(feature_hashes)) != count:
        raise EddyError(
            f"{path}/features.parquet: {len(feature_hashes)} features where version.json says {count}"
        )
    table = _read_table(path / "items.parquet", _ITEMS)
    if table.num_rows > MAX_ITEMS:
        raise EddyError(f"{path}/items.parquet: {table.num_rows} items; at most {MAX_ITEMS} are read")
    for item, hashes in zip(table["item"].to_pylist(), table["features"].to_pylist(), strict=True):
        features.put(item, np.array(hashes[:MAX_FEATURES], np.uint64))
    return feature_hashes, features


def _read_table(file: Path, schema: pa.Schema) -> pa.Table:
    """Read a table. Errors: EddyError when it has another schema, or nulls."""
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise EddyError(f"{file}: unreadable ({error})") from None
    columns = [table[name] for name in table.column_names]
    columns += [pc.list_flatten(column) for column in columns if pa.types.is_list(column.type)]
    if not table.schema.equals(schema) or any(column.null_count for column in columns):
        raise EddyError(f"{file}: has {table.schema.names} where {schema.names} without nulls are expected")
    return table


def _read_weights(file: Path, config: ModelConfig, items: int, types: int) -> Recommender:
    try:
        with safe_open(file, framework="pt") as stored:
            names = set(stored.keys())
            _require_plausible(file, stored, names, config, items)
            recommender = Recommender(config, items, types)
            expected = recommender.state_dict()
            if names != set(expected):
                odd = sorted(names ^ set(expected))[:3]
                raise EddyError(f"{file}: weights do not match the config; look at {', '.join(odd)}")
            weights = {}
            for name, like in expected.items():
                if stored.get_slice(name).get_shape() != list(like.shape):
                    shape = stored.get_slice(name).get_shape()
                    raise EddyError(
                        f"{file}: {name} has shape {shape}, the config implies {list(like.shape)}"
                    )
                weights[name] = stored.get_tensor(name)
                if weights[name].dtype != like.dtype:
                    raise EddyError(f"{file}: {name} has type {weights[name].dtype}, expected {like.dtype}")
                if like.is_floating_point() and not bool(torch.isfinite(weights[name]).all()):
                    raise EddyError(f"{file}: {name} has values that are not numbers")
    except (OSError, SafetensorError) as error:
        raise EddyError(f"{file}: unreadable ({error})") from None
    recommender.load_state_dict(weights, assign=True)
    return recommender.eval().requires_grad_(False)


def _require_plausible(file: Path, stored: Any, names: set[str], config: ModelConfig, items: int) -> None:
    """Refuse a config that would allocate more than the file holds, before anything is allocated: compare the
    sizes that the config implies with those in the file.

    A model on the meta device would tell all shapes, too, but makes torch import its compiler: six seconds of
    CPU.
    """
    sizes = {
        "item_vectors": [items + config.item_buckets, config.dim],
        "project.weight": [config.dim, config.hidden],
    }
    if config.features:
        sizes["feature_vectors"] = [config.features, config.dim + 1]
    for name, size in sizes.items():
        shape = stored.get_slice(name).get_shape() if name in names else None
        if shape != size or config.layers > len(names):
            raise EddyError(
                f"{file}: {name} has shape {shape}, the config implies {size} in {config.layers} layers"
            )


def plain(value: Any) -> Any:
    """What JSON holds for a number of numpy's, a path or a dataclass."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return asdict(value)
