"""Proves databases to be exactly one committed state of the oracle writer.

    python3 -B check.py DATABASE...     or, without arguments, one path a line on stdin

Prints one JSON line for each: {"ok": true, seq, digest, pages} or {"ok": false, "reason": text}. Nothing is written
beside a database: it is opened as immutable, or, if it has a WAL or a journal, as a copy in a private folder.
"""
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import urllib.parse

import state


def check(path):
    if not os.path.isfile(path):
        return {'ok': False, 'reason': 'no such file'}
    beside = [suffix for suffix in ('-wal', '-journal') if os.path.exists(path + suffix)]
    with tempfile.TemporaryDirectory(prefix='oracle-check-') as folder:
        query = '?mode=ro&immutable=1'
        opened = path
        if beside:
            query = ''
            opened = os.path.join(folder, 'copy')
            for suffix in ['', *beside]:
                shutil.copyfile(path + suffix, opened + suffix)
        uri = 'file:' + urllib.parse.quote(os.path.abspath(opened)) + query
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        try:
            seq, digest, pages = state.prove(connection)
            return {'ok': True, 'seq': seq, 'digest': state.hexadecimal(digest), 'pages': pages}
        except state.Violation as violation:
            return {'ok': False, 'reason': str(violation)}
        finally:
            connection.close()


def main():
    for path in sys.argv[1:] or iter(sys.stdin.readline, ''):
        print(json.dumps(check(path.rstrip('\n'))), flush=True)


if __name__ == '__main__':
    main()
