"""A workdir and a model folder that were made before the package had rooms go on working, with the same numbers.

`tests/golden/before_rooms` was made by the launchers from ingest to export at commit 80a60d7, on the settings below.
"""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from configs import simulated
from seremo_jax import predict
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import from_config_dict
from seremo_jax.evaluation import evaluate, records

pytestmark = pytest.mark.stack

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "before_rooms"
# What `predict.load` of that version said of `_wave()`.
DISTRIBUTION = {
    "angry": 0.1692338574452997, "disgust": 0.16254170922070266, "fear": 0.17089441739281394,
    "happy": 0.16500565216800506, "neutral": 0.16485301028833332, "sad": 0.1674713534848453,
}  # fmt: skip
ATTRIBUTES = {"valence": 3.8036020398139954, "activation": 4.633936993777752, "dominance": 4.139372497797012}


def _config():
    config = simulated.get_config("tiny")
    config.corpus.num_speakers, config.corpus.utterances_per_speaker = 6, 1
    config.model.gru_units = config.model.embedding_size = 8
    config.train.max_epochs = 1
    config.eval.num_resamples = config.eval.num_permutations = 20
    return from_config_dict(config)


def _wave():
    t = np.arange(24_000) / 16_000
    tone = np.sin(2 * np.pi * (180 + 40 * np.sin(2 * np.pi * 3 * t)) * t)
    return (0.1 * tone * (1 + np.sin(2 * np.pi * 4 * t)) / 2).astype(np.float32)


@pytest.fixture
def workdir(tmp_path):
    return Path(shutil.copytree(GOLDEN / "workdir", tmp_path / "workdir"))


def test_both_predict_what_they_predicted(workdir):
    for model in (predict.load(workdir, members=["layer00-votes-*"]), predict.load(GOLDEN / "model")):
        result = model(_wave(), 16_000)
        for name, share in DISTRIBUTION.items():
            assert result.distribution[name] == pytest.approx(share, abs=1e-6)
        for name, value in ATTRIBUTES.items():
            assert result.attributes[name] == pytest.approx(value, abs=1e-4)


def test_it_is_evaluated_to_the_predictions_it_had(workdir):
    (workdir / "results.jsonl").unlink()
    name = Path("predictions") / "test_clean.parquet"
    before = pq.read_table(workdir / name)
    (workdir / name).unlink()
    evaluate.run(_config(), workdir, is_quiet=True)
    after = pq.read_table(workdir / name)
    assert after.column_names == before.column_names
    for column in before.column_names:
        old, new = before[column].to_pylist(), after[column].to_pylist()
        if isinstance(old[0], float):
            np.testing.assert_allclose(new, old, rtol=0, atol=1e-6)
        elif isinstance(old[0], list):
            np.testing.assert_allclose(np.array(new, float), np.array(old, float), rtol=0, atol=1e-6)
        else:
            assert new == old, column
    assert records.read(workdir / "results.jsonl")


def test_its_result_records_are_refused_with_what_to_run(workdir):
    with pytest.raises(ArtefactError, match=r"results\.jsonl:1 .*python -m launch\.evaluate"):
        records.read(workdir / "results.jsonl")
