#!/usr/bin/env bash
# Makes the tables of configs/RESULTS.md again, from CREMA-D and the folder of a backbone, each by one command.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash configs/reproduce.sh TABLE --root CREMA-D --backbone FOLDER [--workdir DIR] [--config.SECTION.FIELD=VALUE ...]

TABLE is one of
  targets     (a) heads on votes and on the consensus, the regressions to beat, human raters; 5 folds, 5 seeds
  several     (a) the mean over heads of five layers, against regressions on the same layers; 5 folds, one seed a layer
  speakers    (e) the shares of speakers of the same heads
  layers      (b) curves over layers and heads of every layer; fold 0
  backbones   (c) heads on each --backbone given (several times) and on log-mel bands; fold 0
  conditions  (d) heads in noise, rooms and over the telephone; fold 0
  every_speaker  (g) each means for the worst served speakers alone, 5 folds, 5 seeds, also in noise
  all         every one of them

  --root      folder of CREMA-D
  --backbone  folder of a published checkpoint or its id on the model hub
  --workdir   where artefacts and tables go (default runs/reproduce); an interrupted run goes on from where it was
  --config.*  any field of configs/small_corpus.py (configs/every_speaker.py), for all stages

SEREMO_PYTHON names an interpreter that has the package and scikit-learn; without it an environment is set up here.
END
}

wrong() { printf '%s\n\n' "$1" >&2; usage >&2; exit 2; }

table='' root='' workdir=runs/reproduce backbones=() overrides=()
called_from=$PWD
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --config.*=*) overrides+=("$1"); shift ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
    --root | --workdir | --backbone)
      [ $# -ge 2 ] && [ -n "$2" ] || wrong "$1 needs a value"
      if [ "$1" = --backbone ]; then backbones+=("$2"); else printf -v "${1#--}" '%s' "$2"; fi
      shift 2 ;;
    targets | several | speakers | layers | backbones | conditions | every_speaker | all)
      [ -z "$table" ] || wrong "one table at a time, or all: $table, $1"
      table=$1; shift ;;
    *) wrong "unknown argument: $1" ;;
  esac
done
[ -n "$table" ] || wrong "which table?"
[ -n "$root" ] || wrong "--root is missing: the folder of CREMA-D"
[ ${#backbones[@]} -gt 0 ] || wrong "--backbone is missing: the folder of a published checkpoint, or its id"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/env.sh
. launch/env.sh

# A name that is no folder where it was typed is an id.
root=$(absolute "$root") workdir=$(absolute "$workdir")
[ -d "$root" ] || wrong "--root: there is no folder $root"
for i in "${!backbones[@]}"; do
  if [ -d "$(absolute "${backbones[i]}")" ]; then backbones[i]=$(absolute "${backbones[i]}"); fi
done

python=${SEREMO_PYTHON:-}
if [ -z "$python" ]; then
  use_environment baseline
  python=$VENV_PYTHON
fi
mkdir -p "$workdir"

recipe=configs/small_corpus.py

launch() { # stage, name of the workdir, flags...
  local stage=$1 name=$2 started=$SECONDS flag override flags=()
  shift 2
  printf '\n== %s, %s\n' "$name" "$stage"
  # A field given on the command line takes the place of this script's: tuples given twice would be joined.
  for flag in "$@"; do
    for override in ${overrides[@]+"${overrides[@]}"}; do
      if [ "${flag%%=*}" = "${override%%=*}" ]; then continue 2; fi
    done
    flags+=("$flag")
  done
  "$python" -m "launch.$stage" --config="$recipe" --config.corpus.root="$root" \
    --config.extract.layers=all --config.data.split_kind=kfold --workdir="$workdir/$name" \
    ${flags[@]+"${flags[@]}"} ${overrides[@]+"${overrides[@]}"}
  printf '== %s, %s: %s s\n' "$name" "$stage" "$((SECONDS - started))"
}

# Sets `heard` to the flags of a backbone.
by() { # backbone
  heard=(--config.backbone.name="$1")
  case $(basename "$1") in *whisper*) heard+=(--config.backbone.window=cut) ;; esac
}

# Trains and evaluates the heads of fold 0 in a workdir of their own, on what this backbone heard once for all of them.
heads() { # backbone, name, flags...
  local backbone=$1 name=$2 place
  shift 2
  by "$backbone"
  place=heard-$(basename "$backbone")
  for stage in ingest extract; do launch $stage "$place" "${heard[@]}"; done
  mkdir -p "$workdir/$name"
  cp -p "$workdir/$place"/{ingest.json,utterances.parquet,ratings.parquet,saliency.npz} "$workdir/$name"
  ln -sfn "../$place/store" "$workdir/$name/store"
  for stage in saliency train evaluate; do launch $stage "$name" "${heard[@]}" "$@"; done
}

report() { # table, folder of tables, names of workdirs...
  local table=$1 out=$workdir/$2 places
  shift 2
  places=$(printf ",$workdir/%s" "$@")
  printf '\n== table %s -> %s\n' "$table" "$out/$table.md"
  "$python" -m launch.report --table="$table" --workdirs="${places#,}" --out="$out"
}

five_folds=(--config.ensemble.folds="(0,1,2,3,4)")
every_target=(--config.ensemble.class_targets="('votes','consensus')"
  --config.ensemble.class_kinds="('ccc','soft_ce','balanced_soft_ce')")
one_loss=(--config.ensemble.class_kinds="('ccc',)" --config.eval.means="('seeds',)")
# Enough for Holm's correction over all comparisons of a table: p cannot fall below 1 / (exchanges + 1).
tests=(--config.eval.num_permutations=20000 --config.eval.num_resamples=4000)

heard_in=(noise:steady:10db noise:steady:0db babble:10db reverb:measured:0.6s
  reverb:measured:0.6s+noise:steady:10db telephone)

of_folds() {
  local flags=("${five_folds[@]}" "${every_target[@]}" "${tests[@]}")
  by "${backbones[0]}"
  for stage in ingest extract saliency train evaluate baseline; do launch $stage folds "${heard[@]}" "${flags[@]}"; done
}

make() {
  case $1 in
    targets | speakers) of_folds; report "$1" tables folds ;;
    several)
      # Of Whisper base's layers these are the five that the probe ranks highest, in each fold.
      local flags=("${five_folds[@]}" "${tests[@]}" --config.ensemble.layers="(2,3,4,5,6)" --config.ensemble.seeds="(0,)"
        --config.eval.means="('class_kinds','layers','layers_and_class_kinds')")
      heads "${backbones[0]}" several "${flags[@]}"
      launch baseline several "${heard[@]}" "${flags[@]}"
      report targets tables/several several ;;
    layers)
      # Layers 0 to 6 are those of Whisper base; of another backbone give --config.ensemble.layers.
      heads "${backbones[0]}" layers "${one_loss[@]}" --config.ensemble.layers="(0,1,2,3,4,5,6)"
      report layers tables layers ;;
    backbones)
      local names=()
      for backbone in logmel "${backbones[@]}"; do
        heads "$backbone" "backbone-$(basename "$backbone")" "${one_loss[@]}"
        names+=("backbone-$(basename "$backbone")")
      done
      report backbones tables "${names[@]}" ;;
    conditions)
      heads "${backbones[0]}" conditions "${one_loss[@]}" \
        --config.eval.noise_dir="${SEREMO_NOISE:-}" --config.eval.rir_dir="${SEREMO_ROOMS:-}" \
        --config.eval.conditions="$(printf "'%s'," "${heard_in[@]}" | sed 's/.*/(&)/')"
      report conditions tables conditions ;;
    every_speaker)
      # Layer 3 of Whisper base is what the probe picks in each fold; of another backbone give --config.model.layer.
      local run=every_speaker/sweep/runs/000 flags=(--config.model.layer=3)
      by "${backbones[0]}"
      recipe=configs/every_speaker.py launch sweep every_speaker "${heard[@]}" "${flags[@]}" --sweep=alone
      recipe=$workdir/$run/recipe.py launch evaluate "$run" "${tests[@]}" --config.eval.means="()" \
        --config.eval.speaker_prior="('transductive','online')" \
        --config.eval.noise_dir="${SEREMO_NOISE:-}" --config.eval.conditions="('noise:steady:0db',)"
      report every_speaker tables "$run" ;;
  esac
}

if [ "$table" = all ]; then
  for each in targets several speakers layers backbones conditions every_speaker; do make "$each"; done
else
  make "$table"
fi
printf '\nFinished in %s s. Tables: %s/tables\n' "$SECONDS" "$workdir"
