"""Result records as files: read back as written, refused where another version of the project wrote them."""

import dataclasses
import json

import pytest

from seremo_jax.core.artefacts import ArtefactError, to_json
from seremo_jax.core.hashed import describe_file
from seremo_jax.core.schema import ResultRecord
from seremo_jax.evaluation import records
from seremo_jax.metrics.catalogue import entries_by_name, metric

AXES = {"model": "head", "num_heads": 1, "varying": [], "layer": 2, "class_target": "votes"}
ENTRIES = entries_by_name({metric("uar"): {"value": 0.5}, metric("uar", 2): {"value": 0.6}})
RECORD = ResultRecord("votes", 2, (0, 1), "test", "clean", "all", 9, 8, 3, ENTRIES, {}, [], {"corpus": "made"}, AXES)


def written(folder, *lines):
    folder.mkdir(exist_ok=True)
    path = folder / records.FILE
    path.write_text("".join(line + "\n" for line in lines))
    return path


def without(name):
    fields = json.loads(to_json(RECORD))
    del fields[name]
    return json.dumps(fields)


def with_entry(**entry):
    fields = json.loads(to_json(RECORD))
    return json.dumps(fields | {"metrics": fields["metrics"] | {"distance": entry}})


def with_states(**states):
    return json.dumps(json.loads(to_json(RECORD)) | {"states": states})


def test_records_are_read_as_they_were_written(tmp_path):
    assert records.read(written(tmp_path, to_json(RECORD), to_json(RECORD))) == [RECORD, RECORD]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (without("axes"), "it does not say what tells its system from others"),
        (with_entry(value=0.1), "its metric 'distance' does not say of which kind it is"),
        (with_entry(value=0.1, metric={"kind": "no_such", "n": 1}), "is of the unknown kind 'no_such'"),
        (with_states(calibration={"curves": {"risk votes": {}}}), "its calibration curves have other names"),
    ],
)
@pytest.mark.parametrize(("folder", "stage"), [("work", "evaluate"), ("baseline", "baseline")])
def test_records_of_another_version_are_refused_with_what_to_run(tmp_path, line, reason, folder, stage):
    path = written(tmp_path / folder, to_json(RECORD), line)
    with pytest.raises(ArtefactError) as caught:
        records.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2 was written by another version of this project (")
    assert reason in message
    assert message.endswith(f"; delete the file and run python -m launch.{stage} with this --workdir")


def test_what_is_no_record_and_files_without_any_are_refused(tmp_path):
    for line in ("[]", '{"system": "votes"}', without("metrics")):
        with pytest.raises(ArtefactError, match=r"results.jsonl:1 is no result record .*launch.evaluate"):
            records.read(written(tmp_path, line))
    for line in ("{", with_entry(value=1)[:-1]):
        with pytest.raises(ArtefactError, match=r"results.jsonl:1 is damaged .*delete the file and .*launch.evaluate"):
            records.read(written(tmp_path, line))
    fields = json.loads(to_json(RECORD)) | {"metrics": {"UAR": 0.5}}
    with pytest.raises(ArtefactError, match="is no result record"):
        records.read(written(tmp_path, json.dumps(fields)))
    with pytest.raises(ArtefactError, match="holds no record"):
        records.read(written(tmp_path))
    with pytest.raises(ArtefactError, match=r"is missing; run python -m launch.baseline"):
        records.read(tmp_path / "baseline" / records.FILE)


def test_a_changed_digit_is_noticed_in_the_line_that_has_it(tmp_path):
    records.write(tmp_path / records.FILE, [RECORD, RECORD])
    assert records.read(tmp_path / records.FILE) == [RECORD, RECORD]
    whole = (tmp_path / records.FILE).read_text()
    place = whole.rindex('"num_speakers":') + len('"num_speakers": ')
    changed = "7" if whole[place] != "7" else "8"
    (tmp_path / records.FILE).write_text(whole[:place] + changed + whole[place + 1 :])
    with pytest.raises(ArtefactError, match=r"results\.jsonl:2 .*was changed or damaged: delete the file and run"):
        records.read(tmp_path / records.FILE)


@pytest.mark.parametrize("kept", [slice(0, 1), slice(1, 2), slice(None, None, -1)])
def test_a_file_that_lost_a_line_or_has_them_in_another_order_is_refused(tmp_path, kept):
    path = tmp_path / records.FILE
    records.write(path, [RECORD, RECORD])
    path.write_text("".join(path.read_text().splitlines(keepends=True)[kept]))
    with pytest.raises(ArtefactError, match=r"results\.jsonl:1 .* does not fit: .*Lines are missing: delete the file"):
        records.read(path)


def test_records_are_whole_while_the_predictions_behind_them_are(tmp_path):
    path, predictions = tmp_path / records.FILE, tmp_path / "predictions" / "test_clean.parquet"
    predictions.parent.mkdir()
    predictions.write_bytes(b"0123")
    about = {"file": "predictions/test_clean.parquet", **describe_file(predictions)}
    records.write(path, [dataclasses.replace(RECORD, predictions=about)])
    assert records.are_whole(path)
    for damaged in (b"0124", b"012"):
        predictions.write_bytes(damaged)
        assert not records.are_whole(path)
    predictions.unlink()
    assert not records.are_whole(path)
