#!/bin/sh
# The names of functions, a line each, from the symbols on standard input: without what changes from build to
# build, which are rustc's hashes and the version in the names of aws-lc.
set -eu
c++filt | sed -E 's/::h[0-9a-f]{16}$//; s/\[[0-9a-f]{13,16}\]//g; s/^aws_lc_[0-9]+_[0-9]+_[0-9]+_/aws_lc_/'
