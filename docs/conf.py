"""Sphinx: Markdown pages, and an API page generated from the docstrings."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "varbnn"
release = metadata.version("varbnn")
copyright = "the varbnn authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "plain_docstrings", "api_pages"]
exclude_patterns = ["_build", "_ext"]
suppress_warnings = ["toc.empty_glob"]  # the table of contents names pages by pattern, so a page may come or go
html_theme = "furo"
html_title = "varbnn"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "code"  # `name` in a docstring means code, as in Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source", "Choices", "Shapes"]
