# SPDX-License-Identifier: Apache-2.0
"""POSIX conformance of a file system: tables of single assertions, in the spirit of pjdfstest (this is this project's own text).

    python3 -m test.posix.conform DIR [--only names,access,...]     as root; DIR is on the file system in question
"""
