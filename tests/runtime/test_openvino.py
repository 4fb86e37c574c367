"""OpenVINO as a backend. Reference: ONNX Runtime's CPU on the same bundle."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from grip_edge.bundle import Bundle, open_bundle
from grip_edge.errors import BundleError, UserError
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.precision import PrecisionOptions
from grip_edge.mapped_files import mappings_of
from grip_edge.runtime import Pipeline
from grip_edge.runtime.backend import choose_backend
from grip_edge.runtime.decoder import CachedDecoder
from grip_edge.runtime.sampling import Sampler, Sampling
from grip_edge.runtime.token_loop import Decoding, answer_tokens, greedy_tokens
from tests.toy_families import FAMILY_POLICIES, save_toy_family

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs OpenVINO: pip install 'grip-edge[openvino]'"
)
QUESTION = "what is it?"
PROMPT = 10

# Of logits, relative to the largest: bf16 has 8 bits, the cache too, and inputs of products in ONNX Runtime.
ROUGH = 0.06


@pytest.fixture(scope="module")
def make_bundle(
    wide_checkpoint: Path, wide_scorer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    def make(target: str = "cpu", precision: str = "fp32", cache: str | None = None) -> Path:
        out = tmp_path_factory.mktemp("bundle") / "bundle"
        formats = PrecisionOptions(precision, cache=cache)
        return export_bundle(ExportOptions(str(wide_checkpoint), "0.1,0.5", wide_scorer, out, target, formats)).folder

    return make


@pytest.fixture(scope="module")
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle()


def decoders(folder: Path) -> tuple[CachedDecoder, Any]:
    reference, found = (Pipeline.load(folder, 1, 0, backend) for backend in ("onnxruntime-cpu", "openvino"))
    return (
        CachedDecoder(reference.graphs.decoder, reference.manifest.model.text, 2 * PROMPT),
        found.graphs.new_decoder(),
    )


def prompt(folder: Path) -> tuple[NDArray[Any], NDArray[np.int64]]:
    embeds = Pipeline.load(folder, 1).graphs.embed(tuple(range(5, 5 + PROMPT)))
    return embeds, np.arange(PROMPT, dtype=np.int64)[None]


def assert_logits(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    difference = np.abs(found - expected) / np.abs(expected).max()
    assert difference.max() < tolerance, f"max {difference.max()}, mean {difference.mean()}"


@pytest.mark.parametrize("budget", [2, 8, 1.0])
def test_the_same_answers(bundle: Path, picture: Path, budget: float | int) -> None:
    """In fp32, token by token; the kept ones are those of ONNX Runtime, which selects in both."""
    found, expected = (
        Pipeline.load(bundle, 1, 0, backend).generate(picture, QUESTION, budget, 12, ignore_stop=True)
        for backend in ("openvino", "onnxruntime-cpu")
    )
    assert found.backend == "openvino"
    assert found.kept_indices == expected.kept_indices
    assert found.tokens == expected.tokens
    assert len(found.tokens) == 12


@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_a_greedy_token_is_one_run(make_bundle: Callable[..., Path], target: str) -> None:
    """The graph embeds its choice: the same tokens as by looking each one up."""
    folder = make_bundle(target)
    greedy, by_step = (decoders(folder)[1] for _ in range(2))
    embeds, positions = prompt(folder)
    assert greedy.embeds_choice
    answers = []
    for decoder in (greedy, by_step):
        decoder.restart()
        decoder.append(embeds, positions)
        moments: list[float] = []
        decoding = Decoding(6, Sampler(Sampling()), (), moments.append)
        loop = (
            greedy_tokens(decoder.likeliest_token, decoder.begin_steps, PROMPT - 1, decoding)
            if decoder is greedy
            else answer_tokens(decoder.likeliest_token, decoder.step, PROMPT - 1, decoding)
        )
        answers.append(list(loop))
        assert len(moments) == 6
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 1
    assert_logits(greedy.logits, by_step.logits, 1e-5)


@pytest.mark.parametrize("cut", [1, 5, 9, PROMPT])
def test_a_prompt_in_two_parts(bundle: Path, cut: int) -> None:
    """The cache inside of the graph goes on where the first part ended, and starts anew for the next request."""
    reference, stateful = decoders(bundle)
    embeds, positions = prompt(bundle)
    expected = reference.append(embeds, positions)
    for _ in range(2):
        stateful.restart()
        found = stateful.append(embeds[:, :cut], positions[:, :cut])
        if cut < PROMPT:
            found = stateful.append(embeds[:, cut:], positions[:, cut:])
        assert_logits(found, expected, 1e-4)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8-weight", "int4"])
def test_precisions(make_bundle: Callable[..., Path], precision: str) -> None:
    folder = make_bundle("openvino", precision)
    reference, stateful = decoders(folder)
    embeds, positions = prompt(folder)
    stateful.restart()
    assert_logits(stateful.append(embeds, positions), reference.append(embeds, positions), ROUGH)


def test_a_cache_in_fp16(make_bundle: Callable[..., Path]) -> None:
    """Made for ONNX Runtime on the CPU; here the cache is inside, and in fp32 as the rest of this bundle."""
    folder = make_bundle(cache="fp16")
    reference, stateful = decoders(folder)
    embeds, positions = prompt(folder)
    stateful.restart()
    for piece in (slice(0, 4), slice(4, PROMPT - 1), slice(PROMPT - 1, PROMPT)):
        expected = reference.append(embeds[:, piece], positions[:, piece])
        assert_logits(stateful.append(embeds[:, piece], positions[:, piece]), expected, 0.01)


@pytest.fixture(scope="module")
def fixed_scales(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """int8 for OpenVINO, its ranges from a few rendered scenes."""
    from grip_edge.cli.calibration_questions import ask_about
    from grip_edge.export.accuracy.calibrate import calibrate_bundle
    from grip_edge.export.accuracy.options import CalibrationOptions

    out = tmp_path_factory.mktemp("calibrated") / "int8"
    options = CalibrationOptions(bundle, out, PrecisionOptions("int8"), target="openvino")
    asked = ask_about(open_bundle(bundle), "scenes", "train", 2, 2)
    return calibrate_bundle(options, asked.seen, asked.checked, asked.data, lambda doing: None)


def test_int8_with_fixed_scales(fixed_scales: Bundle, picture: Path) -> None:
    assert fixed_scales.manifest.target == "openvino"
    reference, stateful = decoders(fixed_scales.folder)
    embeds, positions = prompt(fixed_scales.folder)
    stateful.restart()
    assert_logits(stateful.append(embeds, positions), reference.append(embeds, positions), 2 * ROUGH)
    pipeline = Pipeline.load(fixed_scales.folder, 1)
    assert (pipeline.graphs.backend, pipeline.backend_reason) == ("openvino", "the bundle is for it")
    assert len(pipeline.generate(picture, QUESTION, 4, 3, ignore_stop=True).tokens) == 3


def test_requests_between_each_other(bundle: Path, picture: Path) -> None:
    """Two answers read by turns are those of one after the other: each has a cache of its own."""
    pipeline = Pipeline.load(bundle, 1, backend="openvino")
    questions = ("what is it?", "how many are there in it?")
    expected = [pipeline.generate(picture, question, 4, 8, ignore_stop=True).tokens for question in questions]
    streams = [pipeline.stream(picture, question, 4, 8, ignore_stop=True) for question in questions]
    for pieces in zip(*streams, strict=False):
        assert all(pieces)
    assert [stream.result().tokens for stream in streams] == expected


def test_without_the_package(fixed_scales: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle still answers, and says what is missed; asked for by name, it is an error with the command."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    name, reason = choose_backend(fixed_scales)
    assert name == "onnxruntime-cpu"
    assert reason.endswith("pip install 'grip-edge[openvino]'")
    for module in ("openvino", "grip_edge.runtime.openvino.graphs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"needs the package 'openvino': run  pip install 'grip-edge\[openvino\]'"):
        Pipeline.load(fixed_scales.folder, backend="openvino")


@pytest.mark.parametrize(("target", "precision"), [("rtx", "fp32"), ("cpu", "int8")])
def test_bundles_that_it_cannot_run(make_bundle: Callable[..., Path], target: str, precision: str) -> None:
    """Attention of another form; input scales that come as they run."""
    folder = make_bundle(target, precision)
    with pytest.raises((UserError, BundleError), match=r"(?i)openvino") as caught:
        Pipeline.load(folder, backend="openvino")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_images_in_tiles(picture: Path, tmp_path: Path) -> None:
    """Several tiles through the tower at once, and as many visual tokens as the picture has."""
    family = "llava-onevision"
    model = str(save_toy_family(tmp_path / "model", family))
    folder = export_bundle(
        ExportOptions(model, "0.1,0.5", None, tmp_path / "bundle", policy=FAMILY_POLICIES[family])
    ).folder
    found, expected = (
        Pipeline.load(folder, 1, 0, backend).generate(picture, QUESTION, 0.5, 4, ignore_stop=True)
        for backend in ("openvino", "onnxruntime-cpu")
    )
    assert found.kept_indices == expected.kept_indices
    assert found.tokens == expected.tokens


def test_requests_at_once(bundle: Path, picture: Path) -> None:
    """From several threads, each with a tower and a cache of its own for as long as it takes."""
    pipeline = Pipeline.load(bundle, 1, 0, "openvino")
    questions = [f"what is it{'?' * count}" for count in range(1, 9)]
    expected = [pipeline.generate(picture, question, 4, 6, ignore_stop=True).tokens for question in questions]
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda question: pipeline.generate(picture, question, 4, 6, ignore_stop=True), questions)
    assert [result.tokens for result in found] == expected


def test_signals_after_pipelines_that_are_gone(bundle: Path) -> None:
    """In a process of its own: OpenVINO's stack for signals outlives the pipelines, in whatever order they end."""
    program = (
        "import faulthandler, gc, signal, sys\n"
        "from grip_edge.runtime import Pipeline\n"
        "faulthandler.enable()\n"
        "first, second = (Pipeline.load(sys.argv[1], 1, 0, 'openvino') for _ in range(2))\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(bundle)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="mappings are read from Linux's /proc")
def test_mapped_weights_do_not_stay_beside_the_packed_ones(fixed_scales: Bundle, picture: Path) -> None:
    """Of int8 weights, which are packed; floats are read where they lie."""
    pipeline = Pipeline(fixed_scales, 1, backend="openvino")
    pieces = iter(pipeline.stream(picture, QUESTION, 4, 4, ignore_stop=True))
    next(pieces)
    mapped = [one for one in mappings_of(fixed_scales.folder) if one.path.endswith("decoder.onnx.data")]
    assert mapped
    assert sum(one.resident_bytes for one in mapped) == 0
    tokens = pipeline.generate(picture, QUESTION, 4, 4, ignore_stop=True).tokens
    assert tokens == pipeline.generate(picture, QUESTION, 4, 4, ignore_stop=True).tokens
