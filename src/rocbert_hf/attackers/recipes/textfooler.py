"""TextFooler: "Is BERT Really Robust?" (Jin et al., AAAI 2020), brought to Chinese.

Where Chinese or the paper leaves a choice, or we deviate:

- Words are jieba's, and stop words are function words by jieba's tags (`ContentWords`). The paper takes NLTK's list.
- Synonyms come from the packaged thesaurus unless word vectors are given. The thesaurus is small and has nouns and
  adjectives only. The paper takes counter-fitted vectors, for which there is no Chinese counterpart; so words of the
  opposite meaning, which other vectors have among a word's neighbours, are left out by `NoOpposites`.
- Part of speech: the first letter of jieba's tag, or the thesaurus's; one tag in common is enough.
- Sentence similarity: by default the cosine of bags of characters and pairs, which works offline (`character_bags`).
  The paper takes the Universal Sentence Encoder. Threshold and window are those of the authors' code, which moves the
  window inwards near the ends of a text and has nearly no threshold (0.1) for texts of fewer words than the window; here
  the window ends with the text, and the threshold holds for all texts.
- The attacked text is compared with the source, not with the draft before the change, so that small steps do not add
  up to a large one.
- At most `max_share` of the characters are attacked. The paper has no limit.
"""

from __future__ import annotations

from typing import Any

from ..candidates import SynonymWords
from ..constraints import ContentWords, Encoder, NoOpposites, SamePartOfSpeech, SentenceSimilarity
from ..driver import ComposedAttacker
from ..search import GreedyByImportance


class TextFoolerAttacker(ComposedAttacker):
    """Whole words give way to synonyms of the same part of speech, the important words first.

    Args:
        synonyms: None for the packaged thesaurus, word vectors (object or path), a `MaskedLanguageModelSynonyms`, or a
            function; see `SynonymWords`.
        max_candidates: synonyms of a word; N in the paper.
        min_word_similarity: cosine of word vectors; delta in the paper.
        encoder: texts -> vectors, for the sentence similarity; None for `character_bags`.
        min_sentence_similarity: epsilon in the paper.
        window: words around the change that the encoder sees; None for the whole text.
        max_share, query_budget: as for `BlackBoxAttacker`.

    Raises:
        ValueError: a number is out of range, or `synonyms` is none of these. OSError: a file of vectors cannot be read.

    Example::

        >>> TextFoolerAttacker(synonyms="vectors.txt").attack(classifier, Example("房间非常漂亮", label=1))
    """

    name = "textfooler"

    def __init__(
        self,
        synonyms: Any = None,
        max_candidates: int = 50,
        min_word_similarity: float = 0.7,
        encoder: Encoder | None = None,
        min_sentence_similarity: float = 0.7,
        window: int | None = 15,
        max_share: float = 0.2,
        query_budget: int | None = 2000,
    ):
        similarity = SentenceSimilarity(encoder, min_sentence_similarity, window)
        super().__init__(
            self.name,
            transformation=SynonymWords(synonyms, max_candidates, min_word_similarity),
            constraints=[ContentWords(), SamePartOfSpeech(), NoOpposites(), similarity],
            search=GreedyByImportance(similarity),
            max_share=max_share,
            query_budget=query_budget,
        )
