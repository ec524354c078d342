#!/usr/bin/env bash
# The fuzz targets, JOBS (2) at once with one worker each.
#
#   fuzz.sh all TIME PARSERTIME  every target; PARSERTIME is for those that read bytes of a network first
#   fuzz.sh parsers TIME         only those
#   fuzz.sh keep [FOLDER]        puts inputs that were found, and reach code that the seeds do not,
#                                into testdata/fuzz, where go test runs them
#
# A time is a number of runs (20000x) or a duration (30m). An input that fails is printed, with what
# runs it again. Inputs that were found stay in the build cache and are where the next run begins.
set -euo pipefail
cd "$(dirname "$0")/.."
export GO=${GO:-go}

parser() { # FOLDER TARGET
  case $1/$2 in
  */FuzzMarkOf | */FuzzPriority) return 1 ;; # a few lines each
  internal/http/http[123]/* | internal/http/hpack/* | internal/http/qpack/* | internal/edge/proxyproto/*) return 0 ;;
  esac
  return 1
}

targets() { # prints FOLDER TARGET
  grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' api demo internal test | sort |
    while IFS=: read -r file name; do echo "$(dirname "$file") ${name#func }"; done
}

one() { # FOLDER TARGET TIME
  local log runs began=$SECONDS verdict=ok
  log=$(mktemp)
  if ! "$GO" test "./$1" -vet=off -run '^$' -fuzz "^$2\$" -fuzztime "$3" -fuzzminimizetime 10x -parallel 1 >"$log" 2>&1; then
    verdict=FAILED
    # The end of the time may meet a run, which go test then reports: that is no fault of the target.
    if [[ $3 != *x ]] && grep -q 'context deadline exceeded' "$log" &&
      ! grep -qE 'Failing input written|failure while testing seed|panic:|DATA RACE' "$log"; then verdict=ok; fi
  fi
  runs=$(sed -nE 's/.*execs: ([0-9]+).*total: ([0-9]+).*/\1 runs, \2 inputs/p' "$log" | tail -1)
  echo "fuzz $1 $2 $3: $verdict, ${runs:-no runs: what was found before took all the time}, $((SECONDS - began)) s"
  if [ $verdict = FAILED ]; then
    grep -v '^fuzz: elapsed' "$log" || true
    local input
    input=$(sed -nE 's/.*Failing input written to (testdata[^ ]+).*/\1/p' "$log" | tail -1)
    if [ -n "$input" ] && [ -f "$1/$input" ]; then
      echo "--- $1/$input (commit it with what mends it)"
      cat "$1/$input"
      echo "--- again: $GO test ./$1 -run '^$2\$/^$(basename "$input")\$'"
    fi
  fi
  rm -f "$log"
  [ $verdict = ok ]
}

run() { # reads FOLDER TARGET TIME; every target runs, also after one that failed
  xargs -P "${JOBS:-2}" -n 3 tools/fuzz.sh one
}

# covered prints the blocks that a target reaches with its seeds and the inputs in work.
covered() { # BINARY TARGET
  if ! (cd "$work" && "$1" -test.run "^$2\$" -test.coverprofile=profile >out 2>&1); then
    echo "an input of $2 fails; make fuzz finds it again" >&2
    return 0
  fi
  awk '/ 1$/ { print $1 }' "$work/profile" | sort -u
}

keep() { # FOLDER TARGET
  local have=$work/have to=$1/testdata/fuzz/$2 found from n=0
  found=$("$GO" env GOCACHE)/fuzz/$("$GO" list "./$1")/$2
  [ -d "$found" ] || return 0
  "$GO" test -c -cover -covermode=set -o "$work/binary" "./$1"
  mkdir -p "$work/testdata/fuzz/$2"
  if [ -d "$to" ]; then cp "$to"/* "$work/testdata/fuzz/$2/"; fi
  covered "$work/binary" "$2" >"$have"
  rm -f "$work/testdata/fuzz/$2"/*
  while read -r from; do # the smallest first
    cp "$found/$from" "$work/testdata/fuzz/$2/"
    covered "$work/binary" "$2" >"$work/now"
    rm -f "$work/testdata/fuzz/$2/$from"
    if [ -n "$(comm -13 "$have" "$work/now")" ]; then
      mkdir -p "$to"
      cp "$found/$from" "$to/"
      sort -u "$have" "$work/now" -o "$have"
      n=$((n + 1))
    fi
  done < <(find "$found" -type f -size -4k -printf '%s %f\n' | sort -n | cut -d' ' -f2)
  echo "$1 $2: $n of $(find "$found" -type f | wc -l) found inputs kept"
}

case $1 in
one) one "$2" "$3" "$4" ;;
all)
  { # the long ones first
    targets | while read -r d t; do if parser "$d" "$t"; then echo "$d $t $3"; fi; done
    targets | while read -r d t; do if ! parser "$d" "$t"; then echo "$d $t $2"; fi; done
  } | run ;;
parsers) targets | while read -r d t; do if parser "$d" "$t"; then echo "$d $t $2"; fi; done | run ;;
keep)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  targets | while read -r d t; do if parser "$d" "$t" && [[ $d == "${2:-}"* ]]; then keep "$d" "$t"; fi; done ;;
*) sed -n '2,11p' "$0" && exit 2 ;;
esac
