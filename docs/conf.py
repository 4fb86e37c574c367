"""Settings of the documentation site:  make docs  builds it, warnings are errors, nothing is fetched from anywhere."""

from __future__ import annotations

from grip_edge import __version__

project = "grip-edge"
release = version = __version__
copyright = ""  # noqa: A001  Sphinx's own name; the licence stands in the repository

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
highlight_language = "text"
# Two hyphens are the start of an option here, not a dash.
smartquotes = False

# Headings down to this level are link targets (page.md#heading), which the strict build checks.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"ImageSource": "ImageSource"}
python_use_unqualified_type_names = True
# A signature with many arguments takes one line for each.
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"grip-edge {__version__}"
html_show_copyright = False
html_show_sphinx = False
