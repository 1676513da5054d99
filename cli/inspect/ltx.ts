import { basename } from 'node:path';
import { FormatError } from '../../lib/errors.js';
import { LtxDecoder } from '../../lib/ltx/decoder.js';
import { isSnapshot, type LtxHeader, ltxFileName, parseLtxFileName } from '../../lib/ltx/header.js';
import { type InputFile, PIECE_SIZE } from './input-file.js';
import { hexWords, Report } from './report.js';

/** So many pages are listed. */
const PAGES_SHOWN = 20;

/** Header, pages, index and trailer, all verified. */
export async function inspectLtx(file: InputFile): Promise<Report> {
  const report = new Report('LTX file', file.path, file.size);
  const decoder = new LtxDecoder(basename(file.path));
  let pages = 0;
  let firstPage = 0;
  let lastPage = 0;
  let frames = 0;
  const rows: (string | number)[][] = [];
  let position = 0;
  let fileChecksum: bigint | undefined;
  const piece = new Uint8Array(PIECE_SIZE);
  try {
    for (let event = decoder.next(); event !== 'end'; event = decoder.next()) {
      if (event === 'header') addHeader(report, decoder.header!);
      else if (event === 'page') {
        pages++;
        if (pages === 1) firstPage = decoder.pgno;
        lastPage = decoder.pgno;
        const isFrame = decoder.block.from === decoder.block.to;
        if (isFrame) frames++;
        if (pages <= PAGES_SHOWN) {
          const encoding = isFrame ? 'LZ4 frame' : 'LZ4 block';
          rows.push([decoder.pgno, decoder.pageOffset, decoder.pageBytes, encoding]);
        }
      } else {
        const bytes = await file.read(piece, position);
        if (bytes.length === 0) break;
        position += bytes.length;
        decoder.push(bytes);
      }
    }
    const summary = decoder.end();
    fileChecksum = summary.fileChecksum;
    if (file.size > summary.bytes) {
      report.problems.push(`expected the end of the file at byte ${summary.bytes}, found ${file.size} bytes`);
    }
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    report.problems.push(error.message);
  }
  if (decoder.header === undefined) return report;
  report.fact('pages', pages, pages === 0 ? '0' : `${pages}, from ${firstPage} to ${lastPage}`);
  const blocks = pages - frames;
  const encodings = { blocks, frames };
  report.fact('pageEncoding', encodings, `${blocks} as LZ4 blocks, ${frames} as LZ4 frames (older writers)`);
  if (fileChecksum !== undefined) report.fact('fileChecksum', fileChecksum, fileChecksum.toString(16));
  report.fact('pageIndex', fileChecksum === undefined ? 'not verified' : 'agrees with the pages');
  report.table('pageList', ['page', 'byte', 'size', 'encoding'], rows, pages);
  return report;
}

function addHeader(report: Report, header: LtxHeader): void {
  const time = new Date(header.timestampMs).toISOString();
  const { minTxid, maxTxid } = header;
  report.fact('minTxid', minTxid, minTxid.toString(16).padStart(16, '0'));
  report.fact('maxTxid', maxTxid, maxTxid.toString(16).padStart(16, '0'));
  report.fact('snapshot', isSnapshot(header), isSnapshot(header) ? 'yes' : 'no');
  report.fact('flags', header.flags);
  report.fact('pageSize', header.pageSize);
  report.fact('commit', header.commit, `${header.commit} pages`);
  report.fact('timestamp', time);
  report.fact('preApplyChecksum', header.preApplyChecksum, header.preApplyChecksum.toString(16));
  report.fact('walOffset', header.walOffset);
  report.fact('walSize', header.walSize);
  report.fact('walSalts', hexWords(header.walSalt1, header.walSalt2));
  report.fact('nodeId', header.nodeId, header.nodeId.toString(16));
  const named = parseLtxFileName(basename(report.path));
  if (named !== undefined && (named.minTxid !== minTxid || named.maxTxid !== maxTxid)) {
    report.problems.push(`the name: expected ${ltxFileName(minTxid, maxTxid)} for this header`);
  }
}
