"""References: the frozen model asked directly, plain Python formulas, and the definition of a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from grip_edge.calibration.attention_targets import layer_attention, normalised
from grip_edge.calibration.data import AskedImages, AskedQuestion
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.grip.warmup import diverse
from grip_edge.calibration.training.batches import BatchSource, at_most
from grip_edge.calibration.training.cached_vlm import CachedVlm, model_digest
from grip_edge.calibration.training.rewards import group_rewards, worth
from grip_edge.calibration.training.tensor_store import TensorStore


@pytest.fixture(scope="module")
def vlm(toy_checkpoint: Path) -> FrozenVlm:
    return FrozenVlm.load(toy_checkpoint, torch.float32)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 60, 3)).astype(np.uint8))


def question(text: str, answer: str = "noise") -> AskedQuestion:
    return AskedQuestion(text, answer, (answer, "sound"), "all")


ASKED = AskedImages(
    (picture(0), picture(1)),
    (question("what is it?"), question("which colour is it?", "a grey one"), question("where?", "here")),
    (0, 1, 1),
)


class NoVlm:
    """Every use of it is an error: what is in the cache needs no model."""

    def __init__(self, vlm: FrozenVlm) -> None:
        self.device, self.model, self.processor, self.before = vlm.device, vlm.model, vlm.processor, vlm.before


def target_of(cached: CachedVlm, visual: Tensor, prompts: Any, keys: tuple[str, ...]) -> Tensor:
    return cached.attention_target(visual, prompts, [keys[row] for row in ASKED.image_of], 0.3, 0)


def test_what_comes_from_the_cache_is_what_the_model_said_bit_for_bit(vlm: FrozenVlm, tmp_path: Path) -> None:
    direct = torch.cat([vlm.features(vlm.pixels([image])) for image in ASKED.images])
    visual = vlm.visual_embeds(direct)[list(ASKED.image_of)]
    prompts = vlm.prompts([q.text for q in ASKED.questions])
    first = CachedVlm(vlm, TensorStore(tmp_path, 2**30))
    features, keys = first.features(ASKED.images)
    assert torch.equal(features, direct)
    targets = target_of(first, visual, prompts, keys)

    again = CachedVlm(NoVlm(vlm), TensorStore(tmp_path, 2**30))  # type: ignore[arg-type]
    assert torch.equal(again.features(ASKED.images)[0], direct)
    assert torch.equal(target_of(again, visual, prompts, keys), targets)
    with pytest.raises(AttributeError):
        again.features([picture(2)])
    with pytest.raises(AttributeError):
        again.attention_target(visual, prompts, [keys[row] for row in ASKED.image_of], 0.4, 0)


def test_targets_are_the_mixed_attention_of_the_deep_layers(vlm: FrozenVlm) -> None:
    batch = BatchSource(CachedVlm(vlm), None, 4).batch(ASKED)  # type: ignore[arg-type]
    last, words = layer_attention(vlm, batch.visual, batch.prompts)
    mixed = 0.7 * normalised(last[1:]).mean(dim=0) + 0.3 * normalised(words[1:]).mean(dim=0)
    found = CachedVlm(vlm).attention_target(batch.visual, batch.prompts, batch.image_keys, 0.3, 1)
    assert torch.allclose(found, mixed / mixed.sum(dim=-1, keepdim=True), atol=1e-6), (found - mixed).abs().max()


def test_another_model_has_other_keys(vlm: FrozenVlm) -> None:
    before = model_digest(vlm)
    assert model_digest(vlm) == before
    weight = vlm.model.lm_head.weight
    with torch.no_grad():
        saved = weight[3, 5].clone()
        weight[3, 5] = torch.nextafter(saved, torch.tensor(9.0))
        assert model_digest(vlm) != before
        weight[3, 5] = saved
    assert model_digest(vlm) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_store_is_exact_bounded_and_forgives_damage(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
    size_bytes = tensor.numel() * tensor.element_size()
    store = TensorStore(tmp_path, int(2.9 * size_bytes))
    for key in ("aa1", "ab2", "ac3", "ad4"):
        store.put(key, tensor)
    kept = [key for key in ("aa1", "ab2", "ac3", "ad4") if store.get(key) is not None]
    assert kept == ["aa1", "ab2"] or kept == ["aa1"], "headers count too"
    found = TensorStore(tmp_path, 0).get("aa1")
    assert found is not None
    assert found.dtype == dtype
    assert torch.equal(found, tensor)
    assert not list(tmp_path.glob("**/*.partial*"))
    file = next(tmp_path.glob("aa/*"))
    file.write_bytes(file.read_bytes()[:40])
    assert store.get("aa1") is None


def test_a_batch_holds_each_question_with_its_own_image(vlm: FrozenVlm) -> None:
    batch = BatchSource(CachedVlm(vlm), None, 4).batch(ASKED)  # type: ignore[arg-type]
    alone = vlm.features(vlm.pixels([ASKED.images[1]])).float()
    for row, owner in enumerate(ASKED.image_of):
        assert torch.allclose(batch.features[row], alone[0], atol=1e-5) == (owner == 1)
    assert torch.allclose(batch.visual[2], vlm.visual_embeds(alone)[0], atol=1e-4)
    assert batch.questions == ASKED.questions


def test_surplus_questions_are_left_out_at_random() -> None:
    many = AskedImages((picture(0), picture(1)), tuple(question(str(n)) for n in range(8)), (0,) * 6 + (1,) * 2)
    seen = set()
    for seed in range(40):
        some = at_most(many, 3, np.random.default_rng(seed))
        assert some.image_of == (0, 0, 0, 1, 1)
        assert [q.text for q in some.questions[3:]] == ["6", "7"]
        seen |= {q.text for q in some.questions[:3]}
    assert seen == {"0", "1", "2", "3", "4", "5"}
    rng = np.random.default_rng(0)
    assert at_most(many, 6, rng) == many
    assert rng.random() == np.random.default_rng(0).random(), "nothing is drawn where nothing is left out"


def test_rewards_against_a_loop_over_the_draws(vlm: FrozenVlm) -> None:
    batch = BatchSource(CachedVlm(vlm), None, 4).batch(ASKED)  # type: ignore[arg-type]
    order = torch.tensor([[[3, 0, 9], [5, 2, 1]]]).expand(3, 2, 3)
    names = ("log_probability", "probability", "logit_margin")
    found = {name: group_rewards(vlm, batch, order, name) for name in names}
    for row in range(3):
        for draw in range(2):
            kept = batch.visual[row][sorted(order[row, draw].tolist())]
            answer = batch.prompts.answers[row]
            logits, targets, _ = vlm._answer_logits([kept], batch.prompts.rows([row]))
            assert tuple(targets.tolist()) == answer
            steps = list(zip(logits.tolist(), answer, strict=True))
            margin = np.mean([line[t] - max(x for i, x in enumerate(line) if i != t) for line, t in steps])
            log_probs = [line[t] - np.logaddexp.reduce(line) for line, t in steps]
            assert float(found["logit_margin"][row, draw]) == pytest.approx(margin, abs=1e-4)
            assert float(found["log_probability"][row, draw]) == pytest.approx(np.mean(log_probs), abs=1e-4)
            assert float(found["probability"][row, draw]) == pytest.approx(np.exp(np.sum(log_probs)), rel=1e-3)


def test_an_exact_match_with_any_reference_is_rewarded(vlm: FrozenVlm, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = BatchSource(CachedVlm(vlm), None, 4).batch(ASKED)  # type: ignore[arg-type]
    monkeypatch.setattr(FrozenVlm, "answers", lambda *_, **__: ["Sound.", "a grey", "here", "hers"])
    rewards = worth(vlm, batch, [0, 1, 2, 2], batch.visual[[0, 1, 2, 2]], "exact_match")
    assert rewards.tolist() == [1.0, 0.0, 1.0, 0.0]


def test_sets_of_unequal_size_are_judged_as_each_alone(vlm: FrozenVlm) -> None:
    batch = BatchSource(CachedVlm(vlm), None, 4).batch(ASKED)  # type: ignore[arg-type]
    kept = [batch.visual[0][:5], batch.visual[1][:0], batch.visual[2]]
    found = vlm.answer_log_prob(kept, batch.prompts)
    alone = torch.cat([vlm.answer_log_prob(kept[row][None], batch.prompts.rows([row])) for row in range(3)])
    assert torch.allclose(found, alone, atol=1e-5), (found - alone).abs().max()


def test_passes_that_fit_into_memory_give_the_same(vlm: FrozenVlm, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = BatchSource(CachedVlm(vlm), None, 4).batch(ASKED)  # type: ignore[arg-type]
    whole = (vlm.answer_log_prob(batch.visual, batch.prompts), layer_attention(vlm, batch.visual, batch.prompts))
    answers = vlm.answers(batch.visual, batch.prompts)
    monkeypatch.setattr(FrozenVlm, "rows_per_pass", lambda *_, **__: 2)
    parts = (vlm.answer_log_prob(batch.visual, batch.prompts), layer_attention(vlm, batch.visual, batch.prompts))
    assert torch.allclose(whole[0], parts[0], atol=1e-5)
    for found, expected in zip(parts[1], whole[1], strict=True):
        assert torch.allclose(found, expected, atol=1e-6)
    assert vlm.answers(batch.visual, batch.prompts) == answers


@pytest.mark.parametrize("kept", [1, 3, 7])
def test_the_diversity_label_against_plain_python(kept: int) -> None:
    generator = torch.Generator().manual_seed(kept)
    features = torch.randn(3, 7, 4, generator=generator, dtype=torch.float64)
    attention = torch.rand(3, 7, generator=generator, dtype=torch.float64)
    found = diverse(attention, features, kept)
    for row in range(3):
        unit = (features[row] / features[row].norm(dim=-1, keepdim=True)).numpy()
        chosen: list[int] = []
        while len(chosen) < kept:
            gains = {
                i: float(attention[row, i]) * min([1.0, *(1 - float(unit[i] @ unit[j]) for j in chosen)])
                for i in range(7)
                if i not in chosen
            }
            chosen.append(max(gains, key=lambda i: gains[i]))
        assert found[row].nonzero()[:, 0].tolist() == sorted(chosen)


def test_twins_are_not_both_labelled() -> None:
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    attention = torch.tensor([[0.5, 0.4, 0.1]])
    assert diverse(attention, features, 2).tolist() == [[True, False, True]]
