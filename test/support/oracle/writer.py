"""The oracle writer: a real SQLite in a process of its own, whose every commit records the state it leaves.

    python3 -B writer.py DATABASE [OPTIONS]        OPTIONS: a JSON object, keys below

Prints one JSON line when it is ready ({"ready": pid, seq, digest}), one for each command read from stdin, and one
report at the end. What it does by itself between commands is drawn from `seed`. It never waits for a lock inside
SQLite (busy timeout 0): each SQLITE_BUSY is counted, then tried again.

With `ledger`, every acknowledged commit is appended to that file as 24 bytes: seq u64, digest u64, time u64 (ns since
1970), little-endian. The write survives a kill of this process.

Commands (one line each, answered by one JSON line):
    pause | resume                  no commit happens between the answers
    step N                          N transactions of the usual kind, while paused
    transaction {rows, kind, end}   one transaction: kind insert|update|delete|transfer|mixed, end commit|rollback|hold
    commit | rollback               ends a held transaction
    checkpoint MODE [other]         PASSIVE|FULL|RESTART|TRUNCATE, from another connection with `other`
    vacuum | incremental_vacuum N | journal_mode MODE | pragma TEXT
    close | open                    all connections; the last one to close checkpoints and removes the WAL
    state                           {seq, digest}
    stop                            ends with the report (so does the end of stdin)
"""
import json
import os
import select
import sqlite3
import sys
import time
import urllib.parse

import state
from transactions import Model

DEFAULTS = {
    'seed': 1,
    # the file; they count when it is created
    'pageSize': 4096,
    'reservedBytes': 0,
    'autoVacuum': 0,
    'firstSeq': 1,
    # the connection
    'journalMode': 'wal',
    'synchronous': 'normal',
    'cacheSize': -2000,
    'autocheckpoint': 1000,
    'lockingMode': 'normal',
    'psow': True,
    'secureDelete': False,
    # what transactions hold: [weight, fewest rows, most rows]; payload lengths in bytes; rows between which it swings
    'sizes': [[900, 1, 1], [80, 2, 20], [19, 50, 400], [1, 1000, 4000]],
    'payload': [20, 300],
    'largePayload': [2000, 60000],
    'largePayloadShare': 0.003,
    'rows': [2000, 20000],
    'rollbackShare': 0,
    'savepointShare': 0,
    'schemaShare': 0,
    # what happens between transactions: once in so many commits, 0 for never
    'checkpointEvery': 0,
    'checkpointModes': ['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'],
    'checkpointOther': 0.5,
    'vacuumEvery': 0,
    'incrementalVacuumEvery': 0,
    'reopenEverySeconds': 0,
    'journalModes': [],
    'journalModeEverySeconds': 0,
    # pace and end
    'commits': 0,
    'seconds': 0,
    'rate': 0,
    'paused': False,
    'ledger': '',
}


def reserve(path, page_size, reserved):
    """Makes a new, empty database whose pages keep `reserved` bytes at their end: no PRAGMA sets that."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f'PRAGMA page_size = {page_size}')
    connection.execute('VACUUM')
    connection.close()
    with open(path, 'r+b') as file:
        file.seek(20)
        file.write(bytes([reserved]))
        file.seek(105)  # the empty schema page: where its cells begin
        file.write(((page_size - reserved) & 0xFFFF).to_bytes(2, 'big'))


class Writer:
    def __init__(self, path, options):
        self.path = path
        self.options = options
        self.model = Model(options)
        self.random = self.model.random
        self.weights = [size[0] for size in options['sizes']]
        self.connection = None
        self.held = False
        self.journal_mode = options['journalMode']
        self.ledger = os.open(options['ledger'], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if options['ledger'] else -1
        self.count = dict.fromkeys(('commits', 'rows', 'busy', 'rollbacks', 'savepoints', 'checkpoints', 'vacuums',
                                    'reopens', 'journalModes'), 0)
        self.longest = 0.0
        self.active = 0.0
        self.largest_wal = 0
        self.open()
        if self.connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'oracle'").fetchone()[0] == 0:
            self.model.create(self.connection, options['firstSeq'])
        self.model.load(self.connection)
        self.record()

    def connect(self):
        uri = 'file:' + urllib.parse.quote(os.path.abspath(self.path)) + ('' if self.options['psow'] else '?psow=0')
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0)
        self.patiently(lambda: connection.execute(f"PRAGMA synchronous = {self.options['synchronous']}"))
        return connection

    def open(self):
        options = self.options
        if options['reservedBytes'] and not os.path.exists(self.path):
            reserve(self.path, options['pageSize'], options['reservedBytes'])
        self.connection = connection = self.connect()
        for pragma in (f"locking_mode = {options['lockingMode']}", f"page_size = {options['pageSize']}",
                       f"auto_vacuum = {options['autoVacuum']}", f'journal_mode = {self.journal_mode}',
                       f"wal_autocheckpoint = {options['autocheckpoint']}", f"cache_size = {options['cacheSize']}",
                       f"secure_delete = {int(options['secureDelete'])}"):
            self.patiently(lambda: connection.execute('PRAGMA ' + pragma).fetchall())

    def close(self):
        if self.held:
            self.finish('rollback')
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def reopen(self):
        self.close()
        self.open()
        self.model.attach(self.connection)
        self.count['reopens'] += 1

    def record(self):
        """Appends the committed state to the ledger."""
        if self.ledger >= 0:
            os.write(self.ledger, self.model.seq.to_bytes(8, 'little')
                     + (self.model.digest & 0xFFFFFFFFFFFFFFFF).to_bytes(8, 'little')
                     + time.time_ns().to_bytes(8, 'little'))

    def patiently(self, attempt):
        """Repeats `attempt` while it fails with SQLITE_BUSY, counting."""
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                self.count['busy'] += 1
                time.sleep(0.0002)

    def finish(self, end):
        """COMMIT or ROLLBACK of the transaction under way."""
        self.held = False
        if end == 'rollback':
            self.connection.execute('ROLLBACK')
            self.count['rollbacks'] += 1
            return
        self.patiently(lambda: self.connection.execute('COMMIT'))
        self.model.applied()
        self.count['commits'] += 1
        self.record()

    def transaction(self, rows, changes, end='commit'):
        """One transaction; `changes(rows)` makes about so many changed rows."""
        model = self.model
        begun = time.perf_counter()
        self.patiently(lambda: self.connection.execute('BEGIN IMMEDIATE'))
        try:
            model.begin()
            if self.options['schemaShare'] and self.random.random() < self.options['schemaShare']:
                model.change_schema()
            if self.options['savepointShare'] and self.random.random() < self.options['savepointShare']:
                mark = model.mark()
                self.connection.execute('SAVEPOINT inner')
                changes(rows)
                if self.random.random() < 0.5:
                    self.connection.execute('ROLLBACK TO inner')
                    model.back_to(mark)
                self.connection.execute('RELEASE inner')
                self.count['savepoints'] += 1
            changes(rows)
            model.seal()
            if end == 'hold':
                self.held = True
            else:
                self.finish(end)
                self.count['rows'] += rows
        except sqlite3.OperationalError as error:
            # A rollback-mode spill needs a lock that another process may hold: the transaction starts over.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            self.count['busy'] += 1
            self.connection.execute('ROLLBACK')
            time.sleep(0.0002)
        took = time.perf_counter() - begun
        self.active += took
        if took > self.longest:
            self.longest = took

    def usual(self):
        """One transaction of the kind that the options describe, and what may follow it."""
        options, draw = self.options, self.random.random
        _, low, high = self.random.choices(options['sizes'], self.weights)[0]
        rows = low if low == high else self.random.randint(low, high)
        end = 'rollback' if options['rollbackShare'] and draw() < options['rollbackShare'] else 'commit'
        self.transaction(rows, self.model.random_changes, end)
        if options['checkpointEvery'] and draw() * options['checkpointEvery'] < 1:
            self.checkpoint(self.random.choice(options['checkpointModes']), draw() < options['checkpointOther'])
        if options['vacuumEvery'] and draw() * options['vacuumEvery'] < 1:
            self.vacuum()
        if options['incrementalVacuumEvery'] and draw() * options['incrementalVacuumEvery'] < 1:
            self.incremental_vacuum(self.random.randint(1, 200))

    def checkpoint(self, mode, other):
        other = other and self.options['lockingMode'] == 'normal'
        connection = self.connect() if other else self.connection
        try:
            answer = self.patiently(lambda: connection.execute(f'PRAGMA wal_checkpoint({mode})').fetchone())
        finally:
            if other:
                connection.close()
        self.count['checkpoints'] += 1
        return list(answer)

    def vacuum(self):
        self.patiently(lambda: self.connection.execute('VACUUM'))
        self.count['vacuums'] += 1

    def incremental_vacuum(self, pages):
        self.patiently(lambda: self.connection.execute(f'PRAGMA incremental_vacuum({pages})').fetchall())

    def set_journal_mode(self, mode):
        """Switches the mode; returns the one it is in afterwards."""
        self.journal_mode = self.patiently(
            lambda: self.connection.execute(f'PRAGMA journal_mode = {mode}').fetchone()[0])
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {self.options['autocheckpoint']}").fetchall()
        self.count['journalModes'] += 1
        return self.journal_mode

    def watch_wal(self):
        try:
            self.largest_wal = max(self.largest_wal, os.stat(self.path + '-wal').st_size)
        except FileNotFoundError:
            pass

    def standing(self):
        return {'seq': self.model.seq, 'digest': state.hexadecimal(self.model.digest)}

    def report(self):
        self.watch_wal()
        return {**self.count, **self.standing(), 'seconds': round(self.active, 3),
                'commitsPerSecond': round(self.count['commits'] / self.active) if self.active else 0,
                'longestStallMs': round(self.longest * 1000, 2), 'largestWalBytes': self.largest_wal}

    def next_line(self, wait):
        """The next line of stdin, '' at its end, None if none came within `wait` milliseconds (None: forever)."""
        while b'\n' not in self.heard:
            if not self.poll.poll(wait):
                return None
            more = os.read(0, 65536)
            if not more:
                return ''
            self.heard += more
        line, _, self.heard = self.heard.partition(b'\n')
        return line.decode()

    def obey(self, line):
        """Carries out one command; returns its answer, or None for stop."""
        word, _, rest = line.strip().partition(' ')
        if word == 'stop':
            return None
        answer = {'done': word}
        if word in ('pause', 'resume'):
            self.paused = word == 'pause'
        elif word == 'step':
            for _ in range(int(rest)):
                self.usual()
        elif word == 'transaction':
            wish = json.loads(rest or '{}')
            kind = getattr(self.model, {'mixed': 'random_changes'}.get(wish.get('kind', 'mixed'), wish.get('kind')))
            changes = kind if kind == self.model.random_changes else lambda rows: [kind() for _ in range(rows)]
            self.transaction(wish.get('rows', 1), changes, wish.get('end', 'commit'))
        elif word in ('commit', 'rollback'):
            self.finish(word)
        elif word == 'checkpoint':
            mode, _, other = rest.partition(' ')
            answer['result'] = self.checkpoint(mode, other == 'other')
        elif word == 'vacuum':
            self.vacuum()
        elif word == 'incremental_vacuum':
            self.incremental_vacuum(int(rest))
        elif word == 'journal_mode':
            answer['result'] = self.set_journal_mode(rest)
        elif word == 'pragma':
            answer['result'] = self.connection.execute('PRAGMA ' + rest).fetchall()
        elif word == 'close':
            self.close()
        elif word == 'open':
            self.reopen()
        elif word != 'state':
            raise ValueError(f'unknown command: {word}')
        return {**answer, **self.standing()}

    def run(self):
        options = self.options
        self.paused = options['paused']
        self.heard = b''
        self.poll = select.poll()
        self.poll.register(0, select.POLLIN | select.POLLHUP)
        begun = reopened = switched = watched = due = time.monotonic()
        print(json.dumps({'ready': os.getpid(), **self.standing()}), flush=True)
        while True:
            now = time.monotonic()
            idle = self.paused or self.connection is None or self.held
            wait = None if idle else max(0, due - now) * 1000 if options['rate'] else 0
            line = self.next_line(wait)
            if line is not None:
                answer = self.obey(line) if line else None
                if answer is None:
                    break
                print(json.dumps(answer), flush=True)
                due = time.monotonic()
                continue
            if options['rate']:
                due += 1 / options['rate']
            self.usual()
            if now - watched > 0.02:
                watched = now
                self.watch_wal()
            if options['reopenEverySeconds'] and now - reopened > options['reopenEverySeconds']:
                reopened = now
                self.reopen()
            if options['journalModeEverySeconds'] and now - switched > options['journalModeEverySeconds']:
                switched = now
                self.set_journal_mode(self.random.choice(options['journalModes']))
            if options['commits'] and self.count['commits'] >= options['commits']:
                break
            if options['seconds'] and now - begun >= options['seconds']:
                break
        if self.held:
            self.finish('rollback')
        print(json.dumps({'report': True, **self.report()}), flush=True)
        self.close()


def main():
    given = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    unknown = set(given) - set(DEFAULTS)
    if unknown:
        raise SystemExit(f'unknown options: {", ".join(sorted(unknown))}')
    Writer(sys.argv[1], {**DEFAULTS, **given}).run()


if __name__ == '__main__':
    main()
