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

# install VENV FILE: what a file of requirements/ names into an environment, and nothing
# that has another hash; what comes as sources is built by what build.txt names.
install() {
  "$1/bin/pip" install --quiet --require-hashes --requirement requirements/build.txt
  "$1/bin/pip" install --quiet --require-hashes --no-build-isolation \
    --requirement "requirements/$2.txt"
}

# environment: make .venv (or $VENV) with all extras and this checkout, unless it is there.
environment() {
  VENV=${VENV:-.venv}
  if [[ ! -x $VENV/bin/pytest ]]; then
    python3 -m venv "$VENV"
    install "$VENV" ci
    "$VENV/bin/pip" install --quiet --no-deps --no-build-isolation -e .
  fi
}

# release_tools: make build/venv-release with what builds and uploads a release, unless
# it is there, and print its bin folder.
release_tools() {
  local folder=build/venv-release
  if [[ ! -x $folder/bin/twine || ! -x $folder/bin/uv ]]; then
    python3 -m venv "$folder"
    install "$folder" release >&2
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
