"""From a bundle in floats to a quantised one whose cost is known: ``calibrate_bundle``.

1. The float model answers questions and is observed (``observe``): ranges, error of each layer, best rescaling.
2. The quantised graphs are written, answer other questions, and are compared with the float model (``cost``).
3. If that costs more than is allowed, the layers with the largest error stay in more bits, as few as do (``search``).

Source and result are bundles; no checkpoint is needed, and no model is ever held. Every round of 3 writes and reads all
weights. Interrupted, a second call observes again and finds the weights that it would write the same.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from grip_edge.bundle import MANIFEST_NAME, TOKENIZER_NAME, Bundle, open_bundle, record_file, writing_bundle
from grip_edge.calibration_record import CalibrationRecord, PrecisionCost
from grip_edge.errors import UserError
from grip_edge.export.accuracy.candidate import write_candidate
from grip_edge.export.accuracy.cost import compare
from grip_edge.export.accuracy.decisions import Decisions, observe
from grip_edge.export.accuracy.float_bundle import require_float_bundle
from grip_edge.export.accuracy.forward import ForwardPass
from grip_edge.export.accuracy.options import CalibrationOptions
from grip_edge.export.accuracy.questions import Positions, QuestionSet
from grip_edge.export.accuracy.search import fewest_kept
from grip_edge.export.precision import session_config
from grip_edge.export.quiet import quiet_libraries
from grip_edge.manifest import FileRecord

# Gets what is being done.
Say = Callable[[str], None]


def calibrate_bundle(
    options: CalibrationOptions, seen: QuestionSet, checked: QuestionSet, data: str, say: Say = lambda doing: None
) -> Bundle:
    """``seen`` questions decide, ``checked`` ones measure; ``data`` names them in the manifest."""
    source = open_bundle(options.bundle)
    require_float_bundle(source)
    with quiet_libraries(), writing_bundle(options.out, options.force) as folder:
        say("Observing the float model")
        observed = observe(source, options, seen)
        say("Asking the float model")
        reference = _answers(source, source.folder, source.manifest.session_config, checked)
        rounds = _Rounds(source, options, observed, checked, reference, folder, say)
        count, cost = fewest_kept(len(observed.ranking), rounds.measure, rounds.within_limits, _in_words)
        if rounds.written != count:
            rounds.write(count)
        _describe(rounds, count, CalibrationRecord(
            data=data,
            seen_questions=len(seen.prompts),
            limits=options.limits,
            cost=cost,
            kept=observed.kept_layers(count),
            rescaled=observed.rescaled_layers(count),
            wide=observed.wide,
        ))  # fmt: skip
    return open_bundle(options.out)


class _Rounds:
    """The candidates: written over one another into ``folder``, and measured there."""

    def __init__(
        self,
        source: Bundle,
        options: CalibrationOptions,
        observed: Decisions,
        checked: QuestionSet,
        reference: Positions,
        folder: Path,
        say: Say,
    ) -> None:
        self.source, self.options, self.observed, self.folder = source, options, observed, folder
        self._checked, self._reference, self._say = checked, reference, say
        self.written: int | None = None
        self.files: list[FileRecord] = []

    def write(self, count: int) -> None:
        self._say(f"Writing, {count} layers in more bits")
        try:
            self.files = write_candidate(self.source, self.observed.choices(count), self.folder)
        except OSError as error:
            out = self.options.out
            raise UserError(
                f"The bundle cannot be written to '{out.parent}' ({error}); choose another --out."
            ) from None
        self.written = count

    def measure(self, count: int) -> PrecisionCost:
        self.write(count)
        self._say(f"Measuring, {count} layers in more bits")
        found = _answers(self.source, self.folder, self.session_config(count), self._checked)
        return compare(found, self._reference, self._checked)

    def session_config(self, count: int) -> dict[str, str]:
        choices = self.observed.choices(count)
        return session_config(choices.formats, choices.kept_formats, choices.has_fixed_scales)

    def within_limits(self, cost: PrecisionCost) -> bool:
        limits = self.options.limits
        return cost.mean_kl <= limits.get("max_kl", math.inf) and cost.agreement >= limits.get("min_agreement", 0.0)


def _answers(source: Bundle, folder: Path, config: dict[str, str], asked: QuestionSet) -> Positions:
    return ForwardPass(folder, source.manifest.model.text, config).logits(asked)


def _in_words(cost: PrecisionCost) -> str:
    return f"at a KL of {cost.mean_kl:.4f} and an agreement of {cost.agreement:.4f}"


def _describe(rounds: _Rounds, count: int, record: CalibrationRecord) -> None:
    """Tokenizer and manifest, which make it a bundle. Parity is not claimed: the reference here is the float bundle."""
    source, folder = rounds.source, rounds.folder
    shutil.copyfile(source.path(TOKENIZER_NAME), folder / TOKENIZER_NAME)
    files = [*rounds.files, record_file(folder, folder / TOKENIZER_NAME)]
    manifest = replace(
        source.manifest,
        target=rounds.observed.target.name,
        precision=rounds.options.precision.precision,
        weight_formats=rounds.observed.formats,
        session_config=rounds.session_config(count),
        parity=(),
        files=tuple(sorted(files, key=lambda file: file.path)),
        calibration=record,
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
