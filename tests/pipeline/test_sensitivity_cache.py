from __future__ import annotations

import os
import time
from pathlib import Path

from edgeprune.pipeline.sensitivity_cache import SensitivityCache


def test_what_is_old_goes_when_another_file_begins(tmp_path: Path) -> None:
    day = 86_400.0
    for name, age in (("new", 89), ("old", 91)):
        SensitivityCache(name, tmp_path).put("a", 0.5)
        os.utime(tmp_path / f"{name}.json", (time.time() - age * day,) * 2)
    (tmp_path / "other.txt").touch()
    os.utime(tmp_path / "other.txt", (0, 0))  # not one of its files
    SensitivityCache("new", tmp_path).put("b", 0.25)
    assert (tmp_path / "old.json").exists()
    SensitivityCache("another", tmp_path).put("a", 1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another.json", "new.json", "other.txt"]
    kept = SensitivityCache("new", tmp_path)
    assert (kept.get("a"), kept.get("b"), kept.warnings) == (0.5, 0.25, ())
