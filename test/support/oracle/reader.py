"""A reader of a live copy: `python3 -B reader.py DATABASE LEDGER [PAUSE [USER]]`, with mode=ro and a busy timeout; as
that user, by number, if root runs it.

Reads whole states, in transactions of PAUSE seconds, until its input has something, and checks each: it must be one that the oracle's ledger
has, must not change inside the transaction, and must not be older than the one before. Prints one JSON line at the end:
{reads, states, last, wrong: [text...]}.
"""
import json
import os
import select
import sqlite3
import struct
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'oracle'))
import state  # noqa: E402


def ledger_digests(path, known, offset):
    with open(path, 'rb') as file:
        file.seek(offset)
        data = file.read()
    whole = len(data) - len(data) % 24
    for seq, digest, _ in struct.iter_unpack('<QQQ', data[:whole]):
        known[seq] = format(digest, '016x')
    return offset + whole


def main():
    database, ledger = sys.argv[1], sys.argv[2]
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    if len(sys.argv) > 4:
        os.setgroups([])
        os.setgid(int(sys.argv[4]))
        os.setuid(int(sys.argv[4]))
    uri = 'file:' + urllib.parse.quote(os.path.abspath(database)) + '?mode=ro'
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=20)
    known, offset = {}, 0
    last, states, reads, wrong = 0, set(), 0, []
    print(json.dumps({'ready': os.getpid()}), flush=True)
    while True:
        if select.select([0], [], [], 0)[0]:
            break
        try:
            connection.execute('BEGIN')
            seq, digest, _ = state.prove(connection, integrity=reads % 8 == 0)
            if pause:
                time.sleep(pause)
            again, _, _ = state.prove(connection, integrity=False)
            connection.execute('COMMIT')
        except (state.Violation, sqlite3.Error) as error:
            wrong.append(str(error))
            break
        reads += 1
        states.add(seq)
        if again != seq:
            wrong.append(f'{seq} became {again} inside a transaction')
        if seq < last:
            wrong.append(f'{seq} after {last}')
        last = seq
        deadline = time.monotonic() + 20
        while seq not in known and time.monotonic() < deadline:
            offset = ledger_digests(ledger, known, offset)
        if known.get(seq) != state.hexadecimal(digest & 0xFFFFFFFFFFFFFFFF):
            wrong.append(f'{seq} has another digest than its commit left')
    print(json.dumps({'reads': reads, 'states': len(states), 'last': last, 'wrong': wrong}), flush=True)


main()
