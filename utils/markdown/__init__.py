"""Markdown as WeCom needs it, and as safe HTML for pages."""
