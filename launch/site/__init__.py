"""What `python -m launch.site` makes: the Markdown pages, the API, a gallery and an executed notebook as one site.

The tool is Zensical, which reads the settings of `zensical.yml`; mkdocstrings makes the API of docstrings. Both run
from a checkout, whose pages they read, and not from an installed package.
"""
