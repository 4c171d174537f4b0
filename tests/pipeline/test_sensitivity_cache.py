from __future__ import annotations

import os
import time
from pathlib import Path

from edgeprune.pipeline.sensitivity_cache import SensitivityCache

DAY = 86_400.0
OLD, NEW, ANOTHER, FOLDER = ("0a" * 32, "1b" * 32, "2c" * 32, "3d" * 32)  # digests


def test_what_is_old_goes_when_another_file_begins(tmp_path: Path) -> None:
    for digest, age in ((NEW, 89), (OLD, 91)):
        SensitivityCache(digest, tmp_path).put("a", 0.5)
        os.utime(tmp_path / f"{digest}.json", (time.time() - age * DAY,) * 2)
    (tmp_path / "notes.json").touch()
    (tmp_path / f"{FOLDER}.json").mkdir()
    for other in ("notes.json", f"{FOLDER}.json"):  # not its own
        os.utime(tmp_path / other, (0, 0))
    SensitivityCache(NEW, tmp_path).put("b", 0.25)
    assert (tmp_path / f"{OLD}.json").exists()
    SensitivityCache(ANOTHER, tmp_path).put("a", 1.0)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"{NEW}.json", f"{ANOTHER}.json", f"{FOLDER}.json", "notes.json"]
    kept = SensitivityCache(NEW, tmp_path)
    assert (kept.get("a"), kept.get("b"), kept.warnings) == (0.5, 0.25, ())
