# Installs the packages that are missing to build, run and test Rapport on Debian or Ubuntu, and
# prints their names first.
# Sourced by the other scripts:   need COMMAND PACKAGE [PACKAGE ...]

missing=()

# Marks PACKAGES for installation if COMMAND does not exist.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null 2>&1 || missing+=("$@")
}

# On Debian, PostgreSQL's server programs are not on the PATH.
need_postgres() {
  command -v postgres >/dev/null 2>&1 || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ||
    missing+=(postgresql)
}

# The tests of the demonstration page check its layout, so they also need fonts for Latin, Arabic
# and emoji.
need_browsers() {
  need chromium chromium
  need firefox-esr firefox-esr
  local font
  for font in fonts-inter fonts-noto-core fonts-noto-color-emoji; do
    dpkg-query -W "$font" >/dev/null 2>&1 || missing+=("$font")
  done
}

install_missing() {
  if ! command -v cargo >/dev/null 2>&1; then
    echo "Building Rapport requires Rust 1.95 or newer, which was not found. See https://rustup.rs" >&2
    exit 1
  fi
  [ ${#missing[@]} -eq 0 ] && return
  local run=()
  [ "$(id -u)" -eq 0 ] || run=(sudo)
  echo "Installing with apt-get: ${missing[*]}" >&2
  "${run[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}
