#!/usr/bin/env bash
# go test with the arguments given, for tests of whole servers on a machine that others use: at most three
# tests that fail are run again alone, three times each, and must pass each time. What failed stays in the
# output and is a bug to be mended. A data race, a leak, a panic or a time-out is never forgiven.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"${GO:-go}" test "$@" 2>&1 | tee "$log" && exit
if grep -qE 'DATA RACE|unexpected goroutines|^panic: |^fatal error: |\[build failed\]|\[setup failed\]' "$log"; then
  exit 1
fi
# A package's failed tests stand before its line: "--- FAIL: TestName", then "FAIL <tab> package <tab> time".
failed=$(awk -F '\t' '
  /^--- FAIL: / { split($0, w, " "); names = names (names ? "|" : "") w[3]; n++ }
  /^FAIL\t/     { if (names == "") bad = 1; print $2 "\t" names; names = "" }
  /^ok  \t/     { names = "" }
  END           { exit bad || n == 0 || n > 3 }' "$log") || exit 1
flags=()
for a in "$@"; do
  case $a in ./*) ;; -count=*) ;; *) flags+=("$a") ;; esac
done
while IFS=$'\t' read -r package names; do
  echo "again, alone, three times: $names of $package"
  "${GO:-go}" test "${flags[@]}" -count=3 -run "^($names)\$" "$package" || exit 1
done <<<"$failed"
echo "FLAKY, to be mended: $failed"
