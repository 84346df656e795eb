"""Sphinx: Markdown pages, and an API page generated from the docstrings."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "varbnn"
release = metadata.version("varbnn")
copyright = "the varbnn authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "plain_docstrings", "generated_lists"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = "varbnn"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {"light_css_variables": {"code-font-size": "75%"}}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "code"  # `name` in a docstring means code, as in Markdown
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # otherwise torch explains forward() on every layer
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source", "Choices", "Shapes"]
