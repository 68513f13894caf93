"""Pages show text of others as text, and load nothing from elsewhere."""

from rocbert_hf.web_page import html_page, html_text


def test_html_shows_markup_as_text_and_names_what_is_unseen():
    assert html_text('<b>"\u202e&') == "&lt;b&gt;&quot;&lt;U+202E&gt;&amp;"


def test_a_page_has_its_title_body_and_style_and_needs_nothing_else():
    page = html_page("</title><script>", "<p>{科比}</p>", "p { color: red; }", language="zh")
    assert page.startswith('<!DOCTYPE html>\n<html lang="zh">')
    assert "<title>&lt;/title&gt;&lt;script&gt;</title>" in page
    assert "<p>{科比}</p>" in page
    assert page.index("p { color: red; }") > page.index("body {")  # a page's own rules win
    assert not {"<script", "http:", "https:", "src="} & set(page.split())
