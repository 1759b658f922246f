#!/usr/bin/env bash
# The whole method on one corpus, from audio and ratings to the speaker-level report; sets the environment up first.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash launch/quickstart.sh [--corpus simulated|crema_d] [--root DIR] [--backbone NAME] [--workdir DIR]
                                 [--variant NAME] [--config.SECTION.FIELD=VALUE ...]

  --corpus    simulated (default): made here by voice synthesis, needs no data
              crema_d: recordings of CREMA-D
  --root      folder of the corpus (crema_d; default ../shared/data/crema_d where that exists)
  --backbone  folder of a published checkpoint or its id on the model hub (default logmel, which has no weights)
  --workdir   where artefacts go (default runs/quickstart-CORPUS); an interrupted run goes on from where it was
  --variant   variant of the recipe: tiny (simulated), subset24 (crema_d)
  --config.*  any field of the recipe, e.g. --config.backbone.window=cut

PYTHON=python3.12 picks another interpreter, with an environment of its own.
END
}

wrong() { printf '%s\n\n' "$1" >&2; usage >&2; exit 2; }

corpus=simulated root='' workdir='' variant='' backbone=''
overrides=()
called_from=$PWD
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --config.*=*) overrides+=("$1"); shift ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
    --corpus | --root | --workdir | --variant | --backbone)
      [ $# -ge 2 ] && [ -n "$2" ] || wrong "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift 2 ;;
    *) wrong "unknown option: $1" ;;
  esac
done

here=$(dirname "${BASH_SOURCE[0]}")
cd "$here/.."
# shellcheck source=launch/env.sh
. launch/env.sh

case $corpus in
  simulated) [ -z "$root" ] || wrong "--root: the simulated corpus is made here and has no folder" ;;
  crema_d)
    if [ -n "$root" ]; then
      root=$(absolute "$root")
      [ -d "$root" ] || die "--root: there is no folder $root"
    else
      root=${SEREMO_SHARED:-../shared}/data/crema_d
      [ -d "$root" ] || die "Where is CREMA-D? No folder $root: give --root DIR, the folder that holds its audio and labels" \
        "(https://github.com/CheyneyComputerScience/CREMA-D)."
    fi ;;
  *) wrong "--corpus must be simulated or crema_d, is $corpus" ;;
esac
if [ -n "$workdir" ]; then
  workdir=$(absolute "$workdir")
else
  workdir=runs/quickstart-$corpus${variant:+-$variant}${backbone:+-$(basename "$backbone")}
fi
# A folder is relative to where it was typed; anything else is a name.
if [ -n "$backbone" ]; then
  place=$(absolute "$backbone")
  if [ -d "$place" ]; then backbone=$place; fi
  overrides=("--config.backbone.name=$backbone" ${overrides[@]+"${overrides[@]}"})
fi

use_environment
arguments=("--config=configs/$corpus.py${variant:+:$variant}" "--workdir=$workdir")
arguments+=(${overrides[@]+"${overrides[@]}"})
if [ -n "$root" ]; then arguments+=("--config.corpus.root=$root"); fi

stage() { # launcher, heading
  local started=$SECONDS status=0
  printf '\n== %s: %s\n' "$1" "$2"
  "$VENV_PYTHON" -m "launch.$1" "${arguments[@]}" || status=$?
  if [ "$status" -ne 0 ]; then
    printf '== %s failed (exit status %s). The same command goes on from here once the cause is gone.\n' "$1" "$status" >&2
    exit "$status"
  fi
  printf '== %s: %s s\n' "$1" "$((SECONDS - started))"
}

stage ingest "recordings and ratings -> tables, speaker-disjoint splits"
stage extract "audio -> backbone -> saliency of every layer, frames of the chosen ones"
stage saliency "which layer carries emotion"
stage train "all members in one program"
stage evaluate "scores by speaker, with intervals"
stage report "tables, figures, page"

printf '\nFinished in %s s.\n' "$SECONDS"
printf 'The page:  %s/report/index.html\n' "$workdir"
if [ "$corpus" = simulated ]; then
  printf 'Try next:  bash launch/quickstart.sh --corpus crema_d --root CREMA-D      (real speech)\n'
else
  printf 'Try next:  bash launch/quickstart.sh      (the simulated corpus, for comparison)\n'
fi
printf 'Settings:  %s/bin/python -m launch.train --config=configs/%s.py --help\n' "$VENV" "$corpus"
