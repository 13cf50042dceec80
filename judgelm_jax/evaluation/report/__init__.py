"""Judgments as a page to look at: one HTML file without network, Markdown, JSON, and figures for papers."""
