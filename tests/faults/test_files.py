"""Files of a run and of a model that are broken, foreign or hostile, through the command line."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import acrf_engine
import acrf_tui
from acrf_engine.config import ASSETS
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.telemetry import TelemetryReader
from tests.faults.conftest import Row
from tests.faults.live import cli

Files = tuple[str, ...]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of 8 steps with checkpoints of 2, 4, 6 and 8; tests take copies."""
    runs = tmp_path_factory.mktemp("runs")
    done = cli(
        "demo", "--headless", "--runs", str(runs), "--name", "run", "--steps", "8",
        "--set", "checkpoint.every=2", "--set", "checkpoint.keep=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return RunFolder(runs / "run")


@pytest.fixture
def run(original: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(original.path, tmp_path / "runs" / "run"))


def checkpoint(run: RunFolder, step: int) -> Path:
    return run.checkpoints / f"step-{step:06d}"


def resume(run: RunFolder, steps: int = 9) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, events and words of `acrf-tui resume`."""
    done = cli("resume", str(run.path), "--headless", "--json", "--steps", str(steps))
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def start_step(events: list[dict[str, Any]]) -> int:
    return next(int(body["start_step"]) for body in events if body["type"] == "plan")


class Marker:
    """Unpickled, it makes a file: the trace of code that a file has run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (str(self.path),))


def foreign(marker: Path, kind: str) -> bytes:
    """A file of Python's pickle, bare or as torch.save writes it, that makes `marker` when it is read."""
    if kind == "pickle":
        return pickle.dumps({"state_dict": Marker(marker)})
    beside = marker.with_suffix(".pt")
    torch.save({"state_dict": Marker(marker)}, beside)
    return beside.read_bytes()


def test_the_foreign_files_do_run_code_where_they_are_unpickled(tmp_path: Path) -> None:
    for kind in ("pickle", "torch"):
        (tmp_path / kind).write_bytes(foreign(tmp_path / f"{kind}-ran", kind))
    pickle.loads((tmp_path / "pickle").read_bytes())
    torch.load(tmp_path / "torch", weights_only=False)
    assert (tmp_path / "pickle-ran").is_dir()
    assert (tmp_path / "torch-ran").is_dir()


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    file = path / "optimizer.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    data = bytearray((path / "lora.safetensors").read_bytes())
    data[-100] ^= 4
    (path / "lora.safetensors").write_bytes(data)


def lose_the_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def edit_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_text(json.dumps(manifest | changes), encoding="utf-8")


def name_a_file_elsewhere(path: Path, elsewhere: str) -> None:
    """The manifest vouches for a file outside, under the usual name's place or in addition to it."""
    files = json.loads((path / "manifest.json").read_bytes())["files"]
    edit_manifest(path, files={elsewhere: files["lora.safetensors"]})


def of_another_version(path: Path) -> None:
    edit_manifest(path, format=99)


def swap(path: Path, other: Path) -> None:
    beside = path.with_name("swap")
    path.rename(beside)
    other.rename(path)
    beside.rename(other)


def with_a_pickle(path: Path, marker: Path, kind: str) -> None:
    """A pickle in the place of the weights, and a manifest that vouches for it."""
    data = foreign(marker, kind)
    (path / "lora.safetensors").write_bytes(data)
    files = json.loads((path / "manifest.json").read_bytes())["files"]
    files["lora.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(path, files=files)


@pytest.mark.fault("checkpoints: truncated, bit-flipped, without manifest")
def test_the_newest_good_checkpoint_is_used(run: RunFolder, row: Row) -> None:
    """With the three newest broken, the run goes on from the fourth, to its end; warnings name those left out."""
    row.trials = 3
    truncate(checkpoint(run, 8))
    flip_a_bit(checkpoint(run, 6))
    lose_the_manifest(checkpoint(run, 4))
    code, events, words = resume(run)
    assert code == 0, words
    assert start_step(events) == 2
    assert [body["step"] for body in events if body["type"] == "step"] == list(range(3, 10))
    told = " ".join(body["message"] for body in events if body["type"] == "warning")
    assert all(f"step-{step:06d}" in told for step in (8, 6, 4))
    row.lost_steps = 6


@pytest.mark.full_only
@pytest.mark.fault("checkpoints: swapped, of another version, paths that leave the folder, pickles")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda run, place: swap(checkpoint(run, 8), checkpoint(run, 6)), id="swapped"),
        pytest.param(lambda run, place: of_another_version(checkpoint(run, 8)), id="another version"),
        pytest.param(
            lambda run, place: name_a_file_elsewhere(checkpoint(run, 8), str(place / "lora")), id="absolute path"
        ),
        pytest.param(
            lambda run, place: name_a_file_elsewhere(checkpoint(run, 8), "../step-000006/lora.safetensors"), id="../"
        ),
        pytest.param(lambda run, place: with_a_pickle(checkpoint(run, 8), place / "ran", "pickle"), id="pickle"),
        pytest.param(
            lambda run, place: with_a_pickle(checkpoint(run, 8), place / "ran", "torch"),
            id="torch.save",
        ),
    ],
)
def test_a_checkpoint_that_is_not_what_it_says_is_passed_over(
    run: RunFolder, row: Row, tmp_path: Path, damage: Callable[[RunFolder, Path], None]
) -> None:
    """The run goes on from an older one, to its end; no code in the file has run."""
    damage(run, tmp_path)
    code, events, words = resume(run)
    assert not (tmp_path / "ran").exists()
    assert code == 0, words
    assert start_step(events) in (4, 6)


@pytest.mark.full_only
@pytest.mark.fault("checkpoints: all of them broken")
def test_with_no_good_checkpoint_the_run_does_not_begin_anew(run: RunFolder, row: Row) -> None:
    """Status 1, saying that none can be used, and not a step; the history stays as it is."""
    history = len(TelemetryReader(run.telemetry).history().steps.step)
    for step, damage in ((2, truncate), (4, flip_a_bit), (6, lose_the_manifest), (8, of_another_version)):
        damage(checkpoint(run, step))
    code, events, words = resume(run)
    assert [body["step"] for body in events if body["type"] == "step"] == []
    assert len(TelemetryReader(run.telemetry).history().steps.step) == history
    assert code == 1
    assert "none of the 4 checkpoints can be used" in words


@pytest.mark.full_only
@pytest.mark.fault("foreign pickles as checkpoints")
def test_checkpoints_that_are_pickles_are_never_unpickled(run: RunFolder, row: Row, tmp_path: Path) -> None:
    """With manifests that vouch for them: the resume fails, takes no step, and no code in the files has run."""
    row.trials = 4
    for step in (2, 4, 6, 8):
        with_a_pickle(checkpoint(run, step), tmp_path / "ran", "torch" if step % 4 else "pickle")
    code, events, words = resume(run)
    assert code in (1, 2), words
    assert not [body for body in events if body["type"] == "step"]
    assert not (tmp_path / "ran").exists()


# ---- pickles ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("foreign pickles as a LoRA")
@pytest.mark.parametrize("kind", ["pickle", pytest.param("torch", marks=pytest.mark.full_only)])
def test_a_lora_that_is_a_pickle_is_never_unpickled(tmp_path: Path, row: Row, kind: str) -> None:
    """inspect, export and preview refuse it with status 2 and a sentence; no code in the file has run."""
    lora = tmp_path / "lora.safetensors"
    lora.write_bytes(foreign(tmp_path / "ran", kind))
    commands = [["inspect", str(lora)], ["export", str(lora), "--out", str(tmp_path / "out.safetensors")]]
    if kind == "torch":
        commands += [["preview", str(lora), "--model", "tiny", "--prompt", "x", "--out", str(tmp_path / "out.png")]]
    row.trials = len(commands)
    for command in commands:
        done = cli(*command)
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith("acrf-tui: ")
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "ran").exists()


@pytest.mark.full_only
@pytest.mark.fault("foreign pickles as a model or a cache entry")
def test_a_model_whose_weights_are_pickles_is_never_unpickled(tmp_path: Path, row: Row) -> None:
    """check and train refuse it with status 2 naming the folder; no code in the files has run."""
    row.trials = 2
    model = Path(shutil.copytree(ASSETS / "tiny", tmp_path / "model"))
    for weights in list(model.rglob("*.safetensors")):
        data = foreign(tmp_path / "ran", "torch")
        for name in ("diffusion_pytorch_model.bin", "pytorch_model.bin", "model.pt"):
            weights.with_name(name).write_bytes(data)
        weights.unlink()
    config = tmp_path / "c.yaml"
    config.write_text(f"model: {model}\ndataset: demo\nsteps: 2\n", encoding="utf-8")
    for command in (["check", str(config)], ["train", str(config), "--headless", "--runs", str(tmp_path / "runs")]):
        done = cli(*command)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert str(model) in done.stderr
        assert not (tmp_path / "ran").exists()


@pytest.mark.full_only
@pytest.mark.fault("foreign pickles as a model or a cache entry")
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_cache_of_pickles_is_never_unpickled(tmp_path: Path, row: Row, kind: str) -> None:
    """A run on a cache whose entries are all pickles encodes again, and ends with status 0."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = ("demo", "--headless", "--runs", str(tmp_path / "runs"), "--steps", "2")
    assert cli(*command, "--name", "first", env=environment).returncode == 0
    entries = list((tmp_path / "cache").rglob("*.safetensors"))
    row.trials = len(entries)
    assert len(entries) > 16
    for entry in entries:
        entry.write_bytes(foreign(tmp_path / "ran", kind))
    done = cli(*command, "--name", "second", env=environment)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
    first, second = (tmp_path / "runs" / name / "lora" / f"{name}.safetensors" for name in ("first", "second"))
    assert _tensors(first) == _tensors(second)


def _tensors(path: Path) -> bytes:
    """A safetensors file's numbers, without its header."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


DOCUMENTED = {("acrf_engine/run/policy.py", "shell=True")}
"""The user's own commands of `on_finish` and `on_failure`."""
SHELL_IS_A_NAME = {"argcomplete.shellcode"}
SAFE_LOADERS = {"_Loader", "SafeLoader"}


@pytest.mark.fault("foreign pickles: no code that could read one")
def test_no_module_reads_pickles_or_runs_text() -> None:
    """No call of pickle, eval, exec, unsafe YAML, os.system or a shell in the source, but for the documented hooks."""
    found = set()
    for package in (acrf_engine, acrf_tui):
        root = Path(package.__path__[0])
        for file in root.rglob("*.py"):
            name = str(file.relative_to(root.parent))
            for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                found |= {(name, what) for what in _dangers(call)}
    assert found == DOCUMENTED


def _dangers(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        return [
            m for m in modules if m.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle", "shelve", "joblib")
        ]
    if not isinstance(node, ast.Call):
        return []
    called = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    dangers = ["shell=True"] if given.get("shell", "False") != "False" and called not in SHELL_IS_A_NAME else []
    if called in ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads"):
        dangers.append(called)
    if called == "torch.load" and given.get("weights_only") != "True":
        dangers.append(called)
    if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load") and given.get("Loader") not in SAFE_LOADERS:
        dangers.append(called)
    if called.endswith(".from_pretrained") and "Scheduler" not in called and "Tokenizer" not in called:
        local_only = "assets" in called or called.startswith("ZImagePipeline")
        if given.get("use_safetensors") != "True" and not local_only:
            dangers.append(called)
    if given.get("trust_remote_code", "False") != "False":
        dangers.append("trust_remote_code")
    return dangers


# ---- the run folder's own files --------------------------------------------------------------------------------------


@pytest.mark.fault("status.json torn, empty or garbage")
def test_a_broken_status_is_named_and_hides_no_other_run(run: RunFolder, row: Row) -> None:
    """`runs` lists the others all the same; `control` is refused with status 2, naming the file and the remedy;
    `resume` sets it aside and goes on from the checkpoints."""
    shutil.copytree(run.path, run.path.with_name("other"))
    torn = ("", '{"state": "runn', "\0\0")
    row.trials = len(torn)
    for text in torn:
        run.status.write_text(text, encoding="utf-8")
        lists_the_others(run)
        refused = cli("control", str(run.path), "pause")
        assert refused.returncode == 2, refused.stderr
        assert str(run.status) in refused.stderr
        assert f"acrf-tui resume {run.name}" in refused.stderr
        assert "Traceback" not in refused.stderr
        done = cli("resume", str(run.path), "--headless")
        assert done.returncode == 0, done.stderr
        assert run.read_status().state == "finished"
        assert run.status.with_name("status.json.damaged").read_text(encoding="utf-8") == text


@pytest.mark.fault("status.json of another shape")
@pytest.mark.parametrize("text", ["[]", '{"state": 7, "created": "x"}'])
def test_a_status_of_another_shape_hides_no_other_run(run: RunFolder, row: Row, text: str) -> None:
    """`runs` lists the others all the same."""
    shutil.copytree(run.path, run.path.with_name("other"))
    run.status.write_text(text, encoding="utf-8")
    lists_the_others(run)


def lists_the_others(run: RunFolder) -> None:
    done = cli("runs", "--json", "--runs", str(run.path.parent))
    assert done.returncode == 0, done.stderr
    assert "finished" in {listed["state"] for listed in json.loads(done.stdout) if listed["name"] == "other"}


@pytest.mark.fault("config.yaml of a run edited into nonsense")
@pytest.mark.parametrize("text", ["model: [", "no such key: 1\n", "model: !!python/object/apply:os.mkdir [/tmp/x]\n"])
def test_a_config_of_nonsense_is_refused(run: RunFolder, row: Row, text: str) -> None:
    """`resume` and `export` end with status 2 naming the file, and the run stays as it was."""
    run.config.write_text(text, encoding="utf-8")
    before = run.status.read_bytes()
    done = cli("resume", str(run.path), "--headless", "--steps", "9")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("acrf-tui: ")
    assert "Traceback" not in done.stderr
    assert run.status.read_bytes() == before


@pytest.mark.fault("lock file removed, socket pointer elsewhere")
@pytest.mark.parametrize("pointer", ["{place}/s", "{place}/none\n{place}/s", "relative", "\0", "x" * 5000, ""])
def test_a_socket_pointer_to_elsewhere_is_not_followed(run: RunFolder, row: Row, tmp_path: Path, pointer: str) -> None:
    """With the lock gone too, `control` is refused with status 1 and the file pointed to stays."""
    place = tmp_path / "acrf-elsewhere"
    place.mkdir()
    (place / "s").write_text("no socket", encoding="utf-8")
    run.lock.unlink()
    run.socket.write_text(pointer.format(place=place), encoding="utf-8")
    done = cli("control", str(run.path), "pause")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "finished" in done.stderr
    assert (place / "s").read_text(encoding="utf-8") == "no socket"


@pytest.mark.full_only
@pytest.mark.fault("socket pointer into another's folder")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_socket_in_another_users_folder_is_not_used(run: RunFolder, row: Row, tmp_path: Path) -> None:
    """Neither `control` connects to it nor `resume` removes it; the run ends well."""
    theirs = tmp_path / "acrf-theirs"
    theirs.mkdir()
    (theirs / "s").write_text("theirs", encoding="utf-8")
    os.chown(theirs, 65534, 65534)
    run.socket.write_text(f"{theirs}/s\n", encoding="utf-8")
    run.lock.unlink()
    assert cli("control", str(run.path), "pause").returncode == 1
    code, events, words = resume(run)
    assert (code, start_step(events)) == (0, 8), words
    assert (theirs / "s").read_text(encoding="utf-8") == "theirs"


@pytest.mark.fault("permissions in a run folder")
def test_everything_in_a_run_folder_is_for_its_user_alone(original: RunFolder, row: Row) -> None:
    """Folders 0700, files 0600, links none."""
    paths = [original.path, *original.path.rglob("*")]
    row.trials = len(paths)
    wrong = {
        str(path): oct(path.lstat().st_mode)
        for path in paths
        if path.is_symlink() or stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)
    }
    assert wrong == {}
