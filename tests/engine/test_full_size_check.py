"""`check` on a folder of the 6 B checkpoint's layout and sizes, as docs/full_size.py writes it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from acrf_engine.__main__ import main

SCRIPT = Path(__file__).parents[2] / "docs" / "full_size.py"


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("full") / "model"
    return folder, runpy.run_path(str(SCRIPT))["full_size"](folder)


def test_the_folder_has_the_parts_and_sizes_of_the_real_one_and_no_bytes(
    counts: tuple[Path, dict[str, int]],
) -> None:
    folder, parameters = counts
    assert {name: round(count / 1e6, 1) for name, count in parameters.items()} == {
        "transformer": 6154.9, "vae": 83.8, "text_encoder": 4022.5,
    }  # fmt: skip
    files = list(folder.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) > 2 * sum(parameters.values())
    assert sum(file.stat().st_blocks for file in files) * 512 < 10 << 20


def test_the_check_reads_its_headers_and_names_its_size(
    counts: tuple[Path, dict[str, int]], photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "six.yaml"
    config.write_text(f"model: {counts[0]}\ndataset: {photo_folder}\nbatch_size: 2\nmemory: {{dtype: bf16}}\n")
    assert main(["check", str(config), "--runs", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["resolution"] == 1024
    assert report["base_parameters"] == counts[1]["transformer"]
    assert report["trainable_parameters"] == 30 * 4 * 16 * 2 * 3840  # blocks, q k v out, rank, in and out
    assert any("do not fill the training size" in note for note in report["notes"])
