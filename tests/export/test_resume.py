"""Reference: an export that nobody interrupted. Real processes are killed, at any point, and the same call goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from grip_edge.bundle import MANIFEST_NAME, RESUME_NAME, partial_folder

# Exports the toy's bundle and notes every weight that is written; kills itself at the point that is asked for.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from grip_edge.export import exporter, fill
from grip_edge.export.exporter import ExportOptions, export_bundle

model, scorer, out, notes, point = sys.argv[1:]

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

class Writer(fill._Writer):
    def write(self, place, tensor):
        name = f"{self._data_file} {place.name}"
        if name == point:
            self._file.write(tensor.numpy().tobytes()[: place.weight.nbytes // 2])
            self._file.flush()
            die()
        super().write(place, tensor)
        with open(notes, "a") as file:
            file.write(name + "\\n")

fill._Writer = Writer
if hasattr(exporter, point):
    setattr(exporter, point, die)
export_bundle(ExportOptions(model, "0.1,0.5", Path(scorer), Path(out)))
"""

KILLED_AT = (
    "vision.onnx.data encoder.layers.0.self_attn.k_proj.weight",
    "decoder.onnx.data layers.1.mlp.up_proj.weight",
    "check_parity",
)


def test_killed_at_several_points_it_ends_with_the_same_bytes(
    toy_checkpoint: Path, toy_scorer: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    out, notes = tmp_path / "grip-bundle", tmp_path / "notes"
    arguments = [sys.executable, "-c", PROGRAM, *map(str, (toy_checkpoint, toy_scorer, out, notes))]
    for point in KILLED_AT:
        killed = subprocess.run([*arguments, point], capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, f"{point}: {killed.stderr}"
        assert not out.exists()
    journal = [json.loads(line) for line in (partial_folder(out) / RESUME_NAME).read_text().splitlines()]
    subprocess.run([*arguments, "nowhere"], check=True)

    written = notes.read_text().splitlines()
    assert len(written) == len(set(written)), "a finished weight was written again"
    assert written == [f"{entry['data_file']} {entry['name']}" for entry in journal]
    assert {path.name for path in tmp_path.iterdir()} == {"grip-bundle", "notes"}
    assert {path.name for path in out.iterdir()} == {path.name for path in toy_bundle.iterdir()}
    for path in toy_bundle.iterdir():
        if path.name != MANIFEST_NAME:
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    found, expected = (json.loads((folder / MANIFEST_NAME).read_text()) for folder in (out, toy_bundle))
    # The check is repeated, and in another process its last digits may differ.
    for manifest in (found, expected):
        for result in manifest["parity"]:
            assert 0 < result.pop("logits_max_difference") < 1e-4
            assert 0 < result.pop("logits_mean_difference") < 1e-4
            assert abs(1 - result.pop("logits_cosine")) < 1e-6
    assert found == expected
