"""Cuts texts into stretches of whole sentences that fit a model."""

import re

SENTENCE = re.compile(r"[^。！？!?…；;\n]*[。！？!?…；;\n]*[”’」』）)]*")  # up to its end marks and closing quotes
CLAUSE = re.compile(r"[^，,、：:\s]*[，,、：:\s]*")


def split_sentences(text: str, max_length: int) -> list[str]:
    """Cut a text into stretches of whole sentences, each at most `max_length` characters.

    Short texts come back whole: neighbouring sentences stay together as long as they fit, which is how the text is
    packed into the model's length. A sentence that is too long is cut after a comma or space, and where there is none,
    at `max_length`. Joined, the pieces give the text back but for white space at their ends.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1 character, got {max_length}")
    text = text.strip()
    if len(text) <= max_length:
        return [text] if text else []
    pieces = []
    for sentence in SENTENCE.findall(text):
        clauses = [sentence] if len(sentence) <= max_length else CLAUSE.findall(sentence)
        for clause in clauses:
            pieces += [clause[i : i + max_length] for i in range(0, len(clause), max_length)]
    packed = [""]
    for piece in pieces:
        if len(packed[-1]) + len(piece) <= max_length:
            packed[-1] += piece
        else:
            packed.append(piece)
    return [stripped for stretch in packed if (stripped := stretch.strip())]
