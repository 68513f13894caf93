"""AttackedText: whatever an attack did, labels, words and spans follow the characters."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocbert_hf.attacks.attacked_text import AttackedText, Edit

PER = ["B-PER", "E-PER"]


@st.composite
def attacked_texts(draw):
    """Any source with any non-overlapping edits, insertions and deletions among them."""
    source, text, edits = "", "", []
    for same, before, after in draw(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=3), st.text(max_size=4)))):
        source, text = source + same, text + same
        if before or after:
            edits.append(Edit((len(source), len(source + before)), (len(text), len(text + after)), ("x",)))
        source, text = source + before, text + after
    return AttackedText(source, text, tuple(edits))


@given(attacked_texts())
def test_pieces_tile_both_strings(attacked):
    pieces = list(attacked.pieces())
    assert "".join(before for before, _, _ in pieces) == attacked.source
    assert "".join(after for _, after, _ in pieces) == attacked.text
    assert tuple(edit for _, _, edit in pieces if edit) == attacked.edits


@given(attacked_texts())
def test_revert_gives_the_source_back(attacked):
    assert attacked.revert() == attacked.source
    assert attacked.revert([]) == attacked.text


@given(attacked_texts())
def test_dict_survives_json(attacked):
    assert AttackedText.from_dict(json.loads(json.dumps(attacked.to_dict()))) == attacked


@given(attacked_texts())
def test_boundaries_are_monotonic_and_reach_both_ends(attacked):
    boundaries = attacked.boundaries
    assert len(boundaries) == len(attacked.source) + 1
    assert list(boundaries) == sorted(boundaries)
    if attacked.source:
        assert (boundaries[0], boundaries[-1]) == (0, len(attacked.text))


@given(attacked_texts(), st.data())
def test_aligned_words_tile_the_text(attacked, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(attacked.source) - 1)))))
    edges = [0, *[cut for cut in cuts if cut < len(attacked.source)], len(attacked.source)]
    words = [attacked.source[start:end] for start, end in itertools.pairwise(edges)]
    aligned = attacked.align_words(words)
    assert len(aligned) == len(words)
    if attacked.source:
        assert "".join(aligned) == attacked.text


def is_valid(tags, scheme):
    """Whether a tag sequence is well-formed by the rules of its scheme."""
    middle = {"BIO": "I", "BMES": "M", "BIOES": "I"}[scheme]
    for previous, tag in zip(["O", *tags], [*tags, "O"], strict=True):
        inside = previous[0] in ("B", middle) and previous != "O"
        goes_on = tag[0] in ((middle,) if scheme == "BIO" else (middle, "E")) and tag != "O"
        if scheme == "BIO":
            if goes_on and (previous == "O" or previous[2:] != tag[2:]):
                return False
        elif inside != goes_on or (goes_on and previous[2:] != tag[2:]):
            return False
    return True


def tags_of(sizes, scheme):
    """A valid tag sequence from chunk sizes; negative ones are outside."""
    middle = {"BIO": "I", "BMES": "M", "BIOES": "I"}[scheme]
    tags = []
    for number, size in enumerate(sizes):
        if size < 0:
            tags += ["O"] * -size
        else:
            kinds = ["B"] + [middle] * (size - 1)
            if scheme != "BIO":
                kinds[-1] = "E" if size > 1 else "S"
            tags += [f"{kind}-{'PER' if number % 2 else 'LOC'}" for kind in kinds]
    return tags


@given(attacked_texts(), st.sampled_from(["BIO", "BMES", "BIOES"]), st.data())
def test_labels_stay_valid_under_any_edits(attacked, scheme, data):
    sizes, left = [], len(attacked.source)
    while left:
        size = data.draw(st.integers(1, left))
        sizes.append(size * data.draw(st.sampled_from([-1, 1])))
        left -= size
    tags = tags_of(sizes, scheme)
    assert is_valid(tags, scheme)
    aligned = attacked.align_labels(tags, scheme=scheme)
    assert len(aligned) == len(attacked.text)
    assert is_valid(aligned, scheme)
    if not attacked.edits:
        assert aligned == tags


def test_parts_of_a_split_character_inherit_its_tag():
    attacked = AttackedText("科比的", "禾斗比的", (Edit((0, 1), (0, 2), ("split",)),))
    assert attacked.align_labels([*PER, "O"]) == ["B-PER", "M-PER", "E-PER", "O"]
    assert attacked.align_labels(["B-PER", "I-PER", "O"]) == ["B-PER", "I-PER", "I-PER", "O"]
    assert attacked.align_labels([*PER, "O"], scheme="BIOES") == ["B-PER", "I-PER", "E-PER", "O"]
    assert attacked.align_labels(["S-A", "S-B", "O"]) == ["B-A", "E-A", "S-B", "O"]
    assert attacked.align_labels([7, 8, 0]) == [7, 7, 8, 0]


def test_entity_still_begins_with_b_when_its_first_character_is_deleted():
    attacked = AttackedText("见科比", "见比", (Edit((1, 2), (1, 1), ("delete",)),))
    assert attacked.align_labels(["O", *PER]) == ["O", "S-PER"]
    assert attacked.align_labels(["O", "B-PER", "I-PER"]) == ["O", "B-PER"]


def test_integer_labels_with_names_are_kept_valid():
    attacked = AttackedText("科比", "禾斗比", (Edit((0, 1), (0, 2), ("split",)),))
    names = ["O", "B-PER", "M-PER", "E-PER", "S-PER"]
    assert attacked.align_labels([1, 3], names=names) == [1, 2, 3]


def test_spans_follow_the_text():
    attacked = AttackedText(
        "我爱科比", "我爱kebi", (Edit((2, 3), (2, 4), ("to_pinyin",)), Edit((3, 4), (4, 6), ("to_pinyin",)))
    )
    start, end = attacked.span_in_text(2, 4)
    assert attacked.text[start:end] == "kebi"


@pytest.mark.parametrize(
    "edits",
    [
        (Edit((0, 1), (0, 1), ("x",)), Edit((0, 1), (0, 1), ("x",))),
        (Edit((1, 0), (0, 1), ("x",)),),
        (Edit((2, 3), (2, 3), ("x",)),),
        (Edit((0, 9), (0, 9), ("x",)),),
        (),
    ],
)
def test_edits_that_do_not_tile_are_refused(edits):
    with pytest.raises(ValueError, match="edits"):
        AttackedText("科比好", "颗比坏", edits)


def test_bad_arguments_are_named():
    attacked = AttackedText("科比", "颗比", (Edit((0, 1), (0, 1), ("phonetic",)),))
    with pytest.raises(ValueError, match="labels"):
        attacked.align_labels(["O"])
    with pytest.raises(ValueError, match="scheme"):
        attacked.align_labels(["O", "O"], scheme="IOB9")
    with pytest.raises(ValueError, match="words"):
        attacked.align_words(["科"])
    with pytest.raises(ValueError, match="start and end"):
        attacked.span_in_text(1, 5)
    with pytest.raises(ValueError, match="record"):
        AttackedText.from_dict({"source": "科比"})


def test_html_is_escaped_and_names_the_attacks():
    attacked = AttackedText("<b>科", "<b>颗<", (Edit((3, 4), (3, 5), ("phonetic", "insert")),))
    html = attacked.to_html()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert "phonetic, insert" in html
    assert "科" in html


def test_rich_rendering_shows_source_and_attacks():
    from rich.console import Console

    attacked = AttackedText(
        "科比", "科\u200b", (Edit((0, 1), (0, 2), ("zero_width",)), Edit((1, 2), (2, 2), ("delete",)))
    )
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(attacked)
    assert captured.get().strip() == "科<U+200B>[科:zero_width]∅[比:delete]"
