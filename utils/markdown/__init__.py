"""Render Markdown for WeCom's markdown_v2, and as safe HTML for pages."""
