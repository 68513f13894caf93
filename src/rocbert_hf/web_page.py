"""HTML pages that need nothing from elsewhere: what they share, and text of others made safe to show in them."""

from __future__ import annotations

import html

from .characters.unseen import mark_unseen

_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.55 "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #222;
        max-width: 62em; margin: 2em auto; padding: 0 1.2em; }}
h1 {{ font-size: 1.6em; }} h2 {{ font-size: 1.3em; margin-top: 2.2em; border-bottom: 2px solid #ddd; }}
table {{ border-collapse: collapse; font-size: .88em; }}
th, td {{ padding: .3em .9em .3em 0; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top; }}
th {{ border-bottom: 2px solid #999; }}
td.number {{ font-variant-numeric: tabular-nums; white-space: nowrap; }}
ruby.edit {{ font-weight: 600; margin: 0 1px; border-bottom: 2px solid currentcolor; cursor: help; }}
rt {{ font-size: .6em; font-weight: 400; color: #777; }}
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def html_text(text: str) -> str:
    """Any text as HTML shows it: nothing in it is markup, and what cannot be seen is named as by `mark_unseen`."""
    return html.escape(mark_unseen(text))


def html_page(title: str, body: str, style: str = "", language: str = "en") -> str:
    """A page as one string.

    Args:
        title: plain text.
        body: HTML.
        style: CSS rules of this page, which may override those that all pages share.
        language: of the page, a code such as "zh".
    """
    return _PAGE.format(title=html_text(title), body=body, style=style.strip(), language=language)
