"""All cases, kind after kind."""

import os
from pathlib import Path

from tests.support.house import ROOT
from tests.system.bad_inputs import Case, artefacts, corpora, recordings, settings


def cases() -> list[Case]:
    """Every case; the shared recordings take part where their folder is there."""
    shared = Path(os.environ.get("SEREMO_SHARED") or ROOT.parent / "shared")
    with_shared = shared if (shared / "cases").is_dir() else None
    return [*settings.cases(), *corpora.cases(), *recordings.cases(with_shared), *artefacts.cases()]
