"""The registry: a folder of immutable versions, each a folder of its own.

    v000007-1a2b3c4d/
        version.json         format, config, types, rules, metrics, lineage, time of creation, and the
                             SHA-256 of the other files
        vocabulary.parquet   ids of items, in the order of the item vectors
        features.parquet     hashes of features, in the order of their vectors
        items.parquet        hashes of items, and of those of their features that have a vector
        model.safetensors    weights

features.parquet and items.parquet are there only where a version was trained with metadata.

A version is there whole or not at all (eddy.models.version_folders). A publisher holds the lock file `.lock`,
which becomes free when its process ends, however it ends. So the folder of an unfinished version that the
next publisher finds was left by a killed process, and is removed. A version that is removed gets the name of
such a folder first. The folder may be on object storage, where the order of writing does what renames do
here. Nothing that is loaded is trusted: no pickle, no unknown setting, no tensor of another name, shape or
type than the config implies.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
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

from eddy.models.atomic_files import try_writing
from eddy.models.config import ModelConfig
from eddy.models.descriptions import DESCRIPTION, FORMAT, describe, versions
from eddy.models.errors import EddyError, UnfitModel
from eddy.models.locks import REGISTRY_LOCK, locked
from eddy.models.logs.item_features import MAX_FEATURES, MAX_ITEMS, ItemFeatures
from eddy.models.network.recommender import Recommender
from eddy.models.plain_json import lines_of_json
from eddy.models.rules import EventRules
from eddy.models.storage import Location, Place, located, one_line
from eddy.models.trained import Trained
from eddy.models.version_folders import (
    add_version,
    delete,
    digest_of,
    hide,
    local_files,
    remove_leftovers,
    settle,
    show,
)
from eddy.models.vocabulary import Vocabulary

_FEATURES = pa.schema([("feature", pa.uint64())])
_ITEMS = pa.schema([("item", pa.uint64()), ("features", pa.list_(pa.uint64()))])


@dataclass(frozen=True)
class Version:
    """A loaded version; the recommender is in evaluation mode, on the CPU."""

    id: str
    location: Location
    """its folder in the registry"""
    path: Path
    """the folder on this machine that it was read from: the same, or a copy of one on object storage"""
    recommender: Recommender
    vocabulary: Vocabulary
    rules: EventRules
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    created: str
    features: ItemFeatures = field(default_factory=ItemFeatures)
    """of all items that the metadata named when it was trained, also of those without any event"""


def publish(registry: Place, trained: Trained, lineage: dict[str, Any]) -> Version:
    """Write a version with the next number into the folder `registry` (made if missing).

    lineage: what the version was made from, as JSON (events, settings, parent version).
    Errors: EddyError when a weight is not a number, or the folder cannot be written.
    """
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in trained.recommender.state_dict().items()
    }
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UnfitModel(
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
    folder = located(registry)
    try:
        folder.make_folder()
        folder.work_folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.work_folder / REGISTRY_LOCK, "another training to publish"):
            remove_leftovers(folder)
            version = add_version(folder, lambda draft: _write(draft, trained, weights, description))
    except (OSError, SafetensorError) as error:
        raise EddyError(
            f"registry {folder}: cannot write a version ({one_line(error)}); check {folder.advice}"
        ) from None
    return load(version)


def require_writable(registry: Place) -> None:
    """Check that a version could be written, before training that may take hours. The folder is made if
    missing; object storage is only asked what is there.

    Errors: EddyError when it cannot.
    """
    folder = located(registry)
    try:
        folder.make_folder()
        try_writing(folder.work_folder)
        versions(folder)
    except OSError as error:
        raise EddyError(
            f"registry {folder}: no version could be written ({one_line(error)}); check {folder.advice}"
        ) from None


def _write(draft: Path, trained: Trained, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write the files of a version, the description with their digests last."""
    save_file(weights, draft / "model.safetensors")
    ids = pa.table({"item_id": pa.array(trained.vocabulary.items, pa.string())})
    pq.write_table(ids, draft / "vocabulary.parquet")
    if trained.vocabulary.features:
        _write_features(draft, trained.vocabulary, trained.features)
    about["files"] = {file.name: digest_of(file) for file in sorted(draft.iterdir())}
    (draft / DESCRIPTION).write_text(lines_of_json(about), encoding="utf-8")


def remove(registry: Place, ids: Collection[str], needed: Callable[[], Collection[str]]) -> list[str]:
    """Remove versions, and what killed processes left in the folder; returns the versions that are gone.

    needed: names the versions that must stay. It is called when nobody can load the others any more, so that
    whoever begins to need one of them either is heard now, or finds it missing.
    Errors: EddyError when a folder cannot be renamed or removed; and those of `needed`, after which all are
    still there.
    """
    folder = located(registry)
    try:
        folder.work_folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.work_folder / REGISTRY_LOCK, "another process that writes to the registry"):
            # 1. Out of sight. What a killed process leaves here is removed by the next one.
            remove_leftovers(folder)
            hidden = {id_: hide(folder, id_) for id_ in versions(folder) if id_ in ids}
            settle(folder)
            # 2. Those that are needed come back; all of them, if that cannot be told.
            kept: Collection[str] = hidden
            try:
                kept = needed()
            finally:
                for id_ in hidden.keys() & set(kept):
                    show(folder, id_, hidden.pop(id_))
                settle(folder)
            # 3. Remove the others.
            for version in hidden.values():
                delete(version)
    except OSError as error:
        raise EddyError(
            f"registry {folder}: cannot remove a version ({one_line(error)}); check permissions, then run it "
            "again"
        ) from None
    return list(hidden)


def latest(registry: Place) -> Version:
    """The version with the highest number. Errors: EddyError when there is none."""
    registry = located(registry)
    ids = versions(registry)
    if not ids:
        raise EddyError(
            f"registry {registry}: no version in it; make one with: eddy train --registry {registry}"
        )
    return load(registry / ids[-1])


def load(place: Place) -> Version:
    """Read and check one version's folder. Errors: EddyError saying which file is wrong and why."""
    about = describe(place)
    path = local_files(about)
    config, items, types = about.config, about.items, about.types
    try:
        ids = pq.read_table(path / "vocabulary.parquet", columns=["item_id"])["item_id"].to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise EddyError(f"{path}/vocabulary.parquet: unreadable ({error})") from None
    if len(ids) != items or not all(isinstance(name, str) for name in ids):
        raise EddyError(f"{path}/vocabulary.parquet: {len(ids)} ids where version.json says {items}")
    feature_hashes, features = _read_features(path, config.features)
    vocabulary = Vocabulary(ids, types, config.item_buckets, feature_hashes)
    recommender = _read_weights(path / "model.safetensors", config, items, len(types))
    return Version(
        id=about.id,
        location=about.location,
        path=path,
        recommender=recommender,
        vocabulary=vocabulary,
        rules=about.rules,
        metrics=about.metrics,
        lineage=about.lineage,
        created=about.created,
        features=features,
    )


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


__all__ = ["Version", "latest", "load", "publish", "remove", "require_writable", "versions"]
