"""Models adapted to one speaker: enrolled, saved, read with the same model, and what they then say."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.evaluation.prototypes import Prototypes
from seremo_jax.metrics import class_priors
from seremo_jax.metrics.prototypes import class_means
from seremo_jax.predict import files, model_folder, predictor, speakers
from tests.support import launchers, prepared
from tests.support.small_heads import CLASSES, make

E, SIZE = 2, 5


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model with prototypes, the same without them, another one, and recordings of one speaker."""
    root = tmp_path_factory.mktemp("speakers")
    rng = np.random.default_rng(0)
    label = np.arange(30) % 3
    means = [class_means(0.3 * rng.normal(size=(30, SIZE)) + label[:, None], np.eye(3)[label]) for _ in range(E)]
    known = Prototypes(rng.dirichlet(np.full(3, 5.0), E), tuple(means))
    model = make(num_members=E, threshold=0.3, temperature=1.5)
    model_folder.write(model._replace(prototypes=known), root / "model")
    model_folder.write(model, root / "plain")
    other = model.about | {"checkpoint": "other"}
    model_folder.write(model._replace(about=other, prototypes=known), root / "other")
    (root / "heard").mkdir()
    for i in range(5):
        tone = np.sin(2 * np.pi * (110 + 60 * i) * np.arange(8_000 + 1_000 * i) / 16_000)
        soundfile.write(root / "heard" / f"r{i}.wav", 0.2 * tone + 0.05 * rng.normal(size=len(tone)), 16_000)
    return root, known


@pytest.fixture(scope="module")
def model(folders):
    return predictor.load(folders[0] / "model")


def labelled(folders, to, lines=("r0.wav,angry", "r1.wav,Sadness", "r2.wav,angry")):
    shutil.copytree(folders[0] / "heard", to)
    (to / "labels.csv").write_text("\n".join(("file,class", *lines)) + "\n")
    return to


def test_what_an_enrolled_model_says_is_the_ratio_of_densities_on_its_own_embedding(folders, model, tmp_path):
    _, known = folders
    folder = labelled(folders, tmp_path / "in")
    speaker = speakers.enrol(model, folder, kappa=1.5, weight=0.5)
    assert speaker.counts == {"angry": 2, "sad": 1}
    heard = model.files([folder / f"r{i}.wav" for i in range(5)], with_embedding=True)
    speakers.write(tmp_path / "anna.json", speaker)
    after = model.for_speaker(speakers.read(tmp_path / "anna.json", model.about))
    results = after.files([folder / "r3.wav", folder / "r4.wav"])
    # The model itself is as it was.
    assert model.file(folder / "r0.wav").distribution == pytest.approx(heard[0].distribution, abs=1e-6)
    for result, before in zip(results, heard[3:], strict=True):
        shares = []
        for e in range(E):
            means = known.means[e]
            vectors = [np.asarray(item.embedding[e], float) for item in heard]
            own = means.mean.copy()
            own[0] = (vectors[0] + vectors[2] + 1.5 * means.mean[0]) / 3.5
            own[1] = (vectors[1] + 1.5 * means.mean[1]) / 2.5
            vector = np.asarray(before.embedding[e], float)
            near = [[(vector - mu) @ means.precision @ (vector - mu) for mu in mus] for mus in (own, means.mean)]
            shares.append(np.exp(0.5 * -0.5 * (np.array(near[0]) - np.array(near[1]))))
        # Of each member, then the mean, then the temperature. The members' own shares come from a model of one.
        q = _of_members(model, before)
        q = q * np.stack(shares)
        mean = (q / q.sum(1, keepdims=True)).mean(0) ** (1 / 1.5)
        np.testing.assert_allclose(list(result.distribution.values()), mean / mean.sum(), rtol=0, atol=1e-4)
        assert result.adapted == "3 enrolled"


def _of_members(model, result):
    """[E, C] distributions of the members: those of two follow from mean and standard deviation, up to a sign."""
    tempered = np.array(list(result.distribution.values()))
    mean = tempered**1.5
    mean /= mean.sum()
    half = np.array(list(result.distribution_sd.values())) / np.sqrt(2)
    logits = result.embedding.astype(float)
    head = [np.asarray(model._heads.params["class_head"][name], float) for name in ("w", "b")]
    logits = np.einsum("ei,eic->ec", logits, head[0]) + head[1]
    q = np.exp(logits - logits.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    np.testing.assert_allclose(q.mean(0), mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.abs(q[0] - q[1]) / 2, half, rtol=0, atol=1e-5)
    return q


def test_unlabelled_recordings_and_a_run_together_show_the_same_prior(folders, model, tmp_path):
    root, known = folders
    paths = sorted((root / "heard").iterdir())
    plain = [list(result.distribution.values()) for result in model.files(paths)]
    prior = known.prior.mean(0)
    own = class_priors.fit(np.array([plain]), prior[None], 160.0)[0]
    expected = np.array(plain) * own / prior
    expected /= expected.sum(1, keepdims=True)
    speaker = speakers.enrol(model, root / "heard")
    np.testing.assert_allclose(speaker.prior, own, rtol=0, atol=1e-5)
    enrolled = model.for_speaker(speaker).files(paths)
    together, after = speakers.asked_for(model, is_together=True)
    assert together is model
    outcome = files.run(model, files.find(root / "heard"), tmp_path / "out.jsonl", is_quiet=True, after=after)
    backwards = tmp_path / "list.txt"
    backwards.write_text("\n".join(str(path) for path in reversed(paths)))
    other = files.run(model, files.find(backwards), is_quiet=True, after=after).records
    for i, (shares, result, record) in enumerate(zip(expected, enrolled, outcome.records, strict=True)):
        np.testing.assert_allclose(list(result.distribution.values()), shares, rtol=0, atol=1e-5)
        np.testing.assert_allclose(list(record["distribution"].values()), shares, rtol=0, atol=1e-5)
        assert record["distribution"] == pytest.approx(other[4 - i]["distribution"], abs=2e-6)
        assert record["best"] == [CLASSES[c] for c in np.argsort(-shares, kind="stable")]
        assert record["conformal_set"] == [name for name in record["best"] if record["distribution"][name] >= 0.3]
        assert record["adapted"] == "prior of the speaker, from all 5 recordings (transductive)"
        assert result.adapted == "prior of the speaker, from 5 recordings"
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == outcome.records
    with pytest.raises(ArtefactError, match="the prior is known: leave --speaker_prior out"):
        speakers.asked_for(model, root / "heard", is_together=True)
    with pytest.raises(ArtefactError, match="leave out --timeline or the prior"):
        files.run(model, files.find(backwards), tmp_path / "o", with_timeline=True, after=after)


def test_a_speakers_file_belongs_to_one_model_and_is_refused_where_it_is_damaged(folders, model, tmp_path):
    root, _ = folders
    path = tmp_path / "anna.json"
    speakers.write(path, speakers.enrol(model, root / "heard"))
    with pytest.raises(ArtefactError, match=r"the model that .*anna\.json belongs to does not fit"):
        speakers.read(path, predictor.load(root / "other").about)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole.replace(b"160", b"161", 1), b"[]", b"{}"):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"anna\.json.*enrol the speaker with this model"):
            speakers.read(path, model.about)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("r0.wav,bored",), r"labels\.csv:2: class 'bored' is none of the model's: angry, sad, neutral"),
        (("r0.wav,sad", "r9.wav,sad"), r"labels\.csv:3: there is no file .*r9\.wav"),
        (("r0.wav,sad", "r0.wav,angry"), r"labels\.csv:3: r0\.wav is listed twice"),
        ((), r"labels\.csv needs the columns file and class"),
        (("empty.wav,sad",), r"empty\.wav cannot be enrolled"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_by_their_line(folders, model, tmp_path, lines, message):
    folder = labelled(folders, tmp_path / "in", lines)
    (folder / "empty.wav").touch()
    with pytest.raises(ArtefactError, match=message):
        speakers.enrol(model, folder)


def test_the_launcher_enrols_saves_and_says_what_a_model_lacks(folders, tmp_path):
    root, _ = folders
    folder, out = labelled(folders, tmp_path / "in"), tmp_path / "anna.json"
    given = (f"--enrol={folder}", f"--save_speaker={out}")
    code, text = launchers.run("predict", f"--model={root / 'plain'}", *given)
    assert code == 1
    assert "has no prototypes of its training classes" in text
    assert "python -m launch.export --prototypes" in text
    code, text = launchers.run("predict", f"--model={root / 'model'}", *given)
    assert (code, out.exists()) == (0, True), text
    code, text = launchers.run("predict", f"--model={root / 'model'}", f"--speaker={out}", folder / "r4.wav")
    assert code == 0, text
    (line,) = (line for line in text.splitlines() if line.startswith("{"))
    assert json.loads(line)["adapted"] == "3 enrolled"


def test_an_export_with_prototypes_has_those_of_its_training(tmp_path_factory, tmp_path):
    workdir = shutil.copytree(prepared.finished(tmp_path_factory) / "workdir", tmp_path / "w")
    code, text = launchers.run("export", f"--workdir={workdir}", f"--to={tmp_path / 'm'}", "--prototypes")
    assert code == 0, text
    exported, plain = model_folder.read(tmp_path / "m"), model_folder.read(workdir)
    assert exported.prototypes.arrays()["mean"].shape == (len(plain.about["members"]), 6, 8)
    np.testing.assert_allclose(exported.prototypes.prior.sum(1), 1)
    assert exported.about.keys() == plain.about.keys()
    assert plain.prototypes is None
    content = (tmp_path / "m" / model_folder.PROTOTYPES_FILE).read_bytes()
    (tmp_path / "m" / model_folder.PROTOTYPES_FILE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtefactError, match=r"SHA-256 of .*prototypes\.safetensors"):
        model_folder.read(tmp_path / "m")
