#!/usr/bin/env bash
# The programs beside Python that the tests run: real peers, called as their users call them.
set -euo pipefail
missing=()
for program in openssl curl; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[ "${#missing[@]}" -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
else
  echo "the tests need ${missing[*]}: install them with your package manager" >&2
  exit 1
fi
