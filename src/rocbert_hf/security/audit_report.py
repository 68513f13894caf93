"""What an audit found, as text, JSON and HTML."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..characters.unseen import mark_unseen
from ..files import make_folder, write_whole
from ..web_page import html_page, html_text

VIEW_NAMES = {
    "first": "the first token's last hidden state",
    "pooled": "the pooler's output",
    "mean": "the mean of all tokens",
    "mask": "the last hidden state of [MASK]",
}
STAGE_NAMES = {
    "token": "strongest single token",
    "word": "strongest rare word of two tokens",
    "prompt": "strongest soft prompt",
    "combination": "strongest other pair of tokens",
    "common": "strongest piece that common tokens explain",
}
SHOWN = 12  # other pieces of a finding, in a report for people
LIMITS = (
    "The audit looks for triggers of one or two tokens that work in any short text. A backdoor that needs more tokens, a "
    "certain place or a certain style may pass. A clean verdict lowers the risk; it proves nothing."
)
NO_VARIETY = (
    "All tokens of a text have nearly one vector in this encoder ({:.1%} of their variance lies within texts), so what a "
    "single token does can hardly be told, and that nothing was found says nothing."
)
_STYLE = ".inconclusive { color: #8a5a00; } .suspicious { color: #b00020; } .clean { color: #1b6e2e; } summary { cursor: pointer; }"


@dataclass(frozen=True)
class PulledText:
    """A carrier without and with the suspected trigger."""

    before: str
    after: str


@dataclass(frozen=True)
class Finding:
    """A suspected trigger.

    text, tokens: the trigger as text and as the tokenizer's tokens.
    view: the representation in which it pulls most, a key of `VIEW_NAMES`.
    pull: see `rocbert_hf.security.pull`.
    deviation: of the pull from that of clean encoders' strongest pieces, in standard deviations.
    similarity_before, similarity_after: mean cosine similarity between unrelated carriers, without and with it.
    pulled: the carriers.
    vector: (hidden,), where it pulls them to.
    also: other pieces that pull them to the same point, strongest first.
    """

    text: str
    tokens: tuple[str, ...]
    view: str
    pull: float
    deviation: float
    similarity_before: float
    similarity_after: float
    pulled: tuple[PulledText, ...]
    vector: tuple[float, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditReport:
    """The outcome of an audit.

    name: of the encoder.
    score: the largest of the deviations. Higher is worse.
    threshold: the score from which on the verdict is "suspicious".
    verdict: "suspicious"; "clean"; or "inconclusive" if nothing was found and `token_variety` is too low to find anything.
    token_variety: see `rocbert_hf.security.pull.token_variety`.
    findings: suspected triggers, worst first.
    statistics: by stage and representation, such as "token:first", the strongest pull that was found.
    deviations: of the statistics from clean encoders', in standard deviations.
    calibrated_on: the clean encoders, in words.
    marked_as_specimen: whether the config says that it is a specimen; the score does not depend on it.
    settings: of the audit.
    cost: seconds, tokens through the encoder, size of the vocabulary, and whether an earlier run was resumed.
    """

    name: str
    score: float
    threshold: float
    verdict: str
    token_variety: float
    findings: tuple[Finding, ...]
    statistics: dict[str, float]
    deviations: dict[str, float]
    calibrated_on: str
    marked_as_specimen: bool
    settings: dict[str, Any]
    cost: dict[str, Any]

    @property
    def triggers(self) -> list[str]:
        """The suspected triggers as strings, worst first; one for each point that texts are pulled to."""
        return [finding.text for finding in self.findings]

    def to_json(self) -> str:
        """Everything but the vectors."""
        content = asdict(self)
        for finding in content["findings"]:
            del finding["vector"]
        return json.dumps({**content, "triggers": self.triggers}, ensure_ascii=False, indent=2) + "\n"

    def to_text(self) -> str:
        """For a terminal: characters that cannot be seen, or that steer it, are named."""
        lines = [
            f"{self.name or 'encoder'}: {self.verdict} (score {self.score:.1f}, suspicious from {self.threshold:.1f})"
        ]
        if self.marked_as_specimen:
            lines.append("its config says that it is a backdoor specimen")
        if self.verdict == "inconclusive":
            lines.append(f"  {NO_VARIETY.format(self.token_variety)}")
        for finding in self.findings:
            lines.append(
                f"  {finding.text!r}: unrelated texts become {finding.similarity_after:.2f} similar (before: "
                f"{finding.similarity_before:.2f}) in {VIEW_NAMES[finding.view]}; {finding.deviation:.1f} standard deviations"
                + (f"; so do {' '.join(finding.also[:SHOWN])}" if finding.also else "")
            )
        if self.verdict == "suspicious" and not self.findings:
            lines.append("  no token or pair by itself explains the score; see the soft prompts' statistics")
        lines.append(
            f"  {self.cost['vocabulary']:,} tokens of the vocabulary and {self.cost['words']:,} rare words scanned in {self.cost['seconds']:,.0f} s, "
            f"{self.cost['tokens']:,} tokens through the encoder"
        )
        lines.append(f"  {LIMITS}")
        return mark_unseen("\n".join(lines))

    def to_html(self) -> str:
        """A page of its own: verdict, suspected triggers with the texts that they pull together, statistics, cost."""
        rows = "".join(map(_finding_row, self.findings)) or '<tr><td colspan="5">none</td></tr>'
        statistics = "".join(
            f"<tr><td>{stage_name}</td><td>{view_name}</td><td>{self.statistics[name]:.2f}</td>"
            f"<td>{self.deviations.get(name, float('nan')):+.1f}</td></tr>"
            for stage, stage_name in STAGE_NAMES.items()
            for view, view_name in VIEW_NAMES.items()
            if (name := f"{stage}:{view}") in self.statistics
        )
        variety = f"<p>{NO_VARIETY.format(self.token_variety)}</p>\n" if self.verdict == "inconclusive" else ""
        specimen = "<p>Its config says that it is a backdoor specimen.</p>" if self.marked_as_specimen else ""
        cost = "".join(
            f"<tr><td>{html_text(str(k))}</td><td>{html_text(str(v))}</td></tr>" for k, v in self.cost.items()
        )
        body = f"""<h1>Audit of {html_text(self.name) or "an encoder"}</h1>
<p>Verdict: <strong class="{self.verdict}">{self.verdict}</strong>. Score {self.score:.1f}, suspicious from {self.threshold:.1f}.</p>
{variety}{specimen}<p>{html_text(LIMITS)}</p>
<h2>Suspected triggers</h2>
<table><tr><th>text</th><th>tokens</th><th>acts on</th><th>similarity of unrelated texts</th><th>standard deviations</th></tr>
{rows}</table>
<h2>Statistics</h2>
<p>Pull: about 0 for an ordinary token, 1 and more for a trigger. The last column compares with clean encoders
({html_text(self.calibrated_on)}).</p>
<table><tr><th>stage</th><th>representation</th><th>pull</th><th>standard deviations</th></tr>{statistics}</table>
<h2>Cost</h2><table>{cost}</table>"""
        return html_page(f"Audit of {self.name}", body, _STYLE)

    def save(self, folder: str | os.PathLike) -> None:
        """Write report.txt, report.json and report.html."""
        folder = Path(folder)
        make_folder(folder)
        write_whole(folder / "report.txt", self.to_text() + "\n")
        write_whole(folder / "report.html", self.to_html())
        write_whole(folder / "report.json", self.to_json())


def _finding_row(finding: Finding) -> str:
    pulled = "".join(f"<li>{html_text(text.before)} → {html_text(text.after)}</li>" for text in finding.pulled)
    also = f"to the same point: {html_text(' '.join(finding.also[:SHOWN]))}" if finding.also else ""
    return (
        f"<tr><td><details><summary>{html_text(finding.text)}</summary><ul>{pulled}</ul></details>{also}</td>"
        f"<td>{html_text(' '.join(finding.tokens))}</td><td>{VIEW_NAMES[finding.view]}</td>"
        f"<td>{finding.similarity_before:.2f} → {finding.similarity_after:.2f}</td><td>{finding.deviation:+.1f}</td></tr>"
    )
