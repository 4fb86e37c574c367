"""Questions about a scene, with reference answers, in five skills.

    attribute   colour, shape or size of an object that the question names
    existence   is there such an object (half the answers are no, with near misses)
    counting    how many objects of a colour, of a shape, carrying a character, or in all
    relation    where one object lies as seen from another; the outermost object
    text        the letter or digit on an object, or the object that carries it

Every question has exactly one right answer. ``objects`` names the objects that the answer rests on (indices into
``scene.objects``; empty when the answer is that there is none).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from grip_edge.calibration.scenes.question import Question, colour_word, matching, pick, reference
from grip_edge.calibration.scenes.relations import ask_relation
from grip_edge.calibration.scenes.scene import COLOURS, GLYPHS, SHAPES, SIZES, Scene

SKILLS = ("attribute", "existence", "counting", "relation", "text")

_TRIES = 12


def exact_match(answer: str, reference: str) -> bool:
    """Equal but for case, surrounding space and a final full stop."""
    return answer.strip().rstrip(".").strip().casefold() == reference.strip().casefold()


def ask(scene: Scene, count: int, skills: tuple[str, ...] = SKILLS) -> list[Question]:
    """``count`` different questions, the skills in turn as far as the scene allows; decided by the scene's seed."""
    rng = np.random.default_rng([scene.seed, 3])
    questions: list[Question] = []
    seen: set[str] = set()
    order = [skills[i] for i in rng.permutation(len(skills))]
    for attempt in range(_TRIES * count):
        if len(questions) == count:
            break
        question = _ASKERS[order[attempt % len(order)]](rng, scene)
        if question is not None and question.text not in seen:
            seen.add(question.text)
            questions.append(question)
    return questions


def _attribute(rng: np.random.Generator, scene: Scene) -> Question | None:
    index = int(rng.integers(len(scene.objects)))
    thing = scene.objects[index]
    kind = pick(rng, ("colour", "colour", "shape", "shape", "size"))
    phrase = reference(rng, scene, index, hide=kind)
    if phrase is None:
        return None
    if kind == "colour":
        colour = colour_word(rng)
        text = pick(
            rng,
            (
                f"What {colour} is the {phrase}?",
                f"Which {colour} does the {phrase} have?",
                f"Tell me the {colour} of the {phrase}.",
                f"The {phrase} is of what {colour}?",
            ),
        )
        return Question("attribute", text, thing.colour, (index,))
    if kind == "shape":
        text = pick(
            rng,
            (
                f"What shape is the {phrase}?",
                f"What is the shape of the {phrase}?",
                f"Which shape does the {phrase} have?",
                f"Name the shape of the {phrase}.",
            ),
        )
        return Question("attribute", text, thing.shape, (index,))
    text = pick(
        rng,
        (
            f"Is the {phrase} large or small?",
            f"Is the {phrase} small or large?",
            f"What size is the {phrase}, small or large?",
        ),
    )
    return Question("attribute", text, thing.size, (index,))


def _existence(rng: np.random.Generator, scene: Scene) -> Question | None:
    want_yes = bool(rng.random() < 0.5)
    kind = pick(rng, ("both", "both", "colour", "shape"))
    for _ in range(_TRIES):
        wanted = _present(rng, scene) if want_yes else _near_miss(rng, scene)
        keys = ("colour", "shape") if kind == "both" else (kind,)
        found = matching(scene, **{key: wanted[key] for key in keys})
        if bool(found) == want_yes:
            break
    else:
        return None
    noun = wanted["shape"] if "shape" in keys else pick(rng, ("shape", "object", "thing"))
    phrase = f"{wanted['colour']} {noun}" if "colour" in keys else noun
    article = "an" if phrase[0] in "aeiou" else "a"
    text = pick(
        rng,
        (
            f"Is there {article} {phrase}?",
            f"Is there {article} {phrase} in the picture?",
            f"Can you see {article} {phrase}?",
            f"Does the picture show {article} {phrase}?",
        ),
    )
    return Question("existence", text, "yes" if found else "no", found)


def _present(rng: np.random.Generator, scene: Scene) -> dict[str, str]:
    thing = scene.objects[int(rng.integers(len(scene.objects)))]
    return {"colour": thing.colour, "shape": thing.shape}


def _near_miss(rng: np.random.Generator, scene: Scene) -> dict[str, str]:
    """Usually the colour or the shape is somewhere in the picture; whether both are, the caller looks up."""
    colours = [thing.colour for thing in scene.objects] if rng.random() < 0.7 else list(COLOURS)
    shapes = [thing.shape for thing in scene.objects] if rng.random() < 0.7 else list(SHAPES)
    return {"colour": pick(rng, colours), "shape": pick(rng, shapes)}


_PLURALS = {"cross": "crosses"}


def _counting(rng: np.random.Generator, scene: Scene) -> Question | None:
    kind = pick(rng, ("colour", "colour", "shape", "shape", "all", "glyph"))
    if kind == "all":
        found, phrase = tuple(range(len(scene.objects))), pick(rng, ("shapes", "objects", "things"))
    elif kind == "glyph":
        found = tuple(i for i, thing in enumerate(scene.objects) if thing.glyph)
        noun = pick(rng, ("shapes", "objects", "things"))
        phrase = f"{noun} {pick(rng, ('carry', 'have'))} a letter or a digit"
        text = f"How many {phrase}?"
        return Question("counting", text, str(len(found)), found)
    elif kind == "colour":
        # a colour of the scene three times out of four, so that zero does not rule
        present = Counter(thing.colour for thing in scene.objects)
        colour = pick(rng, list(present) if rng.random() < 0.75 else list(COLOURS))
        found, phrase = matching(scene, colour=colour), f"{colour} {pick(rng, ('shapes', 'objects', 'things'))}"
    else:
        present = Counter(thing.shape for thing in scene.objects)
        shape = pick(rng, list(present) if rng.random() < 0.75 else list(SHAPES))
        found, phrase = matching(scene, shape=shape), _PLURALS.get(shape, f"{shape}s")
    if len(found) == 1 and rng.random() < 0.4:  # ones are far too common otherwise
        return None
    text = pick(
        rng,
        (
            f"How many {phrase} are there?",
            f"How many {phrase} can you see?",
            f"Count the {phrase}.",
            f"What is the number of {phrase}?",
        ),
    )
    return Question("counting", text, str(len(found)), found)


def _text(rng: np.random.Generator, scene: Scene) -> Question | None:
    carriers = [i for i, thing in enumerate(scene.objects) if thing.glyph]
    if not carriers:
        return None
    index = carriers[int(rng.integers(len(carriers)))]
    thing = scene.objects[index]
    glyph = thing.glyph or ""
    kind = "digit" if glyph.isdigit() else "letter"
    if rng.random() < 0.7:
        phrase = reference(rng, scene, index, hide="")
        if phrase is None:
            return None
        text = pick(
            rng,
            (
                f"What {kind} is on the {phrase}?",
                f"Which {kind} does the {phrase} carry?",
                f"Which character is written on the {phrase}?",
                f"Read the {kind} on the {phrase}.",
            ),
        )
        return Question("text", text, glyph, (index,))
    colour = colour_word(rng)
    asked = pick(rng, (colour, "shape"))
    text = pick(
        rng,
        (
            f"What {asked} is the object with the {kind} {glyph}?",
            f"Which {asked} carries the {kind} {glyph}?",
            f"The {kind} {glyph} is on what {asked}?",
        ),
    )
    return Question("text", text, thing.shape if asked == "shape" else thing.colour, (index,))


_ASKERS: dict[str, Callable[[np.random.Generator, Scene], Question | None]] = {
    "attribute": _attribute,
    "existence": _existence,
    "counting": _counting,
    "relation": ask_relation,
    "text": _text,
}


def vocabulary() -> list[str]:
    """Every word that an answer can hold; the tokenizer of the embedded model keeps each in one piece."""
    numbers = [str(n) for n in range(13)]
    return [*COLOURS, *SHAPES, *SIZES, *GLYPHS, "yes", "no", "left", "right", "above", "below", *numbers]
