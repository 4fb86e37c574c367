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
from dataclasses import dataclass

import numpy as np

from grip_edge.calibration.scenes.scene import COLOURS, GLYPHS, SHAPES, SIZES, Scene, SceneObject

SKILLS = ("attribute", "existence", "counting", "relation", "text")

_MIN_GAP = 0.10  # how far apart two objects must lie, in image sides, for "left" or "above" to be beyond doubt
_TRIES = 12


@dataclass(frozen=True)
class Question:
    skill: str
    text: str
    answer: str
    objects: tuple[int, ...]


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


def _pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _colour_word(rng: np.random.Generator) -> str:
    return _pick(rng, ("colour", "color"))


def _reference(rng: np.random.Generator, scene: Scene, index: int, hide: str) -> str | None:
    """A noun phrase that fits object ``index`` alone and does not give away its ``hide`` attribute."""
    thing = scene.objects[index]
    candidates: list[tuple[str, tuple[str, ...]]] = []
    if hide != "colour":
        candidates.append((f"{thing.colour} {_pick(rng, ('shape', 'object', 'thing'))}", ("colour",)))
    if hide != "shape":
        candidates.append((thing.shape, ("shape",)))
    if hide not in ("colour", "shape"):
        candidates.append((thing.name, ("colour", "shape")))
    if hide not in ("size", "shape"):
        candidates.append((f"{thing.size} {thing.shape}", ("size", "shape")))
    unique = [phrase for phrase, keys in candidates if _count(scene, **{k: getattr(thing, k) for k in keys}) == 1]
    return _pick(rng, unique) if unique else None


def _count(scene: Scene, **wanted: str) -> int:
    return len(_matching(scene, **wanted))


def _matching(scene: Scene, **wanted: str) -> tuple[int, ...]:
    return tuple(
        i for i, thing in enumerate(scene.objects) if all(getattr(thing, key) == value for key, value in wanted.items())
    )


def _attribute(rng: np.random.Generator, scene: Scene) -> Question | None:
    index = int(rng.integers(len(scene.objects)))
    thing = scene.objects[index]
    kind = _pick(rng, ("colour", "colour", "shape", "shape", "size"))
    phrase = _reference(rng, scene, index, hide=kind)
    if phrase is None:
        return None
    if kind == "colour":
        colour = _colour_word(rng)
        text = _pick(
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
        text = _pick(
            rng,
            (
                f"What shape is the {phrase}?",
                f"What is the shape of the {phrase}?",
                f"Which shape does the {phrase} have?",
                f"Name the shape of the {phrase}.",
            ),
        )
        return Question("attribute", text, thing.shape, (index,))
    text = _pick(
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
    kind = _pick(rng, ("both", "both", "colour", "shape"))
    for _ in range(_TRIES):
        wanted = _present(rng, scene) if want_yes else _near_miss(rng, scene)
        keys = ("colour", "shape") if kind == "both" else (kind,)
        found = _matching(scene, **{key: wanted[key] for key in keys})
        if bool(found) == want_yes:
            break
    else:
        return None
    noun = wanted["shape"] if "shape" in keys else _pick(rng, ("shape", "object", "thing"))
    phrase = f"{wanted['colour']} {noun}" if "colour" in keys else noun
    article = "an" if phrase[0] in "aeiou" else "a"
    text = _pick(
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
    return {"colour": _pick(rng, colours), "shape": _pick(rng, shapes)}


_PLURALS = {"cross": "crosses"}


def _counting(rng: np.random.Generator, scene: Scene) -> Question | None:
    kind = _pick(rng, ("colour", "colour", "shape", "shape", "all", "glyph"))
    if kind == "all":
        found, phrase = tuple(range(len(scene.objects))), _pick(rng, ("shapes", "objects", "things"))
    elif kind == "glyph":
        found = tuple(i for i, thing in enumerate(scene.objects) if thing.glyph)
        noun = _pick(rng, ("shapes", "objects", "things"))
        phrase = f"{noun} {_pick(rng, ('carry', 'have'))} a letter or a digit"
        text = f"How many {phrase}?"
        return Question("counting", text, str(len(found)), found)
    elif kind == "colour":
        # a colour of the scene three times out of four, so that zero does not rule
        present = Counter(thing.colour for thing in scene.objects)
        colour = _pick(rng, list(present) if rng.random() < 0.75 else list(COLOURS))
        found, phrase = _matching(scene, colour=colour), f"{colour} {_pick(rng, ('shapes', 'objects', 'things'))}"
    else:
        present = Counter(thing.shape for thing in scene.objects)
        shape = _pick(rng, list(present) if rng.random() < 0.75 else list(SHAPES))
        found, phrase = _matching(scene, shape=shape), _PLURALS.get(shape, f"{shape}s")
    if len(found) == 1 and rng.random() < 0.4:  # ones are far too common otherwise
        return None
    text = _pick(
        rng,
        (
            f"How many {phrase} are there?",
            f"How many {phrase} can you see?",
            f"Count the {phrase}.",
            f"What is the number of {phrase}?",
        ),
    )
    return Question("counting", text, str(len(found)), found)


def _side(thing: SceneObject, other: SceneObject) -> str | None:
    """Where ``thing`` lies as seen from ``other``; None where it is not clear-cut."""
    dx, dy = thing.x - other.x, thing.y - other.y
    if max(abs(dx), abs(dy)) < _MIN_GAP or not (abs(dx) > 1.5 * abs(dy) or abs(dy) > 1.5 * abs(dx)):
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_SIDE_PHRASE = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def _relation(rng: np.random.Generator, scene: Scene) -> Question | None:
    if rng.random() < 0.3:
        return _outermost(rng, scene)
    if len(scene.objects) < 2:
        return None
    first, second = (int(i) for i in rng.choice(len(scene.objects), size=2, replace=False))
    side = _side(scene.objects[first], scene.objects[second])
    a, b = _reference(rng, scene, first, hide=""), _reference(rng, scene, second, hide="")
    if side is None or a is None or b is None:
        return None
    if rng.random() < 0.5:
        text = _pick(
            rng,
            (
                f"Where is the {a}, seen from the {b}: left, right, above or below?",
                f"Is the {a} left, right, above or below the {b}?",
                f"On which side of the {b} is the {a}?",
            ),
        )
        return Question("relation", text, side, (first, second))
    asked = side if rng.random() < 0.5 else _OPPOSITE[side]
    text = _pick(
        rng, (f"Is the {a} {_SIDE_PHRASE[asked]} the {b}?", f"Does the {a} lie {_SIDE_PHRASE[asked]} the {b}?")
    )
    return Question("relation", text, "yes" if asked == side else "no", (first, second))


_EXTREMES: dict[str, Callable[[SceneObject], float]] = {
    "leftmost": lambda thing: thing.x,
    "rightmost": lambda thing: -thing.x,
    "topmost": lambda thing: thing.y,
    "lowest": lambda thing: -thing.y,
}


def _outermost(rng: np.random.Generator, scene: Scene) -> Question | None:
    word = _pick(rng, tuple(_EXTREMES))
    ranked = sorted(range(len(scene.objects)), key=lambda i: _EXTREMES[word](scene.objects[i]))
    places = [_EXTREMES[word](scene.objects[i]) for i in ranked]
    if len(places) > 1 and places[1] - places[0] < _MIN_GAP:
        return None
    noun = _pick(rng, ("shape", "object", "thing"))
    text = _pick(rng, (f"What is the {word} {noun}?", f"Which {noun} is the {word} one?", f"Name the {word} {noun}."))
    return Question("relation", text, scene.objects[ranked[0]].name, tuple(ranked))


def _text(rng: np.random.Generator, scene: Scene) -> Question | None:
    carriers = [i for i, thing in enumerate(scene.objects) if thing.glyph]
    if not carriers:
        return None
    index = carriers[int(rng.integers(len(carriers)))]
    thing = scene.objects[index]
    glyph = thing.glyph or ""
    kind = "digit" if glyph.isdigit() else "letter"
    if rng.random() < 0.7:
        phrase = _reference(rng, scene, index, hide="")
        if phrase is None:
            return None
        text = _pick(
            rng,
            (
                f"What {kind} is on the {phrase}?",
                f"Which {kind} does the {phrase} carry?",
                f"Which character is written on the {phrase}?",
                f"Read the {kind} on the {phrase}.",
            ),
        )
        return Question("text", text, glyph, (index,))
    colour = _colour_word(rng)
    asked = _pick(rng, (colour, "shape"))
    text = _pick(
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
    "relation": _relation,
    "text": _text,
}


def vocabulary() -> list[str]:
    """Every word that an answer can hold; the tokenizer of the embedded model keeps each in one piece."""
    numbers = [str(n) for n in range(13)]
    return [*COLOURS, *SHAPES, *SIZES, *GLYPHS, "yes", "no", "left", "right", "above", "below", *numbers]
