#!/usr/bin/env bash
# Owns the browser of the page test: installs Debian's Chromium where it is missing and that is allowed.
# Without it the page test is skipped with a reason; in CI that is a failure.
set -u

command -v chromium >/dev/null && exit 0

give_up() {
  echo "No Chromium: $1. Install the package 'chromium' to run the test of Prefect's page."
  if [ "${CI:-}" = "true" ]; then
    echo "In CI nothing is skipped."
    exit 1
  fi
  echo "That test will be skipped."
  exit 0
}

if [ "$(id -u)" = 0 ]; then
  as_root=""
elif sudo -n true 2>/dev/null; then
  as_root="sudo -n"
else
  give_up "neither root nor sudo without a password"
fi
command -v apt-get >/dev/null || give_up "this machine has no apt-get"

echo "Installing Chromium with apt-get, for the test of Prefect's page"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends chromium \
  || give_up "apt-get could not install it"
