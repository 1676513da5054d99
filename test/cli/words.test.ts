import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatBytes, formatClock, formatElapsed, formatMoment, formatTable } from '../../cli/format.js';
import { createLog, type Log, parseLogLevel } from '../../cli/log.js';
import { createTerminal, progressText } from '../../cli/terminal.js';
import { parseDuration, parseSize, parseTimestamp, parseTypedTxid } from '../../cli/units.js';

test("durations are Go's", () => {
  const cases: [string, number | undefined][] = [
    ['0', 0],
    ['2s', 2000],
    ['1h30m', 5_400_000],
    ['1.5s', 1500],
    ['.5s', 500],
    ['100ms', 100],
    ['1m0.25s', 60_250],
    ['-1m', -60_000],
    ['250us', 0.25],
    ['1µs', 0.001],
    ['5', undefined],
    ['5 s', undefined],
    ['5d', undefined],
    ['s', undefined],
    ['', undefined],
    ['1h 30m', undefined],
  ];
  for (const [text, ms] of cases) assert.equal(parseDuration(text), ms, text);
});

test('sizes are decimal unless they say otherwise', () => {
  const cases: [string, number | undefined][] = [
    ['1048576', 1_048_576],
    ['64MB', 64_000_000],
    ['64m', 64_000_000],
    ['1 GiB', 1_073_741_824],
    ['1.5kB', 1500],
    ['-1', undefined],
    ['1 XB', undefined],
    ['9999999999 TB', undefined],
    ['', undefined],
  ];
  for (const [text, bytes] of cases) assert.equal(parseSize(text), bytes, text);
});

test('moments are RFC 3339 and exist', () => {
  const cases: [string, string | undefined][] = [
    ['2026-11-23T15:04:05Z', '2026-11-23T15:04:05.000Z'],
    ['2026-11-23t15:04:05.123456z', '2026-11-23T15:04:05.123Z'],
    ['2026-11-23 15:04:05+01:30', '2026-11-23T13:34:05.000Z'],
    ['2024-02-29T00:00:00-08:00', '2024-02-29T08:00:00.000Z'],
    ['2026-02-29T00:00:00Z', undefined],
    ['2026-13-01T00:00:00Z', undefined],
    ['2026-01-01T24:00:00Z', undefined],
    ['2026-01-01T00:00:00', undefined],
    ['2026-01-01', undefined],
    ['2026-01-01T00:00:00+25:00', undefined],
  ];
  for (const [text, moment] of cases) {
    const ms = parseTimestamp(text);
    assert.equal(ms === undefined ? undefined : new Date(ms).toISOString(), moment, text);
  }
});

test('TXIDs may leave out their zeros, but not be 0', () => {
  const cases: [string, bigint | undefined][] = [
    ['1', 1n],
    ['00000000000000fF', 255n],
    ['ffffffffffffffff', 2n ** 64n - 1n],
    ['0', undefined],
    ['10000000000000000', undefined],
    ['0x1', undefined],
    ['', undefined],
  ];
  for (const [text, txid] of cases) assert.equal(parseTypedTxid(text), txid, text);
});

test('sizes, times and tables read well', () => {
  assert.deepEqual([0, 999, 1000, 123_456, 9_999_999, 5e9, 1e18].map(formatBytes), [
    '0 B',
    '999 B',
    '1.0 kB',
    '123 kB',
    '10.0 MB',
    '5.0 GB',
    '1000 PB',
  ]);
  assert.deepEqual([0, 6.2, 750, 3723].map(formatClock), ['0:00', '0:07', '12:30', '1:02:03']);
  assert.deepEqual([12.4, 12_340, 250_000].map(formatElapsed), ['12 ms', '12.3 s', '4 min 10 s']);
  assert.equal(formatMoment(Number.NaN), 'impossible');
  assert.equal(
    formatTable(
      ['a', 'bb'],
      [
        ['xyz', '1'],
        ['', '22'],
      ],
    ),
    'a    bb\nxyz  1\n     22',
  );
});

function logged(use: (log: Log) => void): string[] {
  const lines: string[] = [];
  use(createLog((line) => lines.push(line.replace(/^\S+Z /, '').replace(/"time":"[^"]+",/, '')), false));
  return lines;
}

test('the log is filtered by level and written as text or JSON', () => {
  const lines = logged((log) => {
    log.write('debug', 'not shown');
    log.write('info', 'hello', { database: '/my db', txid: 10n, count: 3, nothing: undefined });
    log.configure({ level: 'warn', type: 'json' });
    log.write('info', 'not shown');
    log.write('error', 'bad', { txid: 255n });
  });
  assert.deepEqual(lines, [
    'INFO  hello database="/my db" txid="000000000000000a" count=3',
    '{"level":"error","message":"bad","txid":"00000000000000ff"}',
  ]);
});

test("Litestream's names of levels are understood", () => {
  assert.deepEqual(['trace', 'DEBUG', 'Info', 'warning', 'error', 'loud'].map(parseLogLevel), [
    'debug',
    'debug',
    'info',
    'warn',
    'error',
    undefined,
  ]);
});

test('progress says how far, how fast and how long', () => {
  assert.equal(
    progressText('restore', 500_000_000, 1_000_000_000, 2000),
    'restore [############------------] 50 %  500 MB of 1.0 GB  250 MB/s  0:02 left',
  );
  assert.equal(progressText('read', 5_000_000, 0, 1000), 'read 5.0 MB  5.0 MB/s');
  assert.match(progressText('read', 20, 10, 0), /100 %/);
});

test('quiet, only a result that was asked for as JSON is shown', () => {
  let text = '';
  const stdout = { write: (part: string) => (text += part) } as unknown as NodeJS.WriteStream;
  const terminal = createTerminal({ stdout, stderr: stdout }, true, true);
  terminal.result('restored');
  assert.equal(text, '');
  terminal.json({ restored: true });
  assert.equal(text, '{\n  "restored": true\n}\n');
});

test('a bar is drawn only on a terminal, and lines written meanwhile stand above it', () => {
  const said = (isTTY: boolean, wantsBars: boolean): string => {
    let text = '';
    const write = (part: string): boolean => {
      text += part;
      return true;
    };
    const stderr = { write, isTTY, columns: 40 } as unknown as NodeJS.WriteStream;
    const terminal = createTerminal({ stdout: stderr, stderr }, wantsBars);
    const progress = terminal.progress();
    progress.update('restore', 1, 2);
    terminal.line('an event');
    progress.end();
    return text;
  };
  assert.equal(said(false, true), 'an event\n');
  assert.equal(said(true, false), 'an event\n');
  const drawn = said(true, true);
  assert.match(drawn, /restore \[.*an event\n.*restore \[/s);
  assert.ok(drawn.endsWith('\r\u001b[K'), 'expected the bar to be taken away');
});
