"""Reference: the same bundle's answers from ONNX Runtime. TensorRT and the device are stand-ins (recorded_tensorrt)."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grip_edge.bundle import Bundle, open_bundle
from grip_edge.engines import ENGINES_NAME, Engines, find_engines
from grip_edge.errors import BundleError, PromptError, UserError
from grip_edge.runtime import Pipeline
from grip_edge.runtime import backend as backend_choice
from grip_edge.runtime.sampling import Sampler, Sampling
from grip_edge.runtime.tensorrt.decoder import DeviceDecoder
from grip_edge.runtime.tensorrt.driver import CudaError
from grip_edge.runtime.tensorrt.graphs import TensorRTGraphs
from grip_edge.runtime.token_loop import Decoding
from tests.runtime.recorded_tensorrt import HostDriver, Runtime, engines_folder, write_engines

QUESTION = "what is it?"
IMAGE = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
CAPACITY = 96


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(toy_bundle, tmp_path / "bundle")
    return open_bundle(tmp_path / "bundle")


@pytest.fixture
def engines(bundle: Bundle) -> Engines:
    return write_engines(bundle, engines_folder(bundle), CAPACITY)


def on_stand_in(bundle: Bundle, engines: Engines, driver: HostDriver, time_stages: bool = True) -> Pipeline:
    pipeline = Pipeline(bundle, threads=1, cached_images=1)
    pipeline.graphs = TensorRTGraphs(bundle, engines, None, Runtime(driver), driver, time_stages)
    return pipeline


@pytest.mark.parametrize("in_place", [True, False])
def test_the_same_answers_as_onnx_runtime(bundle: Bundle, in_place: bool) -> None:
    driver = HostDriver()
    engines = write_engines(bundle, engines_folder(bundle), CAPACITY, in_place)
    plain, found = Pipeline(bundle, threads=1), on_stand_in(bundle, engines, driver)
    for budget in (2, 8, 1.0):
        for options in ({}, {"temperature": 2.0, "seed": 3}):
            expected = plain.generate(IMAGE, QUESTION, budget, 12, ignore_stop=True, **options)  # type: ignore[arg-type]
            answer = found.generate(IMAGE, QUESTION, budget, 12, ignore_stop=True, **options)  # type: ignore[arg-type]
            assert answer.tokens == expected.tokens
            assert answer.kept_indices == expected.kept_indices
    assert answer.backend == "tensorrt"
    decoder: DeviceDecoder = found.graphs._decoder
    assert decoder.captured == in_place
    assert (driver.launches > 0) == in_place


def test_between_scoring_and_the_first_token_nothing_goes_to_the_host(bundle: Bundle, engines: Engines) -> None:
    driver = HostDriver()
    graphs = on_stand_in(bundle, engines, driver, time_stages=False).graphs
    pipeline = Pipeline(bundle, threads=1)
    prompt = pipeline.prompt_encoder.encode(QUESTION)
    features = graphs.encode_image(pipeline.preprocess(IMAGE_PIL()))
    selection = graphs.select(features, prompt, 4)
    decoding = Decoding(5, Sampler(Sampling()), (), lambda moment_s: None)
    with graphs.next_tokens(prompt, selection, 16, decoding) as tokens:
        assert (driver.copied_to_host, driver.waits) == (0, 0)
        next(tokens)
        assert driver.copied_to_host == 8
        next(tokens)
        assert driver.copied_to_host == 16


def IMAGE_PIL() -> Any:  # noqa: N802  the image above, opened
    from PIL import Image

    return Image.fromarray(IMAGE)


def test_a_step_that_cannot_be_recorded_runs_all_the_same(bundle: Bundle, engines: Engines) -> None:
    """TensorRT refuses the launch while the stream is recorded; the recording ends and the step runs as it is."""

    class Refusing(HostDriver):
        def end_capture(self) -> int:
            super().end_capture()
            raise CudaError("cudaStreamEndCapture failed")

    plain, found = Pipeline(bundle, threads=1), on_stand_in(bundle, engines, driver := Refusing())
    expected = plain.generate(IMAGE, QUESTION, 4, 8, ignore_stop=True)
    assert found.generate(IMAGE, QUESTION, 4, 8, ignore_stop=True).tokens == expected.tokens
    assert (driver.launches, found.graphs._decoder.captured) == (0, False)


def test_requests_of_other_budgets_take_the_same_memory(bundle: Bundle, engines: Engines) -> None:
    driver = HostDriver()
    pipeline = on_stand_in(bundle, engines, driver)
    sizes: list[list[int]] = []
    for budget in (2, 8, 1.0):
        pipeline.generate(IMAGE, QUESTION, budget, 4)
        sizes.append(sorted(len(buffer) for buffer in driver.memory.values()))
    assert sizes[0] == sizes[1] == sizes[2]


def test_memory_is_given_back(bundle: Bundle, engines: Engines) -> None:
    driver = HostDriver()
    pipeline = on_stand_in(bundle, engines, driver)
    pipeline.generate(IMAGE, QUESTION, 4, 4)
    after_one = len(driver.memory)
    for _ in range(3):
        pipeline.generate(IMAGE, QUESTION, 8, 4)
    assert len(driver.memory) == after_one
    del pipeline
    assert not driver.memory


def test_an_answer_that_does_not_fit_the_engines(bundle: Bundle, engines: Engines) -> None:
    pipeline = on_stand_in(bundle, engines, HostDriver())
    with pytest.raises(PromptError, match=f"tokens exceed the engines' cache of {CAPACITY}; shorten the question"):
        pipeline.generate(IMAGE, QUESTION, 1.0, 90, ignore_stop=True)


def test_engines_that_fit_are_found(bundle: Bundle, engines: Engines) -> None:
    assert find_engines(bundle, "tensorrt_rtx", "1.7.1.116", 86) == engines


@pytest.mark.parametrize(
    ("package", "version", "capability", "expected"),
    [
        ("tensorrt", "1.7.1.116", 86, "package is tensorrt, the engine is for tensorrt_rtx"),
        ("tensorrt_rtx", "1.8", 86, "package_version is 1.8, the engine is for 1.7.1.116"),
        ("tensorrt_rtx", "1.7.1.116", 120, "compute_capability is 120, the engine is for 86"),
    ],
)
def test_engines_of_another_machine(
    bundle: Bundle, engines: Engines, package: str, version: str, capability: int, expected: str
) -> None:
    with pytest.raises(BundleError, match=expected) as error:
        find_engines(bundle, package, version, capability)
    assert f"grip-edge build {bundle.folder}" in str(error.value)


def test_engines_of_another_bundle_or_damaged(bundle: Bundle, engines: Engines) -> None:
    with pytest.raises(BundleError, match="holds no engines; build them with:  grip-edge build"):
        find_engines(dataclasses.replace(bundle, folder=bundle.folder.parent), "tensorrt_rtx", "1.7.1.116", 86)
    path = engines.folder / ENGINES_NAME
    data = json.loads(path.read_text())
    data["sources"]["decoder.onnx"] = "0" * 64
    path.write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"sources: decoder.onnx is .*, the engine is of 000000000000"):
        find_engines(bundle, "tensorrt_rtx", "1.7.1.116", 86)
    data["schema_version"] = 9
    path.write_text(json.dumps(data))
    with pytest.raises(BundleError, match="schema_version is 9, expected 1; build them with"):
        find_engines(bundle, "tensorrt_rtx", "1.7.1.116", 86)
    path.write_text("{")
    with pytest.raises(BundleError, match="build them with"):
        find_engines(bundle, "tensorrt_rtx", "1.7.1.116", 86)


def test_a_truncated_engine(bundle: Bundle, engines: Engines) -> None:
    (engines.folder / "vision.engine").write_bytes(b"half")
    with pytest.raises(BundleError, match=r"vision.engine has 4 bytes, expected \d+"):
        find_engines(bundle, "tensorrt_rtx", "1.7.1.116", 86)


def test_the_choice_says_why(bundle: Bundle, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_choice, "compute_capability", lambda: None)
    assert backend_choice.choose_backend(bundle)[0] == "onnxruntime-cpu"
    assert "no CUDA device" in backend_choice.choose_backend(bundle)[1]
    monkeypatch.setattr(backend_choice, "compute_capability", lambda: 90)
    name, reason = backend_choice.choose_backend(bundle)
    assert name == "onnxruntime-cpu"
    assert "has no CUDA provider; engines are there, but: This bundle is for cpu" in reason


def test_a_backend_that_is_not_here_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(
        UserError, match="--backend warp does not exist; choose from: onnxruntime-cpu, onnxruntime-cuda"
    ):
        Pipeline.load(bundle.folder, backend="warp")
    with pytest.raises(UserError, match=r"needs CUDAExecutionProvider, this ONNX Runtime has .*pip install"):
        Pipeline.load(bundle.folder, backend="onnxruntime-cuda")
    with pytest.raises(UserError, match="This bundle is for cpu, which runs without engines"):
        Pipeline.load(bundle.folder, backend="tensorrt")
