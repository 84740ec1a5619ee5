#!/usr/bin/env bash
# Suites that others wrote, run on a mount; they are not part of this repository (GPL, BSD):
#
#   test/posix/reference.sh DIR_OF_SOURCES MOUNT [OTHER_MOUNT]        as root
#
# DIR_OF_SOURCES holds, built, what is to be run (what is missing is left out, and said):
#   pjdfstest/    github.com/pjd/pjdfstest: autoreconf -ifs && ./configure && make pjdfstest
#   ltp-src/      github.com/linux-test-project/ltp: make autotools && ./configure && make -C lib &&
#                 make -C testcases/kernel/fs/fsstress; the same for fsx-linux
#   ltp/fsx       the older fsx-linux.c of LTP (before its rewrite of 2023), gcc -D_GNU_SOURCE fsx-linux.c -o fsx
# Status 0 when everything that ran passed. FSX_OPS (default 5000), FSSTRESS_OPS (2000), PJD_TESTS (all) make it shorter or longer.
set -uo pipefail
[ $# -ge 2 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
sources=$(readlink -f "$1") mount=$(readlink -f "$2") bad=0
work=$mount/reference-$$
mkdir "$work"
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT

told() { # NAME STATUS TEXT
	printf '%-10s %-6s %s\n' "$1" "$([ "$2" = 0 ] && echo ok || echo FAILED)" "$3"
	[ "$2" = 0 ] || bad=1
}

if [ -x "$sources/pjdfstest/pjdfstest" ]; then
	out=$(cd "$work" && umask 022 && prove -r "$sources/pjdfstest/tests/${PJD_TESTS:-}" 2>&1)
	status=$?
	told pjdfstest $status "$(tail -2 <<<"$out" | tr '\n' ' ')"
	[ $status = 0 ] || grep -E 'Failed|Wstat' <<<"$out" | head -40
else
	echo "pjdfstest  not there"
fi
if [ -x "$sources/ltp/fsx" ]; then
	for seed in 1 2 3; do
		out=$(cd "$work" && "$sources/ltp/fsx" -q -N "${FSX_OPS:-5000}" -S $seed -l 4000000 "$work/fsx-file" 2>&1)
		told fsx $? "seed $seed: $(tail -1 <<<"$out")"
	done
else
	echo "fsx        not there"
fi
if [ -x "$sources/ltp-src/testcases/kernel/fs/fsx-linux/fsx-linux" ]; then
	out=$(cd "$work" && TMPDIR=$work "$sources/ltp-src/testcases/kernel/fs/fsx-linux/fsx-linux" 2>&1)
	told fsx-linux $? "$(grep -E '^(passed|failed|broken)' <<<"$out" | tr '\n' ' ')"
fi
if [ -x "$sources/ltp-src/testcases/kernel/fs/fsstress/fsstress" ]; then
	mkdir "$work/stress"
	timeout 600 "$sources/ltp-src/testcases/kernel/fs/fsstress/fsstress" -d "$work/stress" -n "${FSSTRESS_OPS:-2000}" -p 4 -l 1 -s 7 >"/tmp/fsstress.$$" 2>&1
	told fsstress $? "$(tail -1 "/tmp/fsstress.$$")"
	rm -f "/tmp/fsstress.$$"
	find "$work/stress" -ls >/dev/null && rm -rf "$work/stress"
	told fsstress $? "the tree can be walked and removed"
else
	echo "fsstress   not there"
fi
exit $bad
