"""Sphinx's configuration. `make docs` builds the pages into docs/_build/html, without network access."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks for news when autodoc imports it

from fer_voting import __version__  # noqa: E402

project = "fer_voting"
author = "the authors of fer_voting"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "generated_pages"]
exclude_patterns = ["_build", "_ext"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # recorded tables begin with headings of their own

default_role = "code"  # docstrings write names between single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"no-value": True}
autodoc_preserve_defaults = True
add_module_names = False
autodoc_inherit_docstrings = False  # what Lightning says of its hooks needs Lightning's own pages
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Returns", "params_style")]  # of several named values

html_theme = "furo"
html_title = f"fer_voting {version}"
html_static_path = ["_static"]
html_css_files = ["fer_voting.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
