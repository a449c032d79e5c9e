# Shared by the scripts of this folder, which source it; it is not run by itself.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Git reads a checkout that belongs to someone else, as in a container.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'

# Exit status of a step that cannot be done on this machine: neither passed nor failed.
readonly SKIPPED=77

# say TEXT...: a heading.
say() {
  printf '\n=== %s\n' "$*"
}

# skip REASON...: end the script as skipped; .ci/run reads the reason from SKIP_NOTE.
skip() {
  printf 'skipped: %s\n' "$*" >&2
  printf '%s\n' "$*" > "${SKIP_NOTE:-/dev/null}"
  exit "$SKIPPED"
}

# environment: make .venv (or $VENV) with the test extra, unless it is there.
environment() {
  VENV=${VENV:-.venv}
  if [[ ! -x $VENV/bin/pytest ]]; then
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet -e '.[test]'
  fi
}

# release_tools: make build/venv-release with what builds and uploads a release, unless
# it is there, and print its bin folder.
release_tools() {
  local folder=build/venv-release
  if [[ ! -x $folder/bin/twine ]]; then
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet build 'hatchling>=1.27' twine >&2
  fi
  echo "$folder/bin"
}

# version: the version of this checkout.
version() {
  sed -n 's/^__version__ = "\(.*\)"$/\1/p' bids_roi/version.py
}

# engine: docker or podman, whichever answers ($ENGINE has the first word).
engine() {
  local candidate
  for candidate in ${ENGINE:-docker podman}; do
    if "$candidate" info > /dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  return 1
}
