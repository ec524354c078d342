#!/usr/bin/env bash
# fuzz.sh all|parsers TIME PARSERTIME: runs the fuzz targets one by one; PARSERTIME is for those
# that read bytes of a network first. A time is a number of runs (20000x) or a duration (30m).
set -euo pipefail
cd "$(dirname "$0")/.."
which=$1 time=$2 parsertime=$3
go=${GO:-go} log=$(mktemp)
trap 'rm -f "$log"' EXIT

parser() { # FOLDER TARGET
  case $1/$2 in
  internal/http/http[123]/* | internal/http/hpack/* | internal/http/qpack/* | *[pP]roxyproto/* | */FuzzProxy*) return 0 ;;
  esac
  return 1
}

grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' api demo internal test | sort |
  while IFS=: read -r file name; do
    dir=$(dirname "$file") name=${name#func } t=$time
    if parser "$dir" "$name"; then t=$parsertime; elif [ "$which" = parsers ]; then continue; fi
    echo "fuzz $dir $name $t"
    began=$SECONDS
    if ! "$go" test "./$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$t" -fuzzminimizetime 10x >"$log" 2>&1; then
      # The end of the time may meet a run: that is no fault of the target, which saves its input
      # when it has one.
      if [[ $t != *x ]] && grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input written' "$log"; then
        echo "  ended by its time"
      else
        cat "$log"
        exit 1
      fi
    fi
    echo "  $((SECONDS - began)) s"
  done
