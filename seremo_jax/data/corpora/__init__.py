"""One parser per corpus: its files -> Arrow tables of utterances and ratings.

A parser is `parse(root, *, is_quiet=False, **policies) -> (utterances, ratings)`. The tables begin with the columns of
`schema.UTTERANCE_SCHEMA` and `schema.RATING_SCHEMA`, carry `CorpusInfo` (`tables.info_of`), and say all there is: which
ratings count is decided later. `split` is the official one or empty; `audio` is relative to the root of the audio, or
empty where the corpus gives none; an utterance nobody rated is a row, too. Durations and hashes are left to ingest.
"""

import difflib
import inspect
import os
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from seremo_jax.data.corpora import crema_d, iemocap, msp_improv, msp_podcast, simulated, tabular
from seremo_jax.data.text_lines import CorpusError

PARSERS: dict[str, Callable[..., tuple[pa.Table, pa.Table]]] = {
    "crema_d": crema_d.parse,
    "iemocap": iemocap.parse,
    "msp_improv": msp_improv.parse,
    "msp_podcast": msp_podcast.parse,
    "simulated": simulated.parse,
    "table": tabular.parse,
}
"""Name of a corpus -> its parser."""


def parser_of(name: str) -> Callable[..., tuple[pa.Table, pa.Table]]:
    """The parser of a corpus.

    Raises:
      CorpusError: No corpus has this name; the message gives the nearest one.
    """
    if name not in PARSERS:
        near = difflib.get_close_matches(name, PARSERS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise CorpusError(f"corpus.name = {name!r}: known are {', '.join(sorted(PARSERS))}{hint}")
    return PARSERS[name]


def policies_of(name: str) -> set[str]:
    """Names of the policies a corpus's parser takes."""
    parameters = inspect.signature(parser_of(name)).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY} - {"is_quiet"}


def parse(name: str, root: str | os.PathLike, **policies: Any) -> tuple[pa.Table, pa.Table]:
    """Utterances and ratings of a corpus.

    Args:
      name: Key of `PARSERS`.
      root: Folder of the corpus.
      **policies: Those of the parser (`policies_of`), and `is_quiet`.

    Raises:
      CorpusError: Unknown corpus or policy, or the files are not what the parser understands.
    """
    if unknown := sorted(set(policies) - policies_of(name) - {"is_quiet"}):
        raise CorpusError(f"corpus {name} knows no policy {', '.join(unknown)}")
    return parser_of(name)(root, **policies)
