"""Atomic files: the old content or the new one, whatever happens in between."""

from pathlib import Path

import pytest

from eddy.models import atomic_files
from eddy.models.atomic_files import atomic_write

pytestmark = pytest.mark.unit


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.pt"
    for content in ("first", "second"):
        with atomic_write(path) as draft:
            draft.write_text(content)
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "v1"
    with atomic_write(path, tmp_path / ".writing") as draft:
        (draft / "inner").mkdir(parents=True)
        (draft / "inner" / "weights").write_text("w")
        assert not path.exists()
    assert (path / "inner" / "weights").read_text() == "w"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("folder", [False, True])
def test_after_an_exception_the_old_content_is_there_and_no_draft(
    tmp_path: Path, error: type[BaseException], folder: bool
) -> None:
    path = tmp_path / "run.pt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as draft:
            if folder:
                draft.mkdir()
            (draft / "part" if folder else draft).write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("run.pt", "old")]


def test_everything_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "v1", []
    monkeypatch.setattr(atomic_files, "sync", lambda entry: synced.append((entry.name, path.exists())))
    with atomic_write(path) as draft:
        (draft / "inner").mkdir(parents=True)
        (draft / "inner" / "weights").touch()
    assert sorted(synced[:3]) == [("inner", False), ("v1.writing", False), ("weights", False)]
    assert synced[3:] == [(tmp_path.name, True)]
