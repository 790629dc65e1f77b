"""How the pages are built: `sphinx-build -W docs docs/build`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]

import aimc_sim  # noqa: E402

project = "aimc-sim"
author = "The aimc-sim authors"
copyright = "the aimc-sim authors, MIT licence"
release = version = aimc_sim.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "docstrings",
    "generated",
    "mathml",
]
exclude_patterns = ["build", "extensions"]
templates_path: list[str] = []
html_theme = "furo"
html_title = f"aimc-sim {release}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 4
# notebooks carry their outputs; a test executes them
nb_execution_mode = "off"
nb_merge_streams = True
highlight_language = "none"
default_role = "code"
smartquotes = False  # -- is an option, not a dash

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
toc_object_entries = False
