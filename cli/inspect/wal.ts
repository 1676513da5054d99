import { FormatError } from '../../lib/errors.js';
import {
  decodeFrameHeader,
  decodeWalHeader,
  type FrameHeader,
  FrameScanner,
  isUnsummedFrame,
  WAL_HEADER_SIZE,
  WalChecksum,
  type WalHeader,
} from '../../lib/sqlite/wal.js';
import { type InputFile, PIECE_SIZE } from './input-file.js';
import { hexWords, Report } from './report.js';

/** What lies behind the last frame whose chain holds. */
interface Beyond {
  /** With this generation's salts: rolled back, being written, or damaged. */
  sameSalts: number;
  /** Of those (and of frames without a checksum): with a commit mark. */
  commits: number;
  unsummed: number;
  otherSalts: number;
}

/** The header, how far the chain of checksums holds, and what lies behind its end. */
export async function inspectWal(file: InputFile): Promise<Report> {
  const report = new Report('WAL', file.path, file.size);
  let header: WalHeader;
  try {
    header = decodeWalHeader(await file.read(new Uint8Array(WAL_HEADER_SIZE), 0));
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    report.problems.push(`${error.message}; SQLite takes nothing from this WAL`);
    return report;
  }
  report.fact('pageSize', header.pageSize);
  report.fact('checksums', header.bigEndianChecksum ? 'big-endian' : 'little-endian');
  report.fact('checkpointSequence', header.checkpointSequence);
  report.fact('salts', hexWords(header.salt1, header.salt2));
  await scanFrames(file, header, report);
  return report;
}

async function scanFrames(file: InputFile, header: WalHeader, report: Report): Promise<void> {
  const { pageSize, salt1, salt2, checksum1, checksum2, bigEndianChecksum } = header;
  const checksum = new WalChecksum(bigEndianChecksum, checksum1, checksum2);
  const scanner = new FrameScanner(pageSize, salt1, salt2, checksum);
  const { frameSize } = scanner;
  const piece = new Uint8Array(Math.floor(PIECE_SIZE / frameSize) * frameSize);
  const beyond: Beyond = { sameSalts: 0, commits: 0, unsummed: 0, otherSalts: 0 };
  let frames = 0;
  let validFrames = 0;
  let commits = 0;
  let horizon = 0;
  let pageCount = 0;
  let chainHolds = true;
  let why = 'the file ends';
  let position = WAL_HEADER_SIZE;
  for (;;) {
    const bytes = await file.read(piece, position);
    let at = 0;
    for (; at + frameSize <= bytes.length; at += frameSize) {
      frames++;
      if (chainHolds && scanner.next(bytes, at)) {
        validFrames++;
        if (scanner.commit === 0) continue;
        commits++;
        horizon = validFrames;
        pageCount = scanner.commit;
        continue;
      }
      const frame = decodeFrameHeader(bytes, at);
      if (chainHolds) why = whyNotValid(frame, header);
      chainHolds = false;
      countBeyond(beyond, frame, header);
    }
    position += at;
    if (bytes.length < piece.length) break;
  }

  report.fact('frames', frames);
  report.fact('validFrames', validFrames);
  report.fact('commitMarks', commits);
  report.fact('lastCommit', horizon, horizon === 0 ? 'none' : `frame ${horizon}`);
  report.fact('databasePages', pageCount);
  report.fact('chainEnds', { after: validFrames, why }, `after frame ${validFrames}: ${why}`);
  report.fact('chainAtEnd', hexWords(checksum.s1, checksum.s2));
  report.fact('beyond', beyond, describeBeyond(beyond));
  const rest = file.size - WAL_HEADER_SIZE - frames * frameSize;
  if (rest > 0) report.notes.push(`the last ${rest} bytes are a part of a frame: being written, or cut off`);
  if (horizon < validFrames) {
    report.notes.push(
      `${validFrames - horizon} frames after the last commit: of a transaction under way, rolled back or cut off`,
    );
  }
  if (beyond.commits > 0) {
    const cause =
      beyond.unsummed > 0
        ? 'SQLite before 3.50.2 wrote frames without a checksum; readers see these commits, recovery would lose them'
        : 'the file is damaged there, or a writer died before it published them';
    report.problems.push(
      `frame ${validFrames + 1}: ${why}, and ${beyond.commits} commits of this generation lie behind it; ${cause}`,
    );
  }
}

function whyNotValid(frame: FrameHeader, header: WalHeader): string {
  if (isUnsummedFrame(frame)) return 'a frame without salts and checksum';
  if (frame.salt1 !== header.salt1 || frame.salt2 !== header.salt2) {
    return `salts ${hexWords(frame.salt1, frame.salt2)}, of another generation`;
  }
  return frame.pgno === 0 ? 'page number 0' : 'a checksum that does not continue the chain';
}

function countBeyond(beyond: Beyond, frame: FrameHeader, header: WalHeader): void {
  if (isUnsummedFrame(frame)) beyond.unsummed++;
  else if (frame.salt1 === header.salt1 && frame.salt2 === header.salt2) beyond.sameSalts++;
  else {
    beyond.otherSalts++;
    return;
  }
  if (frame.commit !== 0) beyond.commits++;
}

function describeBeyond({ sameSalts, unsummed, otherSalts }: Beyond): string {
  const parts: string[] = [];
  if (sameSalts > 0) parts.push(`${sameSalts} frames of this generation`);
  if (unsummed > 0) parts.push(`${unsummed} without checksum`);
  if (otherSalts > 0) parts.push(`${otherSalts} of other generations`);
  return parts.join(', ') || 'nothing';
}
