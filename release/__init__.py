"""How a release is made: its version, its notes, what it consists of.

The version is the git tag (`v0.2.0`), read while a wheel or an sdist is built: hatch-vcs asks git; a
tarball of `git archive` carries it in .git_archival.txt, an sdist in its PKG-INFO. Between two
tags, and in a clone without any, it is a development version that names the commit; in a folder
with no history it is 0.0. `ticketctl --version` says it.

Programs of the checkout, for who makes a release and for tests/run; no part of what is installed.
"""
